"""Runs the command that it is imported as."""

import sys

from gapbridge.cli import main


if __name__ == "__main__":
    assert __spec__ is not None
    main([__spec__.name.rpartition(".")[2], *sys.argv[1:]])
