"""`accelerate launch --config_file accelerate_configs/ddp.yaml -m gapbridge.scripts.sft --config RECIPE`."""

import sys

from gapbridge.cli import dispatch, run_guarded


if __name__ == "__main__":
    run_guarded(lambda: dispatch("sft", sys.argv[1:]))
