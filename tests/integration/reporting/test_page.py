"""A report as one HTML file: escaped, and nothing from outside."""

from __future__ import annotations

import json
import re
import webbrowser
from argparse import Namespace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from transformers import AutoTokenizer

from gapbridge.errors import ConfigError
from gapbridge.reporting.page import Completion, Page, Section, ShownExample, TokenRows, to_html, write_page
from gapbridge.reporting.plots import new_figure
from gapbridge.reporting.runs import run_report
from gapbridge.reporting.tables import Table
from gapbridge.training.rows import row_record


EVIL = "</pre><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b[2J\u202e\ud800"


class _Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _evil_page() -> Page:
    tokens = [{"text": EVIL, "kind": "replaced", "note": f"reference: {EVIL}"}]
    parts: list[Any] = [
        EVIL,
        Table([EVIL, "score (%)"], [[EVIL, 1.0]], EVIL),
        TokenRows([{"head": EVIL, "tokens": tokens}], EVIL),
        ShownExample(EVIL, EVIL, [Completion(EVIL, EVIL, False)]),
    ]
    return Page(EVIL, [EVIL], [Section(EVIL, [*parts, tuple(parts)]), Section(EVIL, parts, is_folded=True)])


def test_text_of_data_is_text(tmp_path: Path) -> None:
    markdown = write_page(_evil_page(), tmp_path)
    text = markdown.with_suffix(".html").read_text(encoding="utf-8")
    tags = _Tags(text).found
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in tags}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    for written in (text, markdown.read_text(encoding="utf-8")):
        assert not set("\x1b\u202e\ud800") & set(written)
        assert r"\x1b[2J\u202e\ud800" in written and "{{ 7 * 7 }}" in written
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_page_needs_no_other_file() -> None:
    figure, _ = new_figure(1, 1)
    page = to_html(Page("p", [], [Section("s", [])]), {})
    assert figure is not None and not re.search(r"(src|href)=\"(?!data:image/png;base64,|#)", page)
    assert not re.search(r"@import|url\(|https?:", page) and "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("text", ["Count 12 + 30: 日本語 🙂 é", "a\n\n  b\tc"])
def test_tokens_of_a_row_add_up_to_its_text(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = tokenizer(text)["input_ids"]
    labels = [-100, *ids[1:]]
    labels[-1] = ids[0]
    row = {"id": "7", "input_ids": ids, "labels": labels, "sampled": [False] * (len(ids) - 1) + [True]}
    record = row_record(row, tokenizer)
    assert "".join(token["text"] for token in record["tokens"]) == tokenizer.decode(ids)
    kinds = [token["kind"] for token in record["tokens"]]
    assert kinds[0] == "masked" and kinds[-1] == "replaced" and set(kinds[1:-1]) == {"loss"}
    assert f"reference: {tokenizer.decode([ids[0]])}" in record["tokens"][-1]["note"]


def _run(path: Path) -> Path:
    (path / "samples").mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"settings": {"method": "bash", "a": EVIL[:-1]}, "state": "complete"}))
    (path / "samples" / "first_rows.txt").write_text("rows")
    tokens = [{"text": "<pad>", "kind": "masked", "note": "no loss"}]
    (path / "samples" / "first_rows.json").write_text(json.dumps({"rows": [{"head": "row 1", "tokens": tokens}]}))
    (path / "eval").mkdir()
    sample = {"model": str(path), "id": "1", "prompt": EVIL[:-1], "reference": "#### 3", "first_answer": "2"}
    lines = [{**sample, "decoding_mode": mode, "answer": "3", "correct": right}
             for mode, right in (("single_pass", False), ("self_correct", True))]  # fmt: skip
    (path / "eval" / "math.samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_report_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    args = Namespace(runs=[_run(tmp_path / "run")], extra_results_dir=[], output_dir=tmp_path / "report", open=True)
    run_report(args)
    page = tmp_path / "report" / "report.html"
    assert opened == [page.resolve().as_uri()] and str(page) in capsys.readouterr().out
    text = page.read_text()
    assert '<span class="masked" title="no loss">&lt;pad&gt;</span>' in text
    assert "run, single_pass" in text and '<span class="grade wrong">wrong</span>' in text
    assert "run, self_correct" in text and '<span class="grade right">right</span>' in text
    assert "before self_correct" not in text, "the first completion is there already"
    page.write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match=r"report\.html: got another file"):
        run_report(args)
