"""What a command is, what a parsed line is, and the options that several commands have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import SUPPRESS, Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from .parser import Parser, integer, number, positive


@dataclass(frozen=True)
class Call:
    """A parsed line.

    Attributes:
        command: The command's name.
        options: Its own options. `config` is one recipe or None; of `validate` it is a list of recipes.
        overrides: The remaining arguments, for the recipe's parser, in order and as they were written.
        launch: The launch options that were given.
        smoke_test: Whether to run two steps on small stand-ins.
        passed: All arguments but the launch options: what a launched process gets.
    """

    command: str
    options: Namespace
    overrides: list[str] = field(default_factory=list)
    launch: dict[str, Any] = field(default_factory=dict)
    smoke_test: bool = False
    passed: list[str] = field(default_factory=list)


@dataclass
class BaseCommand(ABC):
    """One command of `gapbridge`; each module of `commands/` has one subclass, `Command`.

    Attributes:
        name: The method's name, or that of the module.
        takes: The arguments, for the usage line.
        summary: What it does, in one line.
        examples: Arguments of example lines.
        recipes: How many recipes a line names. The command itself refuses a line without an optional one.
        is_launched: Whether `--accelerate_config` starts it in several processes.
    """

    name: str
    takes: ClassVar = "RECIPE.yaml [options] [--KEY VALUE …]"
    summary: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    recipes: ClassVar[Literal["none", "optional", "one", "many"]] = "one"
    is_launched: ClassVar = False

    def parser(self) -> Parser:
        """The parser of the command's options, without those of its recipe."""
        keys = "\nEvery key of the recipe is also an option: --KEY VALUE." if "KEY" in self.takes else ""
        parser = Parser(
            usage=f"gapbridge {self.name} {self.takes}",
            description=f"{self.summary[:1].upper()}{self.summary[1:]}.{keys}",
            epilog="examples:\n" + "".join(f"  gapbridge {self.name} {line}\n" for line in self.examples),
            parents=[launch_parser()] if self.is_launched else [],
        )
        self.add_options(parser)
        return parser

    def add_options(self, parser: Parser) -> None:
        """Add the command's options to its parser."""
        add_recipe(parser)

    @abstractmethod
    def run(self, call: Call) -> Any:
        """Import what does the work, and do it. With `--smoke_test` the call has a small recipe."""


def launch_parser() -> Parser:
    """The options that say how processes are started. An option that is not given is not in the namespace."""
    parser = Parser(add_help=False, argument_default=SUPPRESS)
    add = parser.add_argument_group("several processes or machines").add_argument
    add("--accelerate_config", metavar="NAME|FILE",
        help="accelerate configuration of the launch: single, ddp, fsdp, zero2, zero3, or a file")  # fmt: skip
    add("--num_processes", type=positive, metavar="N",
        help="total number of processes on all machines (default: as in the configuration)")  # fmt: skip
    add("--num_machines", type=positive, metavar="N",
        help="number of machines; run the same command on each (default: as in the configuration)")  # fmt: skip
    add("--machine_rank", type=integer, metavar="N",
        help="rank of this machine, from 0 (default: as in the configuration)")  # fmt: skip
    add("--main_process_ip", metavar="HOST", help="host name of the machine with rank 0")
    add("--main_process_port", type=integer, metavar="PORT", help="free port on that machine; with 0 one is chosen")
    return parser


def add_recipe(parser: Parser, help: str = "path of the recipe; may also be given as a positional argument") -> None:
    parser.add_argument("--config", action="append", default=[], metavar="RECIPE.yaml", help=help)
    parser.add_argument("--smoke_test", action="store_true",
        help="use a tiny model and tiny data, train two steps in each round, and write to outputs/tiny")  # fmt: skip


def add_mode(parser: Parser) -> None:
    parser.add_argument(
        "--decoding_mode", action="append", metavar="MODE",
        help="way to generate: single_pass, all, or the mode of a method, such as self_correct; repeatable (default: "
             "single_pass)",
    )  # fmt: skip


def add_amounts(parser: Parser) -> None:
    """How many examples, how many at a time, and with which seed."""
    add = parser.add_argument
    add(
        "--max_examples",
        type=positive,
        metavar="N",
        help="maximum number of examples; the first ones are used (default: max_eval_examples of the recipe, or all)",
    )
    add("--batch_size", type=positive, default=64, metavar="N",
        help="number of rows in one batch; changes the speed only (default: %(default)s)")  # fmt: skip
    add("--seed", type=integer, default=0, metavar="N", help="seed of sampled completions (default: %(default)s)")


def add_server(parser: Parser) -> None:
    """A vLLM server in place of this package's engine; names as in a recipe."""
    add = parser.add_argument
    add("--vllm_server_base_url", action="append", metavar="URL",
        help="URL of a `vllm serve` process that generates completions; give it once for each --model")  # fmt: skip
    add("--vllm_server_timeout", type=number, default=240.0, metavar="SECONDS",
        help="seconds to wait until the vLLM server answers (default: %(default)s)")  # fmt: skip


def add_models(parser: Parser) -> None:
    """What `eval` and `gap` share: models, data, and where the files go."""
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="MODEL",
        help="path or hub id of a model; repeatable, to compare models on the same data")  # fmt: skip
    add_recipe(parser, "path of the recipe whose evaluation data and chat settings are used")
    add("--output_dir", metavar="DIR", type=Path,
        help="output directory (default: the run's directory for a single run, else outputs)")  # fmt: skip
    add_amounts(parser)
    add_server(parser)
