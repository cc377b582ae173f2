"""`gapbridge eval`."""

from pathlib import Path

from ..command import BaseCommand, Call, add_mode, add_models
from ..parser import Parser, integer, number, number_or_none, positive


class Command(BaseCommand):
    takes = "--task TASK --model MODEL [--model MODEL …] [options] [--KEY VALUE …]"
    summary = "evaluate models: accuracy, ROUGE, win rate or lm-eval, with confidence intervals"
    examples = (
        "--task gsm8k --model outputs/sft --model outputs/rac --decoding_mode all",
        "--task tldr --completions_file ready.jsonl --judge MODEL --judge_url http://127.0.0.1:8000/v1",
    )
    recipes = "optional"
    is_launched = True

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add(
            "--task",
            required=True,
            metavar="TASK",
            help="evaluation task: math, gsm8k, math500, word_problems, summarization, tldr, winrate or lm_eval",
        )
        add_models(parser)
        add("--completions_file", action="append", default=[], type=Path, metavar="FILE.jsonl",
            help="file with completions (id, prompt, reference, answer) instead of a model; repeatable")  # fmt: skip
        add_mode(parser)
        add("--max_completion_length", type=positive, metavar="N",
            help="maximum number of tokens of a completion (default: the task's)")  # fmt: skip
        add("--temperature", type=number, metavar="T", help="sampling temperature; 0 is greedy (default: the task's)")
        add("--top_p", type=number, default=1.0, metavar="P",
            help="cumulative probability of nucleus sampling (default: %(default)s, off)")  # fmt: skip
        add("--top_k", type=integer, default=0, metavar="K",
            help="number of tokens of top-k sampling (default: %(default)s, off)")  # fmt: skip
        add("--correction_prompt", metavar="TEXT", help="correction request (default: the recipe's, or RAC's)")
        add("--grading_timeout", type=number, default=10.0, metavar="SECONDS",
            help="time limit of math-verify for one completion, in seconds (default: %(default)s)")  # fmt: skip
        add("--grading_workers", type=positive, default=2, metavar="N",
            help="number of math-verify processes (default: %(default)s)")  # fmt: skip
        _add_judge_options(parser)

    def run(self, call: Call) -> object:
        from ...evaluation.command import run_eval

        return run_eval(call.options, call.overrides)


def _add_judge_options(parser: Parser) -> None:
    add = parser.add_argument_group("win rate").add_argument
    add("--judge", metavar="MODEL", help="judge model: its name on the server of --judge_url")
    add("--judge_url", metavar="URL", help="URL of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    add("--judge_prompt", metavar="NAME|FILE", help="judge prompt: tldr, general_qa or a file (default: the task's)")
    add("--judge_api_key_env", default="OPENAI_API_KEY", metavar="NAME",
        help="environment variable with the API key (default: %(default)s)")  # fmt: skip
    add("--judge_temperature", type=number_or_none, default=0.01, metavar="T",
        help="sampling temperature of the judge, or none to send no temperature (default: %(default)s)")  # fmt: skip
    add("--judge_max_tokens", type=positive, default=512, metavar="N",
        help="maximum number of tokens of a judge reply, with its reasoning (default: %(default)s)")  # fmt: skip
    add("--judge_token_limit_field", choices=("max_tokens", "max_completion_tokens"), default="max_tokens",
        metavar="NAME",
        help="name of that limit in a request: max_tokens or max_completion_tokens (default: "
             "%(default)s)")  # fmt: skip
    add("--judge_timeout", type=number, default=120.0, metavar="SECONDS",
        help="time limit of one request, in seconds (default: %(default)s)")  # fmt: skip
    add("--judge_concurrency", type=positive, default=8, metavar="N",
        help="maximum number of parallel requests (default: %(default)s)")  # fmt: skip
