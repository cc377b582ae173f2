"""`accelerate launch --config_file accelerate_configs/ddp.yaml -m gapbridge.scripts.rac --config RECIPE`."""

import sys

from gapbridge.cli import dispatch, run_guarded


if __name__ == "__main__":
    run_guarded(lambda: dispatch("rac", sys.argv[1:]))
