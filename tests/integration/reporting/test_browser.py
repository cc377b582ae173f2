"""Reports in a browser: headless Chromium lays out the pages of a tiny run and a tiny comparison.

`make test-browser`; Debian's package is `chromium`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE
from helpers import recipe, write_rows

from gapbridge import cli
from gapbridge.tasks.word_problems import problems


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)"),
]
WIDTHS = (1280, 390)
# Measures the page in a frame of a width: what it says, what overflows, and its pictures.
FRAME = """<!doctype html><iframe id="page" width="{width}" height="900" src="{uri}"></iframe><script>
window.onload = () => {{
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const clipped = [...page.querySelectorAll("body *")].filter(each => !each.closest(".scroll")
    && each.getBoundingClientRect().right > root.clientWidth + 1).map(each => each.outerHTML.slice(0, 80));
  const found = {{ overflow: root.scrollWidth - root.clientWidth, clipped, text: page.body.innerText,
    pictures: [...page.images].map(each => each.naturalWidth),
    colours: ["masked", "sampled", "replaced"].map(kind => {{ const each = page.querySelector(".tokens ." + kind);
      return each ? [getComputedStyle(each).backgroundColor, each.title] : null; }}) }};
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
}};</script>"""


def look(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What a browser makes of a page at a width."""
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.format(width=width, uri=page.resolve().as_uri()))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=10000", frame.resolve().as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert text is not None, dom[-2000:]
    return dict(json.loads(text[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that was evaluated and whose gap was measured, and a comparison of two seeds with the gap."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [problem.row() for problem in problems("test", count=6, steps=(1,))]
    rows[0]["prompt"][0]["content"] += "<script>document.title = 'evil'</script>" + "x" * 300
    held_out = write_rows(folder / "test.jsonl", rows)
    few = ["--max_examples", "4", "--max_completion_length", "32"]
    changes = {"eval_datasets": [{"path": "json", "data_files": held_out}], "mixture_coefficient": 0.5, "max_steps": 2}
    recipe(folder, method="bash", logging_steps=1, **changes)
    config = str(folder / "recipe.yaml")
    cli.run(["bash", config])
    run = str(folder / "run")
    cli.run(["eval", "--task", "math", "--config", config, "--model", run, *few])
    cli.run(["gap", config, "--model", run, *few])
    cli.run(["report", run, "--output_dir", str(folder / "report")])
    compared = ["compare", config, "--methods", "bash", "--seeds", "1,2", "--gap", "--error_positions", "0.5", *few]
    cli.run([*compared, "--model_name_or_path", str(BASE), "--output_dir", str(folder / "compare")])
    return {
        "run": folder / "run" / "report.html",
        "report": folder / "report" / "report.html",
        "compare": folder / "compare" / "compare.html",
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "report", "compare"])
def test_a_page_in_a_browser(name: str, width: int, pages: dict[str, Path], tmp_path: Path) -> None:
    found = look(pages[name], width, tmp_path)
    assert found["overflow"] <= 0 and found["clipped"] == []
    assert found["pictures"] and min(found["pictures"]) > 300
    wanted = {
        "run": ["mixture_coefficient", "First training rows", "Losses"],
        "report": ["Evaluation", "Completions", "Reference", "single_pass", "Gap", "Δ, mean over k ≥ 1"],
        "compare": ["accuracy, greedy", "Δ vs sft (pp)", "95 % over seeds (pp)", "Appendix"],
    }
    assert all(words in found["text"] for words in wanted[name])
    if name != "run":
        assert "<script>document.title" in found["text"], "data are text"
    if name == "run":
        masked, sampled, replaced = found["colours"]
        assert masked and sampled and replaced and sampled[0] != replaced[0] and "reference: " in replaced[1]
