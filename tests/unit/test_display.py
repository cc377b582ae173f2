"""Text from data on a terminal."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from conftest import BASE
from transformers import AutoTokenizer

from gapbridge.cli import guarded
from gapbridge.display import printable, say
from gapbridge.errors import DataError
from gapbridge.evaluation.command import print_results as show_evaluation
from gapbridge.reporting import tables
from gapbridge.reporting.tables import Table, print_table
from gapbridge.training.rows import print_rows, show_row


def test_control_characters_are_shown() -> None:
    remaining = "a\tb\nß漢😀\xa0\u2028"
    assert printable(remaining) == remaining
    assert printable("\x1b]0;x\x1b\\\x07\r\x7f\x9b2J\ud800") == r"\x1b]0;x\x1b\\x07\x0d\x7f\x9b2J\ud800"
    controls = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
    assert not controls & set(printable("".join(map(chr, range(0x300)))))


CONSOLE = """
import logging, sys, time
from gapbridge.cli import guarded
from gapbridge.display import notice_if_slow
def act():
    from tqdm.auto import tqdm
    for seconds in (0.01, 0.8):
        for _ in tqdm(range(4), desc=f"bar of {4 * seconds} s"):
            time.sleep(seconds)
    logging.getLogger("gapbridge.data").info("what is done")
    logging.getLogger("gapbridge.data").warning("what is odd")
    deepspeed = logging.getLogger("DeepSpeed")
    deepspeed.addHandler(logging.StreamHandler())
    deepspeed.warning("Setting accelerator to CPU. If you have GPU, we were unable to detect it.")
    deepspeed.warning("another warning")
    with notice_if_slow("not slow", 0.3):
        pass
    with notice_if_slow("slow", 0.1):
        time.sleep(0.4)
with guarded():
    act()
"""


def test_the_console_shows_what_takes_long_and_no_module_names() -> None:
    process = subprocess.run([sys.executable, "-c", CONSOLE], capture_output=True, text=True, check=True)
    lines = process.stderr.replace("\r", "\n").splitlines()
    assert any(line.startswith("bar of 3.2 s: 100%") for line in lines), lines
    others = [line for line in lines if line and not line.startswith("bar of 3.2 s")]
    assert others == ["what is done", "warning: what is odd", "another warning", "slow"] and not process.stdout


def test_nothing_of_data_reaches_a_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Log messages, refusals, rows, tables and lines of figures."""
    evil = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e[red]"
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.decode = lambda ids: evil * len(ids)

    def show() -> None:
        logging.getLogger("gapbridge.data").warning("row %s", evil)
        row = {"id": evil, "input_ids": [1, 2, 3], "labels": [-100, 5, 3], "sampled": [False, True, True]}
        print_rows([show_row(row, tokenizer)])
        print_table(Table((evil, "figure"), [(evil, f"1 [{evil}")], evil))
        sample = {"id": evil, "label": True, "correct": False, "answer": evil, "reference": evil}
        labels = {"model": evil, "label": evil, "count": 1, "agreement": 0.0, "disagreements": [sample]}
        interval = {"mean": 1.0, "low": 0.0, "high": 1.0}
        result = {"model": evil, "decoding_mode": evil, "count": 1, "accuracy": interval, "truncated": 1}
        record = {"task": evil, "results": [result], "corrections": [], "differences": [], "labels": [labels]}
        show_evaluation(record)
        say(evil)
        raise DataError(["one", f"data.jsonl, row {evil}: got {evil}"])

    with pytest.raises(SystemExit, match="2"):
        with guarded():
            show()
    shown = "".join(capsys.readouterr())
    assert not set("\x1b\x07\x9b\u202e") & set(shown)
    assert shown.count(r"\x1b]0;pwned\x07") >= 14 and shown.count("[red]") >= 14


def test_a_row_says_what_of_its_loss_is_sampled_only_where_some_is() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    row = {"id": "1", "input_ids": [1, 2, 3], "labels": [-100, -100, 3], "sampled": [False, True, False]}
    assert show_row(row, tokenizer).plain.splitlines()[0] == "id 1   3 tokens, 1 with loss (33.3%); sampled 1 (33.3%)"
    row = {"id": "1", "input_ids": [1, 2, 3], "labels": [-100, 5, 3], "sampled": [False, True, False]}
    shown = show_row(row, tokenizer).plain
    assert "of the tokens with loss 50.0%; replaced 1 (50.0% of the tokens with loss)" in shown


@pytest.mark.parametrize("width", [40, 100])
def test_a_figure_is_never_cut(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many columns a table has, and however narrow the page is."""
    monkeypatch.setattr(tables, "WIDTH", width)
    head = ["model", *(f"wrong → right {at}" for at in range(8)), "95 % interval"]
    print_table(Table(head, [["scheduled_sampling", *range(1000, 1008), "[-47.5, -17.5]"]]))
    shown = capsys.readouterr().out
    assert all(figure in shown for figure in ("1,000", "1,007", "[-47.5, -17.5]"))
