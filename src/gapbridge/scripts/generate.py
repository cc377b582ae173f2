"""`accelerate launch --config_file accelerate_configs/ddp.yaml -m gapbridge.scripts.generate --config RECIPE`."""

import sys

from gapbridge.cli import dispatch, run_guarded


if __name__ == "__main__":
    run_guarded(lambda: dispatch("generate", sys.argv[1:]))
