"""How far a reader has to walk from a command to `Trainer.train`; `walk.py` prints the way, and has its figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import BASE, ROOT


MOST_FUNCTIONS, MOST_FRAMES = 395, 17  # 385 and 17 when this was written


def test_the_way_to_training_grows_no_longer(tmp_path: Path) -> None:
    command = [
        sys.executable, "tests/integration/runs/walk.py", "bash", "--config", "recipes/tiny/bash/config_full.yaml",
        "--model_name_or_path", str(BASE), "--output_dir", str(tmp_path / "run"), "--max_steps", "2",
        "--max_train_examples", "8", "--max_eval_examples", "2",
    ]  # fmt: skip
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}  # else the examples may be found
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    functions, frames = re.search(r"(\d+) functions in \d+ files, (\d+) deep", said).groups()  # type: ignore[union-attr]
    assert int(functions) <= MOST_FUNCTIONS and int(frames) <= MOST_FRAMES, said
