"""The data of the recipes in this directory, as folders of JSONL with the columns `id`, `prompt` and `completion`.

    python recipes/smollm2-135m/make_data.py                              # from the hub
    python recipes/smollm2-135m/make_data.py --gsm8k DIR --scitldr DIR    # from files that are here already

Writes data/gsm8k, data/gsm8k-answer-first (the same problems, the result before its working) and data/scitldr
(SciTLDR, Cachola et al. 2020: an abstract, and the summary that its authors wrote). A DIR holds train.jsonl and
test.jsonl as they were published.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import load_dataset

from gapbridge.files import write_text_atomic


Row = dict[str, Any]
SPLITS = ("train", "test")
REQUEST = "Summarize the abstract of this paper in one sentence."


def read_rows(folder: Path | None, split: str, hub_id: str, config: str, revision: str | None = None) -> Iterable[Row]:
    """The rows of a split as published, from a folder, or from the hub where none is named."""
    if folder is not None:
        return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    return load_dataset(hub_id, config, split=split, revision=revision)


def put_answer_first(answer: str) -> str:
    """GSM8K's solution with its last line, `#### 72`, before the working."""
    working, mark, result = answer.rpartition("\n#### ")
    if not mark:
        sys.exit(f"a solution of GSM8K has no line '#### RESULT': {answer!r}")
    return f"#### {result}\n{working}"


def summary_row(row: Row, number: int, split: str) -> Row:
    """SciTLDR's columns (sentences in `source`, summaries in `target`), or an abstract and its summaries as text."""
    abstract = row["abstract"] if "abstract" in row else " ".join(row["source"])
    summaries = row["summaries"] if "summaries" in row else row["target"]
    name = row.get("paper_id") or row.get("id") or f"{split}-{number}"
    return {"id": name, "prompt": f"{REQUEST}\n\n{abstract.strip()}", "completion": summaries[0].strip()}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    write_text_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gsm8k", type=Path, metavar="DIR", help="GSM8K's files; default: openai/gsm8k on the hub")
    parser.add_argument("--scitldr", type=Path, metavar="DIR", help="SciTLDR-A's; default: allenai/scitldr on the hub")
    parser.add_argument("--output", type=Path, default=Path("data"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    for split in SPLITS:
        problems = [
            {"id": f"{split}-{at}", "prompt": row["question"], "completion": row["answer"]}
            for at, row in enumerate(read_rows(args.gsm8k, split, "openai/gsm8k", "main"))
        ]
        write_rows(args.output / "gsm8k" / f"{split}.jsonl", problems)
        first = [{**row, "completion": put_answer_first(row["completion"])} for row in problems]
        write_rows(args.output / "gsm8k-answer-first" / f"{split}.jsonl", first)
        papers = read_rows(args.scitldr, split, "allenai/scitldr", "Abstract", "refs/convert/parquet")
        summaries = [summary_row(row, at, split) for at, row in enumerate(papers)]
        write_rows(args.output / "scitldr" / f"{split}.jsonl", summaries)


if __name__ == "__main__":
    main()
