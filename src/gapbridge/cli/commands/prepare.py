"""`gapbridge prepare`."""

from ..command import BaseCommand, Call


class Command(BaseCommand):
    summary = "generate the contexts of the next round and stop"
    examples = ("RECIPE.yaml", "RECIPE.yaml --accelerate_config ddp --num_processes 8")
    is_launched = True

    def run(self, call: Call) -> object:
        from ...runs.run_config import read_job
        from ...runs.train import prepare

        return prepare(read_job(["--config", call.options.config, *call.overrides]))
