"""Processes of one job that are forked from the server which has everything imported: ten seconds less a launch.

`launch` goes through accelerate's own command, which reads the configuration and sets the environment; only its last
step, a new interpreter for each process, is a fork. Other tests start real interpreters: those of the handbook, of
signals and of the gap callback.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from accelerate.commands import launch as accelerate_launch
from accelerate.utils.launch import prepare_simple_launcher_cmd_env
from torch.distributed import run as torchrun

from helpers import SERVER, begin


Work = Callable[[Path], None]


def launch(config: Path, processes: int, work: Work, argument: Path, log: Path, timeout: float = 400) -> None:
    """`accelerate launch --config_file CONFIG --num_processes N`, each process doing `work(argument)`.

    Raises:
        AssertionError: it takes longer. Whether it went well is told by what `work` leaves, and by the log.
    """
    process = SERVER.Process(target=_launch, args=(config, processes, work, argument, log))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        for running in (*psutil.Process(process.pid).children(recursive=True), process):
            running.kill()  # or pytest would wait for them at its end
        process.join()
        raise AssertionError(log.read_text()[-3000:])


def start_ranks(
    work: Work, argument: Path, logs: list[Path], environment: Mapping[str, str] | None = None
) -> list[BaseProcess]:
    """One process a log, that no launcher watches over, so that one can die alone."""
    port = _free_port()
    started = []
    for rank, log in enumerate(logs):
        variables = {**(environment or {}), **_place(rank, len(logs), port)}
        process = SERVER.Process(target=_rank, args=(variables, work, argument, log))
        process.start()
        started.append(process)
    return started


def _launch(config: Path, processes: int, work: Work, argument: Path, log: Path) -> None:
    begin(log, log)

    def fork(args: Namespace) -> None:
        port = _free_port()
        pids = []
        for rank in range(processes):
            pids.append(os.fork())
            if not pids[-1]:
                _work(_place(rank, processes, port), work, argument)
        for pid in pids:
            os.waitpid(pid, 0)

    def stay(args: Namespace) -> None:
        _work(prepare_simple_launcher_cmd_env(args)[1], work, argument)

    torchrun.run = fork
    accelerate_launch.simple_launcher = stay
    options = ["--num_processes", str(processes), "--main_process_port", "0"] if processes > 1 else []
    parser = accelerate_launch.launch_command_parser()
    accelerate_launch.launch_command(parser.parse_args(["--config_file", str(config), *options, work.__name__]))


def _rank(variables: Mapping[str, str], work: Work, argument: Path, log: Path) -> None:
    begin(log, log)
    _work(variables, work, argument)


def _work(variables: Mapping[str, str], work: Work, argument: Path) -> None:
    """Never returns: what the interpreter does at its end is not this process's own."""
    os.environ.update(variables)
    code = 1
    try:
        work(argument)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _place(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
