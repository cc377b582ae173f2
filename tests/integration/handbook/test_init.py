"""`gapbridge convert`: a user's own SFT recipe becomes another method's, line by line, and is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import recipe, refused

from gapbridge import ConfigError, cli
from gapbridge.handbook.convert_recipe import available_methods, place_for
from gapbridge.handbook.recipe_edit import render_method_recipe


SFT = """\
# My own run, do not touch.
model_name_or_path: mistralai/Mistral-7B-v0.1   # the base
model_revision: abc
datasets:
  - path: me/data   # mine
    split: train
    columns: [prompt, completion]

learning_rate: 1.0e-05  # tried 2e-5
output_dir: data/mine-sft
per_device_train_batch_size: 4
max_length: 512
use_cpu: true
bf16: false
"""


def test_three_keys_change_and_everything_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "sft" / "config_full.yaml"
    source.parent.mkdir()
    source.write_text(SFT)
    cli.main(["convert", "--from", str(source), "--method", "bash"])
    said, written = capsys.readouterr().out, tmp_path / "bash" / "config_full.yaml"
    text = written.read_text()
    before, after = SFT.splitlines(), text.splitlines()
    remaining = [line for line in before if line in after]
    assert [line for line in before if line not in remaining] == [before[1], before[2], before[9]]
    assert "model_name_or_path: data/mine-sft   # the base  # changed: was mistralai/Mistral-7B-v0.1" in after
    assert "output_dir: data/mine-bash  # changed: was data/mine-sft" in after
    assert after[1:3] == ["method: bash  # new", "truncate_overlong: true  # new"]
    assert yaml.safe_load(text) == {
        **yaml.safe_load(SFT), "method": "bash", "truncate_overlong": True, "model_name_or_path": "data/mine-sft",
        "model_revision": "main", "output_dir": "data/mine-bash",
    }  # fmt: skip
    assert f"wrote {written}" in said and f"{written}: good. BASH" in said and f"gapbridge bash {written}" in said
    assert all(line in said for line in after if "# changed" in line)
    cli.main(["convert", "--from", str(source), "--method", "bash"])  # the same again
    assert written.read_text() == text


@pytest.mark.parametrize("method", available_methods())
def test_a_recipe_of_this_package(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(recipe(tmp_path, method="sft", output_dir="outputs/my-sft")[1])
    cli.main(["convert", "--from", str(source), "--method", method])
    keys = yaml.safe_load((tmp_path / f"recipe-{method}.yaml").read_text())
    assert keys == {
        **yaml.safe_load(source.read_text()), "method": method, "model_name_or_path": "outputs/my-sft",
        "output_dir": f"outputs/my-{method}",
    }  # fmt: skip
    assert f"method: {method}  # changed: was sft" in capsys.readouterr().out


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(recipe(tmp_path)[1])
    said = refused(capsys, "convert", "--from", str(source), "--method", "bahs")
    assert "did you mean 'bash'?" in said and "method: got bash, expected an SFT recipe" in said
    source.write_text(SFT)
    (tmp_path / "mine.yaml").write_text("other: 1\n")
    line = ["convert", "--from", str(source), "--method", "rac", "--output", str(tmp_path / "mine.yaml")]
    assert "mine.yaml: got an existing file, which is never overwritten, expected a new one" in refused(capsys, *line)
    source.write_text(SFT.replace("learning_rate", "learning_rte"))
    assert "did you mean 'learning_rate'?" in refused(capsys, "convert", "--from", str(source), "--method", "rac")
    with pytest.raises(ConfigError, match="neither output_dir nor hub_model_id"):
        render_method_recipe("seed: 1\n", "sft.yaml", "bash", [])
    with pytest.raises(ConfigError, match="expected one key a line. Copy it, and set method: bash"):
        render_method_recipe("{model_name_or_path: a, output_dir: b}\n", "sft.yaml", "bash", [])


def test_where_it_goes() -> None:
    places = {"a/sft/config.yaml": "a/rac/config.yaml", "a/sft.yaml": "a/rac.yaml", "b/x.yml": "b/x-rac.yml"}
    assert {source: place_for(Path(source), "rac").as_posix() for source in places} == places
