"""A round's contexts on disk: parquet shards and a manifest, whole or not there.

    _contexts/shard-00000-of-00008.parquet …  _contexts/manifest.json

Every shard carries the identity of the store in its footer: method, every option that changes a token, seed, and
fingerprints of weights, tokenizer and data. A shard is written under a temporary name, flushed and renamed, so a shard
that has its name is whole; after an interruption whole shards are kept and the others made. The manifest, with the
sha256 of each shard, comes last and says that the store is complete. Nothing is ever appended to a file, and nothing
is used that was made with other options.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.arrow_files import ROWS_PER_CHUNK
from ..data.example import Example, ExampleSet
from ..errors import StoreError, describe
from ..files import atomic_file, sha256, write_json_atomic


FORMAT_VERSION = 2
_IDENTITY = b"gapbridge.identity"
_SHARD = b"gapbridge.shard"
_DELETE = "Delete it, and repeat the command"
_DELETE_FILE = "Delete the file, and repeat the command"


class ContextStore:
    """The contexts of `num_examples` examples in shards of `shard_size`, in the order of the examples.

    Args:
        directory: where the shards and the manifest are.
        identity: everything that determines a context, as JSON values; see `identity` in the manifest.
        num_examples, shard_size: how many examples, and how many in one shard (the last may hold fewer).
        schema: the columns of a shard; the first is `id`.
    """

    def __init__(
        self,
        directory: Path,
        identity: Mapping[str, Any],
        *,
        num_examples: int,
        shard_size: int,
        schema: pa.Schema,
    ) -> None:
        self.directory, self.manifest_path = Path(directory), Path(directory) / "manifest.json"
        self.identity = {
            "format_version": FORMAT_VERSION, **identity, "num_examples": num_examples, "shard_size": shard_size,
        }  # fmt: skip
        self.num_examples, self.shard_size, self.schema = num_examples, shard_size, schema
        self.num_shards = -(-num_examples // shard_size)
        self.shard_paths = [
            self.directory / f"shard-{shard:05d}-of-{self.num_shards:05d}.parquet" for shard in range(self.num_shards)
        ]
        # The examples of each shard: first and one past the last.
        self.shard_ranges = [
            (start, min(start + shard_size, num_examples)) for start in range(0, num_examples, shard_size)
        ]
        self._encoded_identity = json.dumps(self.identity, sort_keys=True).encode()
        # The manifest's entries, once the shards were compared with it.
        self._whole: list[dict[str, Any]] | None = None

    @classmethod
    def from_identity(cls, parent: Path, identity: Mapping[str, Any], **options: Any) -> ContextStore:
        """A store in a directory of `parent` named by a hash of the identity: stores of many settings side by side."""
        store = cls(parent, identity, **options)
        digest = hashlib.blake2b(store._encoded_identity, digest_size=8).hexdigest()
        return cls(Path(parent) / digest, identity, **options)

    @classmethod
    def recorded(cls, directory: Path, schema: pa.Schema) -> ContextStore:
        """A complete store as its own manifest describes it, for reading.

        Raises:
            StoreError: there is no manifest, or it is damaged.
        """
        try:
            identity = dict(json.loads((Path(directory) / "manifest.json").read_text(encoding="utf-8"))["identity"])
            num_examples, shard_size = int(identity.pop("num_examples")), int(identity.pop("shard_size"))
        except OSError as error:
            got = f"no complete contexts ({error.strerror})"
            raise StoreError(directory, got, "a finished store", "Generate the contexts first") from error
        except (ValueError, KeyError, TypeError) as error:
            place, got = f"{directory}, manifest.json", f"a damaged file ({error})"
            raise StoreError(place, got, "the one that was written", _DELETE_FILE) from error
        return cls(directory, identity, num_examples=num_examples, shard_size=shard_size, schema=schema)

    def is_complete(self) -> bool:
        """Whether the manifest is there. A manifest made with other options is refused.

        Raises:
            StoreError: naming every option that differs, or saying that the manifest is damaged.
        """
        return self._manifest() is not None

    def missing_shards(self) -> list[int]:
        """The shards still to be made. Shards that are there are checked: whole, and of this store.

        Raises:
            StoreError: a shard cannot be read or was made with other options, or a file does not belong here.
        """
        for path in sorted(self.directory.glob("shard-*")):
            metadata = _read_table(path).schema.metadata or {}
            if _IDENTITY not in metadata:
                expected = "a shard of a context store"
                raise StoreError(path, "another file", expected, "Move it away, and repeat the command")
            self._check_identity(json.loads(metadata[_IDENTITY]), path)
            if path not in self.shard_paths:
                expected = f"one of {self.num_shards} shards"
                raise StoreError(path, "a shard of another store", expected, f"Delete {self.directory}")
            if metadata.get(_SHARD) != str(self.shard_paths.index(path)).encode():
                raise StoreError(path, "another shard of this store", "the one of its name", _DELETE)
        return [shard for shard, path in enumerate(self.shard_paths) if not path.exists()]

    def write_shard(self, shard: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write one shard atomically. `columns` has one entry an example for each column of the schema."""
        metadata = {_IDENTITY: self._encoded_identity, _SHARD: str(shard).encode()}
        table = pa.table(dict(columns), schema=self.schema.with_metadata(metadata))
        start, end = self.shard_ranges[shard]
        if len(table) != end - start:
            got, expected = f"{len(table)} contexts", f"{end - start}, one for each example"
            raise StoreError(f"shard {shard}", got, expected, "Generate the shard again")
        with atomic_file(self.shard_paths[shard]) as path:
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)

    def finish(self) -> None:
        """Write the manifest, after all shards, which are checked: the store is complete from then on."""
        for shard in self.missing_shards():
            raise StoreError(self.shard_paths[shard], "no file", "the shard", "Repeat the command to generate it")
        shards = [
            {"file": path.name, "rows": end - start, "sha256": sha256(path)}
            for path, (start, end) in zip(self.shard_paths, self.shard_ranges, strict=True)
        ]
        write_json_atomic(self.manifest_path, {"identity": self.identity, "shards": shards})
        self._whole = shards

    def read(self) -> Iterator[pa.Table]:
        """Each shard, in order, after the whole store was checked.

        Raises:
            StoreError: the manifest is missing, options differ, or a shard is missing or not what the manifest says.
        """
        if not self.check():
            got = "no manifest.json, since generation did not finish"
            raise StoreError(self.directory, got, "a finished store", "Repeat the command to continue")
        for path in self.shard_paths:
            yield _read_table(path)

    def check(self) -> bool:
        """Look at everything that is there, and whether it is complete. Each shard is compared with the manifest once
        for each store that is opened.

        Raises:
            StoreError: something is damaged, or was made with other options.
        """
        manifest = self._manifest()
        if manifest is None:
            self.missing_shards()
            return False
        if self._whole is None:
            errors, way = [], f"{self.manifest_path}, and repeat the command"
            for entry in manifest["shards"]:
                path = self.directory / entry["file"]
                if not path.exists():
                    errors.append(describe(path, "no file", "the shard of the manifest", f"Delete {way}"))
                elif sha256(path) != entry["sha256"]:
                    expected = "that of the manifest"
                    errors.append(describe(f"{path}, sha256", "another hash", expected, f"Delete it and {way}"))
            if errors:
                raise StoreError(errors)
            self._whole = manifest["shards"]
        return True

    def iter_with(self, examples: ExampleSet) -> Iterator[tuple[Example, dict[str, Any]]]:
        """Each example with its record. Raises StoreError as `read` does."""
        start = 0
        for shard in self.read():
            for first in range(0, len(shard), ROWS_PER_CHUNK):
                columns = shard.slice(first, ROWS_PER_CHUNK).to_pydict()
                part = examples.part(start, start + len(columns["id"]))
                start += len(part)
                for at, example in enumerate(part):
                    yield example, {name: column[at] for name, column in columns.items()}

    def _manifest(self) -> dict[str, Any] | None:
        """The manifest, checked; None where there is none."""
        path = self.manifest_path
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StoreError(path, f"a damaged file ({error})", "the one that was written", _DELETE_FILE) from error
        if not isinstance(manifest, dict) or not {"identity", "shards"} <= set(manifest):
            raise StoreError(path, "another file", "the manifest of a context store", _DELETE_FILE)
        self._check_identity(manifest["identity"], path)
        try:
            listed = [entry["file"] for entry in manifest["shards"] if entry["sha256"]]
        except (TypeError, KeyError):
            listed = []
        if listed != [path.name for path in self.shard_paths]:
            raise StoreError(path, "other shards", f"the {self.num_shards} shards of this store", _DELETE_FILE)
        return manifest

    def _check_identity(self, found: Any, path: Path) -> None:
        if not isinstance(found, dict):
            raise StoreError(path, "no record of how its contexts were made", "one", _DELETE)
        expected = json.loads(self._encoded_identity)
        differing = [key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)]
        if differing:
            advice = "Restore the option, use another output_dir, or delete the directory"
            raise StoreError(
                [
                    describe(
                        f"{path}, {key}",
                        f"contexts that were made with {found.get(key)!r}",
                        f"{expected.get(key)!r}, as in this run",
                        advice,
                    )
                    for key in differing
                ]
            )


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        got = f"a truncated or damaged file ({error})"
        raise StoreError(path, got, "the shard that was written", _DELETE) from error


def recorded_shard_size(directory: Path) -> int | None:
    """The shard size of the store in `directory`, by its manifest or a shard; None where nothing there says one."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        return int(manifest["identity"]["shard_size"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged, which the store's checks tell
        pass
    for path in sorted(directory.glob("shard-*")):
        try:
            return int(json.loads(pq.read_schema(path).metadata[_IDENTITY])["shard_size"])
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            continue
    return None
