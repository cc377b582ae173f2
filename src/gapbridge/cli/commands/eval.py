"""`gapbridge eval`."""

from pathlib import Path

from ..command import BaseCommand, Call, add_mode, add_models
from ..parser import Parser, integer, number, number_or_none, one_of


class Command(BaseCommand):
    takes = "--task TASK --model MODEL [--model MODEL …] [options] [--KEY VALUE …]"
    summary = "grade answers: accuracy, ROUGE, win rate or lm-eval, with intervals"
    examples = (
        "--task gsm8k --model outputs/sft --model outputs/rac --decoding_mode all",
        "--task tldr --completions_file ready.jsonl --judge MODEL --judge_url http://127.0.0.1:8000/v1",
    )
    recipes = "optional"
    is_launched = True

    def add_options(self, parser: Parser) -> None:
        add = parser.add_argument
        add("--task", required=True, help="math, gsm8k, math500, word_problems, copying, listing, sums, "
            "page_summaries, summarization, tldr, winrate or lm_eval")  # fmt: skip
        add_models(parser)
        add("--completions_file", action="append", default=[], type=Path, metavar="FILE.jsonl",
            help="ready answers (id, prompt, reference, answer) instead of a model; can be repeated")  # fmt: skip
        add(
            "--gold_grade_field",
            metavar="KEY",
            help="a field of the answer files with published marks to compare the grades with",
        )
        add_mode(parser)
        add("--max_completion_length", type=integer, metavar="N", help="most tokens of an answer; default: the task's")
        add("--temperature", type=number, metavar="T", help="0 is greedy; default: the task's")
        add("--top_p", type=number, default=1.0, metavar="P", help="nucleus sampling (default: %(default)s, off)")
        add("--top_k", type=integer, default=0, metavar="K", help="top-k sampling (default: %(default)s, off)")
        add(
            "--correction_prompt", metavar="TEXT", help="the request for a correction; default: the recipe's, or RAC's"
        )
        add("--grading_timeout", type=number, default=10.0, metavar="SECONDS",
            help="for one answer in math-verify (default: %(default)s)")  # fmt: skip
        add("--grading_workers", type=integer, default=2, metavar="N",
            help="processes of math-verify (default: %(default)s)")  # fmt: skip
        _add_judge_options(parser)

    def run(self, call: Call) -> object:
        from ...evaluation.command import run_eval

        return run_eval(call.options, call.overrides)


def _add_judge_options(parser: Parser) -> None:
    add = parser.add_argument_group("win rate").add_argument
    add("--judge", metavar="MODEL", help="a model that compares answers: a path or hub id, or with --judge_url a name")
    add("--judge_url", metavar="URL", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    add("--judge_prompt", metavar="NAME|FILE", help="tldr, general_qa or a file; default: the task's")
    add("--judge_api_key_env", default="OPENAI_API_KEY", metavar="NAME",
        help="the environment variable that holds the endpoint's key (default: %(default)s)")  # fmt: skip
    add("--judge_temperature", type=number_or_none, default=0.01, metavar="T",
        help="default: %(default)s, the paper's; none sends none, as some endpoints demand")  # fmt: skip
    add("--judge_max_tokens", type=integer, default=512, metavar="N",
        help="longest reply of the judge, its thoughts included (default: %(default)s)")  # fmt: skip
    add("--judge_token_limit_field", type=one_of("max_tokens", "max_completion_tokens"), default="max_tokens",
        metavar="NAME",
        help="max_tokens or max_completion_tokens: its name there (default: what is taken)")  # fmt: skip
    add("--judge_timeout", type=number, default=120.0, metavar="SECONDS",
        help="for one whole request (default: %(default)s)")  # fmt: skip
    add("--judge_concurrency", type=integer, default=8, metavar="N",
        help="requests at the same time (default: %(default)s)")  # fmt: skip
