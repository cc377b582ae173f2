"""Folders of data files whose card (`README.md`) lists configurations: read by file, never from an old cache."""

from __future__ import annotations

from pathlib import Path

from datasets import load_dataset_builder


FILE_BUILDERS = ("json", "csv", "parquet", "text", "arrow")
_OF_A_SOURCE = {"name", "description", "version", "data_dir", "data_files"}  # the other fields say how files are read


def find_listed_files(path: str, name: str | None) -> tuple[str, dict[str, list[str]]] | None:
    """The builder and the files by split of a folder whose card lists them; None where `path` is no such folder.

    `datasets` caches such a folder by its last name and the configuration's. It then takes rows of a file that has
    changed since, or of another folder of that name, from the cache. Files that are named one by one are cached by
    their path and time of change.

    Raises:
        what `datasets` raises where there is no such configuration.
    """
    if not (Path(path) / "README.md").is_file():
        return None
    builder = load_dataset_builder(path, name)
    usual = vars(type(builder.config)())
    special = {key for key, value in vars(builder.config).items() if value != usual.get(key)} - _OF_A_SOURCE
    if builder.name not in FILE_BUILDERS or special or not builder.config.data_files:
        return None
    return builder.name, {str(split): [*map(str, files)] for split, files in builder.config.data_files.items()}
