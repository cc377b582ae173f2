"""Every option of every command, as one argparse tree.

Nothing here imports torch or a library that does, so that help and refusals answer at once. Options that a recipe's
keys are (`--learning_rate 1e-4`) are not in the tree: they are left over when a line is parsed, and the recipe's own
parser takes them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
from dataclasses import MISSING, Field, fields
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from .methods import fields_of, names
from .recipe.command_line import (
    Parser,
    Refused,
    add_command,
    add_recipe,
    add_scale,
    add_show,
    amount,
    count,
    number,
    number_or_none,
    one_of,
    several,
    whole,
)


LAUNCHED = ("generate", "eval")  # beside the methods: what accelerate can start in several processes
RESUME = ("auto", "never", "must")
PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
SLIPS = (0.15, 0.35, 0.55, 0.75)
PROBE = 32

_OVERVIEW = """\
Close the gap between training and inference in LLM fine-tuning. A recipe is one YAML file and one run; every key of
it is an option, too (--learning_rate 1e-4), and options win over the file."""

_EXAMPLES = """\
examples:
  gapbridge validate recipes/tiny/bash/config_full.yaml
  gapbridge bash recipes/tiny/bash/config_full.yaml --learning_rate 1e-4
  gapbridge COMMAND --help      what the command does and takes; for a method also its recipe keys

Exit codes: 0 done; 2 refused with a message; 75 stopped by SIGTERM or Ctrl-C after saving: the same line continues."""


def command_tree() -> tuple[Parser, dict[str, Parser]]:
    """The parser of a whole line, and the parsers of the commands by name."""
    parser = Parser(
        prog="gapbridge",
        usage="gapbridge COMMAND [RECIPE.yaml] [options]",
        description=_OVERVIEW,
        epilog=_EXAMPLES,
    )
    add_show(parser, "--version", lambda _: f"gapbridge {metadata.version('gapbridge')}", "show the version and exit")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name in names():
        _add_method(commands, name)
    for add in (
        _add_validate, _add_preview, _add_generate, _add_answer, _add_eval, _add_gap, _add_compare, _add_report,
        _add_plan, _add_copy_into, _add_init,
    ):  # fmt: skip
        add(commands)
    return parser, dict(commands.choices)


def launch_parser() -> Parser:
    """The options that say how processes are started; none of them is in the namespace where it is not given."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    add = parser.add_argument_group("several processes or machines").add_argument
    add("--accelerate_config", metavar="NAME|FILE",
        help="start through accelerate: single, ddp, fsdp, zero2, zero3, or a configuration file")  # fmt: skip
    add("--num_processes", type=count, metavar="N", help="processes on all machines together")
    add("--num_machines", type=count, metavar="N", help="machines; start the same line on each")
    add("--machine_rank", type=whole, metavar="N", help="this machine's number, from 0 on")
    add("--main_process_ip", metavar="HOST", help="the machine of rank 0")
    add("--main_process_port", type=whole, metavar="PORT", help="a free port of it; 0: any")
    return parser


def resume(text: str) -> str | Refused:
    return text if text in RESUME else Refused(text, f"choose one of {', '.join(RESUME)}")


def _add_method(commands: Any, name: str) -> None:
    parser = add_command(
        commands,
        name,
        "RECIPE.yaml [options] [--KEY VALUE …]",
        _summary(name),
        "RECIPE.yaml --learning_rate 1e-4\nRECIPE.yaml --accelerate_config zero2 --num_processes 8",
        parents=[launch_parser()],
        add_help=False,
    )
    add_recipe(parser)
    parser.add_argument(
        "--resume", type=resume, default="auto", metavar="|".join(RESUME),
        help="auto continues the run in output_dir or starts one, never refuses to continue, must refuses to start "
        "(default: %(default)s)",
    )  # fmt: skip
    add_show(parser, "--help", lambda parser: _method_help(parser, name), "show this help message and exit")
    add_show(parser, "--help-all", lambda _: _all_keys(name), "list every recipe key, TRL's included, and exit")


def _add_validate(commands: Any) -> None:
    parser = add_command(
        commands,
        "validate",
        "RECIPE.yaml … [options] [--KEY VALUE …]",
        "check recipes, and report every fault at once",
        "recipes/tiny/*/config_full.yaml\nRECIPE.yaml --all",
    )
    add = parser.add_argument
    add("--config", action="extend", nargs="+", default=[], metavar="RECIPE.yaml",
        help="recipes; their names without --config are the same")  # fmt: skip
    add("--method", metavar="NAME", help=f"for recipes without the key method: {', '.join(names())}")
    add("--all", action="store_true", help="check every row of the data, not only the first ones")
    add("--offline", action="store_true", help="ask no hub: stand-ins for the models and data that are not here")
    add_scale(parser, "train each recipe for two steps as well, on stand-ins for model and data: tiny")


def _add_preview(commands: Any) -> None:
    parser = add_command(
        commands,
        "preview",
        "RECIPE.yaml [options] [--KEY VALUE …]",
        "show the first rows as the trainer sees them, and what they could teach; nothing is written",
        "RECIPE.yaml\nRECIPE.yaml --rows 10 --mixture_coefficient 0.5",
    )
    add_recipe(parser)
    parser.add_argument("--rows", type=count, default=3, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--probe", type=amount, default=PROBE, metavar="N",
        help="examples on which the starting model is asked what training could gain; 0: none (default: %(default)s)",
    )  # fmt: skip


def _add_generate(commands: Any) -> None:
    parser = add_command(
        commands,
        "generate",
        "RECIPE.yaml [options] [--KEY VALUE …]",
        "build the contexts of the next round and stop",
        "RECIPE.yaml\nRECIPE.yaml --accelerate_config ddp --num_processes 8",
        parents=[launch_parser()],
    )
    add_recipe(parser)


def _add_answer(commands: Any) -> None:
    parser = add_command(
        commands,
        "answer",
        "RECIPE.yaml [options] [--KEY VALUE …]",
        "answer a recipe's held-out prompts, as JSONL",
        "RECIPE.yaml\nRECIPE.yaml --model outputs/tiny-rac --mode direct --mode corrected --output answers.jsonl",
    )
    add = parser.add_argument
    add_recipe(parser)
    add("--model", metavar="MODEL", help="a path or hub id; default: the recipe's finished run")
    _add_mode(parser)
    add("--output", type=Path, metavar="FILE.jsonl", help="where they go; default: in the recipe's output_dir")
    add("--max_completion_length", type=whole, default=256, metavar="N",
        help="most tokens of an answer (default: %(default)s)")  # fmt: skip
    add("--temperature", type=number, default=0.0, metavar="T", help="0 is greedy (default: %(default)s)")
    _add_amounts(parser)


def _add_eval(commands: Any) -> None:
    parser = add_command(
        commands,
        "eval",
        "--task TASK --model MODEL [--model MODEL …] [options] [--KEY VALUE …]",
        "grade answers: accuracy, ROUGE, win rate or lm-eval, with intervals",
        "--task gsm8k --model outputs/sft --model outputs/rac --mode both\n"
        "--task tldr --answers ready.jsonl --judge MODEL --judge_url http://127.0.0.1:8000/v1",
        parents=[launch_parser()],
    )
    add = parser.add_argument
    add("--task", required=True, help="math, gsm8k, math500, word_problems, copying, listing, sums, page_summaries, "
        "summarization, tldr, winrate or lm_eval")  # fmt: skip
    _add_models(parser)
    add("--answers", action="append", default=[], type=Path, metavar="FILE.jsonl",
        help="ready answers (id, prompt, reference, answer a line) instead of a model; can be repeated")  # fmt: skip
    add("--labels", metavar="KEY", help="a field of the answer files with published marks to compare the grades with")
    _add_mode(parser)
    add("--max_completion_length", type=whole, metavar="N", help="most tokens of an answer; default: the task's")
    add("--temperature", type=number, metavar="T", help="0 is greedy; default: the task's")
    add("--top_p", type=number, default=1.0, metavar="P", help="nucleus sampling (default: %(default)s, off)")
    add("--top_k", type=whole, default=0, metavar="K", help="top-k sampling (default: %(default)s, off)")
    add("--correction_prompt", metavar="TEXT", help="the request for a correction; default: the recipe's, or RAC's")
    add("--grading_timeout", type=number, default=10.0, metavar="SECONDS",
        help="for one answer in math-verify (default: %(default)s)")  # fmt: skip
    add(
        "--grading_workers", type=whole, default=2, metavar="N", help="processes of math-verify (default: %(default)s)"
    )
    _add_judging(parser)


def _add_judging(parser: Parser) -> None:
    add = parser.add_argument_group("win rate").add_argument
    add("--judge", metavar="MODEL", help="a model that compares answers: a path or hub id, or with --judge_url a name")
    add("--judge_url", metavar="URL", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    add("--judge_prompt", metavar="NAME|FILE", help="tldr, general_qa or a file; default: the task's")
    add("--judge_api_key_env", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable that holds the endpoint's key (default: %(default)s)")  # fmt: skip
    add("--judge_temperature", type=number_or_none, default=0.01, metavar="T",
        help="default: %(default)s, the paper's; none sends none, as some endpoints demand")  # fmt: skip
    add("--judge_max_tokens", type=whole, default=512, metavar="N",
        help="longest reply of the judge, its thoughts included (default: %(default)s)")  # fmt: skip
    add("--judge_token_limit_field", type=one_of("max_tokens", "max_completion_tokens"), default="max_tokens",
        metavar="NAME",
        help="max_tokens or max_completion_tokens: its name there (default: what is taken)")  # fmt: skip
    add("--judge_timeout", type=number, default=120.0, metavar="SECONDS",
        help="for one whole request (default: %(default)s)")  # fmt: skip
    add("--judge_concurrency", type=whole, default=8, metavar="N",
        help="requests at the same time (default: %(default)s)")  # fmt: skip


def _add_gap(commands: Any) -> None:
    parser = add_command(
        commands,
        "gap",
        "RECIPE.yaml --model MODEL [--model MODEL …] [options] [--KEY VALUE …]",
        "measure how much models are disturbed by their own words",
        "RECIPE.yaml --model outputs/sft --model outputs/bash --limit 200",
    )
    add = parser.add_argument
    _add_models(parser)
    add("--prefix_lengths", type=whole, nargs="+", default=list(PREFIX_LENGTHS), metavar="K",
        help=f"own tokens before the reference goes on (default: {' '.join(map(str, PREFIX_LENGTHS))})")  # fmt: skip
    add("--slips", type=number, nargs="*", default=list(SLIPS), metavar="SHARE",
        help="where one wrong token is forced, as shares of the reference; --slips alone: nowhere "
        f"(default: {' '.join(map(str, SLIPS))})")  # fmt: skip
    add("--slips_from", metavar="MODEL",
        help="the model whose slips all are given, or each: every model has its own (default: the first)")  # fmt: skip
    add("--max_completion_length", type=whole, default=256, metavar="N",
        help="most tokens of a draft (default: %(default)s)")  # fmt: skip
    add("--temperature", type=number, default=1.0, metavar="T",
        help="of the drafts; 0 is greedy (default: %(default)s)")  # fmt: skip


def _add_compare(commands: Any) -> None:
    parser = add_command(
        commands,
        "compare",
        "RECIPE.yaml --methods A,B,… [options] [--KEY VALUE …]",
        "train and evaluate methods and the control side by side, over seeds",
        "RECIPE.yaml --methods bash,rac --seeds 1,2,3 --dry-run\n--suite SUITE.yaml --workers 2",
    )
    add = parser.add_argument
    add_recipe(parser, "your recipe, of any method; every arm trains its rows from its model")
    add(
        "--methods",
        type=several(str),
        metavar="A,B,…",
        help=f"which of {', '.join(names())}; the control is always there",
    )
    add("--seeds", type=several(whole), metavar="N,N,…", help="seeds of training (default: 1,2,3)")
    add("--match", metavar="KIND",
        help="what an arm has as much of as the control: steps, tokens, compute or none (default: steps)")  # fmt: skip
    add("--suite", type=Path, metavar="SUITE.yaml", help="arms with settings of their own, in place of a recipe")
    add("--output_dir", type=Path, metavar="DIR", help="where it all goes; default: outputs/ and the suite's name")
    add(
        "--workers", type=count, default=1, metavar="N", help="seeds at once, each in a process (default: %(default)s)"
    )
    add("--dry-run", action="store_true", help="say what would be done and how long it takes here; write nothing")
    group = parser.add_argument_group("evaluation, of every arm on the recipe's held-out data").add_argument
    group("--task", metavar="TASK",
        help="the grader, as for gapbridge eval; default: math, if the references mark their answers")  # fmt: skip
    group("--max_completion_length", type=whole, metavar="N", help="most tokens of an answer; default: the task's")
    group("--temperatures", type=several(number), metavar="T,T,…", help="0 is greedy (default: 0,1)")
    group("--limit", type=whole, metavar="N", help="the first so many held-out examples only")
    group("--gap", action="store_true", help="measure the gap as well, as gapbridge gap")
    group("--slips", type=several(number), metavar="P,P,…", help="and force slips at these places, between 0 and 1")


def _add_report(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        "RUN [RUN …] [--results DIR …] [--output_dir DIR]",
        "put runs side by side: settings, losses, figures, cost, answers",
        "outputs/sft outputs/bash outputs/rac\noutputs/sft outputs/bash --results outputs --output_dir outputs/report",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run")
    add("--results", type=Path, nargs="+", default=[], metavar="DIR",
        help="further directories with eval/ or gap/ in them, as of several models evaluated together")  # fmt: skip
    add("--output_dir", type=Path, default=Path("outputs/report"), metavar="DIR",
        help="where the page goes (default: %(default)s)")  # fmt: skip


def _add_copy_into(commands: Any) -> None:
    parser = add_command(
        commands, "copy-into", "FORK [--recipe MODEL]",
        "put scripts and recipes, as new files, into an alignment-handbook fork",
        "../my-fork --recipe zephyr-7b-beta",
    )  # fmt: skip
    parser.add_argument("fork", type=Path, metavar="FORK", help="the top directory of the fork")
    parser.add_argument("--recipe", metavar="MODEL", help="a folder of its recipes; default: all with SFT recipes")


def _add_init(commands: Any) -> None:
    parser = add_command(
        commands, "init", "--from SFT.yaml --method NAME [--output FILE.yaml]",
        "turn your own SFT recipe into one for another method, beside it",
        "--from my-sft.yaml --method bash",
    )  # fmt: skip
    add = parser.add_argument
    add("--from", dest="source", type=Path, required=True, metavar="SFT.yaml", help="the recipe to start from")
    add("--method", required=True, metavar="NAME", help="what it becomes a recipe for")
    add("--output", type=Path, metavar="FILE.yaml", help="where it goes; default: beside the source")


def _add_plan(commands: Any) -> None:
    parser = add_command(
        commands,
        "plan",
        "RECIPE.yaml [options] [--KEY VALUE …]",
        "count what a recipe takes before it is launched: memory, steps, tokens, time",
        "RECIPE.yaml --gpus 8 --gpu_memory 80 --tflops 150\nrecipes/tiny/bash/config_full.yaml --gpus 1 --measure",
    )
    add = parser.add_argument
    parser.add_argument("--config", action="append", default=[], metavar="RECIPE.yaml",
        help="the recipe; its name without --config is the same")  # fmt: skip
    add(
        "--gpus",
        type=count,
        metavar="N",
        help="devices, one process each (default: 8; for a recipe with use_cpu: true this machine's CPU)",
    )
    add("--gpu_memory", "--gpu-memory", type=number, metavar="GIB",
        help="memory of a device (default: 80, or what this machine has)")  # fmt: skip
    add("--tflops", type=number, metavar="T", help="what a device computes in a second, for the time it takes")
    add("--rows", type=count, metavar="N", help="rows of the training data, where they are not here")
    add("--row_tokens", type=number, metavar="N", help="their mean length in tokens; default: max_length")
    add("--measure", action="store_true", help="take a few steps of the actual model here, for the time")


def _add_models(parser: Parser) -> None:
    """What `eval` and `gap` share: models, data, and where the files go."""
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="MODEL",
        help="a path or hub id; repeat it to compare models on the same data")  # fmt: skip
    add_recipe(parser, "a recipe whose held-out data and chat settings are used")
    add("--output_dir", type=Path, metavar="DIR", help="where the files go; default: the one model's run, or outputs")
    _add_amounts(parser)


def _add_mode(parser: Parser) -> None:
    parser.add_argument(
        "--mode", action="append", metavar="MODE",
        help="direct, both, or a mode that a method brings, such as corrected; can be repeated (default: direct)",
    )  # fmt: skip


def _add_amounts(parser: Parser) -> None:
    add = parser.add_argument
    add("--limit", type=whole, metavar="N", help="the first so many examples only")
    add("--batch_size", type=whole, default=64, metavar="N",
        help="rows in one pass; changes the speed only (default: %(default)s)")  # fmt: skip
    add("--compile_decoding", action="store_true",
        help="compile the pass that draws one token a row; changes the speed only")  # fmt: skip
    add("--seed", type=whole, default=0, metavar="N", help="of sampled answers (default: %(default)s)")


def _summary(method: str) -> str:
    """The first line of a method's docstring; read, not imported: the trainer needs torch."""
    source = (resources.files("gapbridge.methods") / method / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or method).splitlines()[0].rstrip(".")


def _method_help(parser: Parser, method: str) -> str:
    add = parser.add_argument_group(
        f"recipe keys of {method} (`KEY: VALUE` in the recipe, --KEY VALUE here); --help-all adds those of TRL"
    ).add_argument
    for field in fields(fields_of(method)):
        add(f"--{field.name}", metavar=_kind(field), help=field.metadata["help"].replace("%", "%%") + _default(field))
    return parser.format_help()


def _kind(field: Field[Any]) -> str:
    if "choices" in field.metadata:
        return "|".join(map(str, field.metadata["choices"]))
    kind = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
    return kind.removesuffix(" | None")


def _default(field: Field[Any]) -> str:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None or value is MISSING:
        return ""
    return f" (default: {json.dumps(value, ensure_ascii=False)})".replace("%", "%%")


def _all_keys(method: str) -> str:
    from .runs.job import parser_for

    parser = parser_for(method)
    parser.usage = f"gapbridge {method} RECIPE.yaml [--KEY VALUE …]"
    return parser.format_help()
