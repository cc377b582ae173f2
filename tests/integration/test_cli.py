"""The command line itself: how a line is read, what help and refusals say, and that both come without torch."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers import refused

from gapbridge import ConfigError, cli
from gapbridge.cli import COMMANDS
from gapbridge.methods import list_methods, method_fields


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("line", "recipe", "overrides"),
    [
        ("my.yaml", "my.yaml", ""),
        ("--config my.yaml", "my.yaml", ""),
        ("--config=my.yml", "my.yml", ""),
        ("--config recipe", "recipe", ""),
        ("my.yaml --learning_rate 1e-4", "my.yaml", "--learning_rate 1e-4"),
        ("--learning_rate 1e-4 my.yaml", "my.yaml", "--learning_rate 1e-4"),
        ("--learning_rate=1e-4 my.yaml --max_steps=2", "my.yaml", "--learning_rate=1e-4 --max_steps=2"),
        ("my.yaml --prefix 1 2", "my.yaml", "--prefix 1 2"),
        ("--prefix 1 2 my.yaml --seed 3", "my.yaml", "--prefix 1 2 --seed 3"),
        ("my.yaml --learning_rate -1e-4 --seed -1", "my.yaml", "--learning_rate -1e-4 --seed -1"),
        ("my.yaml --correction_prompt 'Look again: is it right?'", "my.yaml",
         "--correction_prompt 'Look again: is it right?'"),
        ("my.yaml --system_prompt '--config and more'", "my.yaml", "--system_prompt '--config and more'"),
        ("my.yaml --run_name '' --seed 1", "my.yaml", "--run_name '' --seed 1"),
        # The beginnings of our own options are the recipe's.
        ("my.yaml --res x --conf y --accelerate z --acc=1", "my.yaml", "--res x --conf y --accelerate z --acc=1"),
        ("my.yaml --resume_from_checkpoint last", "my.yaml", "--resume_from_checkpoint last"),
        # A word behind a key is its value, unless it alone can be the recipe.
        ("my.yaml --fsdp_config other.yaml", "my.yaml", "--fsdp_config other.yaml"),
        ("--fsdp_config other.yaml my.yaml", "my.yaml", "--fsdp_config other.yaml"),
        ("--fsdp_config other.yaml --config my.yaml", "my.yaml", "--fsdp_config other.yaml"),
        ("--use_cpu my.yaml", "my.yaml", "--use_cpu"),
        ("--use_cpu=true my.yaml --fsdp_config other.yaml", "my.yaml", "--use_cpu=true --fsdp_config other.yaml"),
        ("--resume require my.yaml --use_cpu", "my.yaml", "--use_cpu"),
        ("my.yaml --seed 1 -- --resume x more.yaml", "my.yaml", "--seed 1 --resume x more.yaml"),
    ],
)  # fmt: skip
def test_recipe_and_overrides(line: str, recipe: str, overrides: str) -> None:
    call = cli.parse(["bash", *shlex.split(line)])
    assert call.command == "bash"
    assert call.options.config == recipe
    assert call.overrides == shlex.split(overrides)
    assert call.launch == {} and call.passed == shlex.split(line)


SERVER = {"vllm_server_base_url": None, "vllm_server_timeout": 240.0}
EVAL = {
    "task": "gsm8k", "model": [], "config": None, "completions_file": [],
    "max_examples": None, "output_dir": None,
    "seed": 0, "batch_size": 64, **SERVER,
    "decoding_mode": ["single_pass"], "max_completion_length": None, "temperature": None, "top_p": 1.0,
    "top_k": 0, "correction_prompt": None, "grading_timeout": 10.0, "grading_workers": 2, "judge": None,
    "judge_url": None, "judge_prompt": None, "judge_api_key_env": "OPENAI_API_KEY", "judge_temperature": 0.01,
    "judge_max_tokens": 512, "judge_token_limit_field": "max_tokens", "judge_timeout": 120.0, "judge_concurrency": 8,
}  # fmt: skip
GAP = {
    "model": [], "config": None, "max_examples": None, "output_dir": None, "seed": 0, "batch_size": 64,
    **SERVER, "prefix_lengths": [1, 2, 4, 8, 16, 32, 64, 128], "max_completion_length": 256,
    "temperature": 1.0, "error_positions": [0.15, 0.35, 0.55, 0.75], "error_source": None,
    "completions_from": None,
}  # fmt: skip
ANSWER = {
    "config": "r.yaml", "model": None, "decoding_mode": ["single_pass"], "output": None, "max_completion_length": 256,
    "temperature": 0.0, "max_examples": None, "batch_size": 64, **SERVER, "seed": 0,
}  # fmt: skip
VALIDATE = {"method": None, "check_all_rows": False, "offline": False}
COMPARE = {
    "config": None, "methods": None, "seeds": None, "budget": None, "experiment_config": None, "output_dir": None,
    "num_parallel_seeds": 1, "delete_models": False,
    "dry_run": False, "task": None, "max_completion_length": None, "temperatures": None, "max_examples": None,
    "gap": False,
    "error_positions": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "options", "overrides"),
    [
        ("bash r.yaml", {"config": "r.yaml", "resume": "auto"}, ""),
        ("sft --resume=require r.yaml", {"config": "r.yaml", "resume": "require"}, ""),
        ("prepare r.yaml --num_rounds 2", {"config": "r.yaml"}, "--num_rounds 2"),
        ("preview r.yaml", {"config": "r.yaml", "num_rows": 3, "num_probe_examples": 0}, ""),
        ("preview --num_rows 10 --num_probe_examples 0 --seed 1 r.yaml", {"config": "r.yaml", "num_rows": 10,
        "num_probe_examples": 0}, "--seed 1"),
        ("validate a.yaml b.yml", {**VALIDATE, "config": ["a.yaml", "b.yml"]}, ""),
        ("validate --config a b --use_cpu true c.yaml", {**VALIDATE, "config": ["a", "b", "c.yaml"]},
         "--use_cpu true"),
        ("validate --check_all_rows a.yaml --method sft", {**VALIDATE, "config": ["a.yaml"], "method": "sft",
        "check_all_rows": True}, ""),
        ("generate r.yaml", ANSWER, ""),
        ("generate --model m --decoding_mode single_pass --decoding_mode self_correct r.yaml --output a.jsonl "
         "--max_examples 2 --dtype float32",
         {**ANSWER, "model": "m", "decoding_mode": ["single_pass", "self_correct"], "output": Path("a.jsonl"),
         "max_examples": 2},
         "--dtype float32"),
        ("eval --task gsm8k", EVAL, ""),
        ("eval --task gsm8k --model a --model b --decoding_mode all --temperature 0 --dtype bfloat16 --max_examples 5",
         {**EVAL, "model": ["a", "b"], "decoding_mode": ["all"], "temperature": 0.0, "max_examples": 5},
         "--dtype bfloat16"),
        ("eval --task gsm8k --completions_file a --completions_file b --output_dir out --judge_url u --config r.yaml",
         {**EVAL, "completions_file": [Path("a"), Path("b")], "output_dir": Path("out"), "judge_url": "u",
          "config": "r.yaml"}, ""),
        ("gap", GAP, ""),
        ("gap r.yaml --prefix_lengths 1 3 --model m --use_cpu true",
         {**GAP, "config": "r.yaml", "prefix_lengths": [1, 3], "model": ["m"]}, "--use_cpu true"),
        ("compare r.yaml --methods bash,rac --seeds 1,2 --temperatures 0,0.5 --error_positions 0.5 --dry_run --seed 3",
         {**COMPARE, "config": "r.yaml", "methods": ["bash", "rac"], "seeds": [1, 2], "temperatures": [0.0, 0.5],
          "error_positions": [0.5], "dry_run": True}, "--seed 3"),
        ("compare --experiment_config s.yaml --num_parallel_seeds 2", {**COMPARE, "experiment_config": Path("s.yaml"),
        "num_parallel_seeds": 2}, ""),
        ("gap r.yaml --error_positions --model m", {**GAP, "config": "r.yaml", "error_positions": [], "model": ["m"]},
        ""),
        ("gap r.yaml --model m --error_positions 0.5 --error_source self",
         {**GAP, "config": "r.yaml", "error_positions": [0.5], "error_source": "self", "model": ["m"]}, ""),
        ("report a b", {"runs": [Path("a"), Path("b")], "extra_results_dir": [], "output_dir": Path("outputs/report"),
        "open": False},
        ""),
        ("report a --extra_results_dir c d --output_dir e",
         {"runs": [Path("a")], "extra_results_dir": [Path("c"), Path("d")], "output_dir": Path("e"), "open": False},
         ""),
    ],
)  # fmt: skip
def test_commands(line: str, options: dict[str, Any], overrides: str) -> None:
    """The namespace holds a command's options and nothing else: evaluations record it."""
    call = cli.parse(line.split())
    assert call.command == line.split()[0]
    assert vars(call.options) == options
    assert call.overrides == overrides.split() and call.launch == {}


@pytest.mark.parametrize("command", [*list_methods(), "prepare", "eval --task t"])
def test_launch_options_are_taken_out(command: str) -> None:
    line = f"{command} --num_processes 8 --seed 1 r.yaml --accelerate_config zero2 --lr -1e-4 --machine_rank=1 -- --x"
    call = cli.parse(line.split())
    assert call.launch == {"num_processes": 8, "accelerate_config": "zero2", "machine_rank": 1}
    rest = "--seed 1 r.yaml --lr -1e-4 -- --x"
    assert call.passed == [*command.split()[1:], *rest.split()]
    again = cli.parse([call.command, *call.passed])
    assert (again.options, again.overrides) == (call.options, call.overrides)
    assert vars(call.options).keys().isdisjoint(call.launch)


def test_defaults_are_those_of_the_modules() -> None:
    """What the tree says stands there a second time, so that the tree needs none of the modules."""
    from gapbridge.evaluation.judge.judges import MAX_TOKENS, TEMPERATURE
    from gapbridge.evaluation.math_verify_pool import TIMEOUT_SECONDS
    from gapbridge.gap.forced_errors import DEFAULT_ERROR_POSITIONS

    assert (EVAL["judge_max_tokens"], EVAL["judge_temperature"]) == (MAX_TOKENS, TEMPERATURE)
    assert EVAL["grading_timeout"] == TIMEOUT_SECONDS
    assert GAP["error_positions"] == list(DEFAULT_ERROR_POSITIONS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bsh r.yaml", ["command line: got the unknown command 'bsh' (did you mean 'bash'?)", "report"]),
        ("--verson", ["(did you mean '--version'?)"]),
        ("bash", ["got no recipe, expected one. Give gapbridge bash RECIPE.yaml, or --config RECIPE.yaml"]),
        ("validate --use_cpu true", ["got no recipe, expected one. Give gapbridge validate"]),
        ("bash --config", ["--config: expected one argument"]),
        ("bash a.yaml b.yaml", ["got 2 recipes (a.yaml, b.yaml), expected one"]),
        ("bash --a a.yaml --b b.yaml", ["no recipe"]),
        ("bash r.yaml tiny", ["got 'tiny', expected an option, or a recipe"]),
        ("bash r.yaml --resume perhaps", ["--resume: got 'perhaps', expected auto or never or require"]),
        ("bash r.yaml --num_processes 2", ["got --num_processes without --accelerate_config"]),
        ("bash r.yaml --accelerate_config zero9", ["expected a file, or one of ddp, fsdp, single, zero2, zero3"]),
        ("preview r.yaml --num_rows 0", ["--num_rows: got '0', expected an integer of at least 1"]),
        ("preview r.yaml --num_probe_examples -1",
        ["--num_probe_examples: got '-1', expected an integer of at least 0"]),
        ("report a --xtra_results_dir b --x=1",
        ["unknown option --xtra_results_dir (did you mean 'extra_results_dir'?)", "unknown option --x=1"]),
        ("report a -- b", ["unknown option b"]),
        ("report", ["the following arguments are required: RUN"]),
        ("eval --model m", ["the following arguments are required: --task"]),
        ("gap r.yaml --model m --prefix_lengths 1 x", ["--prefix_lengths: got 'x', expected an integer"]),
        ("generate r.yaml --temperature nan", ["--temperature: got 'nan', expected a number"]),
        ("preview --num_rows none a.yaml b.yaml x",
         ["3 errors", "--num_rows: got 'none'", "got 2 recipes", "got 'x', expected an option"]),
        ("eval --model m --max_examples x --top_p y",
         ["3 errors", "--max_examples: got 'x', expected an integer", "--top_p: got 'y'", "are required: --task"]),
        ("bash --resume x --num_processes 0",
         ["4 errors", "--resume: got 'x'", "--num_processes: got '0'", "without --accelerate_config", "no recipe"]),
        ("eval --task t --max_examples x --seed 1.5 --top_p y",
         ["3 errors", "--max_examples: got 'x', expected an integer", "--seed: got '1.5'", "--top_p: got 'y'"]),
    ],
)  # fmt: skip
def test_refusals(line: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *line.split())
    assert said.startswith("ConfigError: ") and all(word in said for word in words), said


def test_misspelt_options_of_ours_are_named_beside_the_recipes_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's parser refuses them, and knows only the keys."""
    said = refused(capsys, *"preview recipes/tiny/bash/config_full.yaml --num_row 3 --learnin_rate 1".split())
    assert "unknown option --num_row (did you mean 'num_rows'?)" in said
    assert "unknown option --learnin_rate (did you mean 'learning_rate'?)" in said


def test_run_passes_refusals_through() -> None:
    with pytest.raises(ConfigError, match="no recipe"):
        cli.run(["bash"])


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys)
    assert said == shown(capsys, "--help") == shown(capsys, "-h")
    lines = said.splitlines()
    assert len(lines) <= 48 and max(map(len, lines)) <= 119
    for command in COMMANDS:
        assert sum(f"{line} ".startswith(f"    {command} ") for line in lines) == 1, command
    assert shown(capsys, "--version").startswith("gapbridge 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, command, "--help")
    usage, empty, summary, *_ = said.splitlines()
    assert usage.startswith(f"usage: gapbridge {command} ") and not empty and summary.rstrip().endswith(".")
    assert summary[0].isupper() and f"  gapbridge {command} " in said.partition("\nexamples:\n")[2]
    assert said == shown(capsys, command, "-h")


@pytest.mark.parametrize("method", list_methods())
def test_help_of_a_method_shows_its_own_keys(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, method, "--help", "--resume", "nonsense")
    own = {key.name: key for key in fields(method_fields(method))}
    for name, field in own.items():
        assert f"  --{name} " in said and field.metadata["help"].split()[0] in said
    assert "--accelerate_config NAME|FILE" in said and "--resume auto|never|require" in said
    assert "--weight_decay" not in said


def test_defaults_and_types_of_keys(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(shown(capsys, "bash", "--help").split())
    assert "--mixture_coefficient float" in said and "(default: 0.2)" in said
    said = " ".join(shown(capsys, "rac", "--help").split())
    assert "--vllm_mode server|colocate" in said and '(default: "colocate")' in said


HEAVY = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "numpy", "pyarrow")
WITHOUT_TORCH = f"""
import shlex, sys
from gapbridge import cli
for line in sys.argv[1:]:
    try:
        cli.main(shlex.split(line))
    except SystemExit as end:
        assert end.code in (0, 2), end.code
    loaded = [name for name in {HEAVY} if name in sys.modules]
    assert not loaded, (line, loaded)
"""


def test_help_and_refusals_import_nothing_heavy() -> None:
    refusals = ["bsh", "bash", "bash a.yaml b.yaml", "bash a.yaml --accelerate_config zero9", "report", "report a --b",
                "eval --max_examples x", "preview a.yaml --num_rows 0"]  # fmt: skip
    lines = ["", "--help", "--version", *(f"{command} --help" for command in COMMANDS), *refusals]
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *lines], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr


def test_only_the_command_in_use_is_imported() -> None:
    code = (
        "import sys; from gapbridge import cli; cli.parse(['bash', 'r.yaml']);"
        "print([name for name in sys.modules if name.startswith('gapbridge.cli.commands.')])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "['gapbridge.cli.commands.train']"


def module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", name, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def test_the_package_runs_as_a_module() -> None:
    process = module("gapbridge", "bash", "--resume", "x")
    assert process.returncode == 2 and process.stderr.startswith("gapbridge: ConfigError: 2 errors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "code"),
    [
        (["gapbridge", "bash", "--accelerate_config", "single"], 2),
        (["accelerate.commands.launch", "--cpu", "-m", "gapbridge", "bash"], 1),
    ],
    ids=["ours", "accelerate"],
)
def test_through_the_launcher(start: list[str], code: int, tmp_path: Path) -> None:
    """The launched process reads the rest of the line as it was written, and ours hands its exit code on."""
    process = module(*start, "--learning_rate", "1e-4", str(tmp_path / "my recipe.yaml"), "--", "--seed", "1")
    assert "my recipe.yaml: got no such file" in process.stderr, process.stderr[-2000:]
    assert process.returncode == code


def test_warnings_that_no_user_can_act_on_stay_hidden() -> None:
    """transformers deprecates the name that TRL and the handbook use for gradient checkpointing."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for name in ("gradient_checkpointing", "gradient_checkpointing_enable", "is_gradient_checkpointing"):
            text = f"`{name}` is deprecated and will be removed"
            with cli.guarded():
                warnings.warn(text, FutureWarning, stacklevel=1)
    assert not shown
