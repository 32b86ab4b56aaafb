"""The format of packed data: the names of the files, the manifest, and the checksums.

A folder holds `manifest.json` and a sequence of `.npy` shards for each column of each split. All shards of a split
have the same number of rows, except the last. A shard is two arrays in one file, as two calls of `numpy.save` leave
them: first the rows, then the FarmHash fingerprint of each block of rows, uint64. `numpy.load` returns the rows.
"""

import hashlib
import io
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from kvae import files
from kvae.data.packed import stores

MANIFEST = "manifest.json"
FORMAT = "kvae packed data"
VERSION = 1
MAX_MANIFEST = 2**28  # bytes: 1.5 MB for a terabyte
ADVICE = "restore it, or delete the folder and pack again"
FRAMES = 256  # parts of shards, each of kilobytes, requested from a server at once
SAVE_PAUSE = 10  # times the duration of a save, from one save of the manifest to the next

Path = str | os.PathLike[str] | stores.Store


def is_packed(name: Path) -> bool:
    """Whether `name` is a folder of packed data, intact or damaged, rather than a data set of tensorflow-datasets."""
    if stores.is_address(name):
        return True
    path = pathlib.Path(str(name))
    exists = (path / MANIFEST).exists() or any(path.glob("*-*-00000.npy"))
    return exists or isinstance(name, os.PathLike) or path.is_absolute()


def shard_path(directory: Path, split: str, column: str, number: int) -> Any:
    return stores.locate(directory) / f"{split}-{column}-{number:05}.npy"


def npy_header(dtype, shape) -> bytes:
    """The header of a `.npy` file. Its length is the same for any number of rows."""
    file = io.BytesIO()
    content = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue()


def row_bytes(column: dict[str, Any]) -> int:
    return np.dtype(column["dtype"]).itemsize * math.prod(column["shape"])


def all_shards(directory: Path, manifest: dict[str, Any]) -> Iterator[tuple[Any, str, str, dict[str, Any]]]:
    """Yields (path, split, column, entry in the manifest) of each shard."""
    for split, layout in manifest["splits"].items():
        for name, column in layout["columns"].items():
            for number, shard in enumerate(column["shards"]):
                yield shard_path(directory, split, name, number), split, name, shard


def save_manifest(directory: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
    with files.atomic_write(pathlib.Path(directory) / MANIFEST) as file:
        file.write(json.dumps({**manifest, "checksum": _checksum(manifest)}, indent=1).encode())


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises OSError if it is missing, damaged or of another version."""
    path: Any = stores.locate(directory) / MANIFEST
    content = b""
    try:
        content = path.read() if isinstance(path, stores.StoredFile) else files.read_regular(path, MAX_MANIFEST)
        manifest = json.loads(content)
        checksum = manifest.pop("checksum")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is missing: expected a folder that `kvae.data.pack` wrote") from None
    except files.NotAFile as error:
        raise OSError(f"{error}; {ADVICE}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise OSError(f"{path} is damaged: found no manifest in its {len(content)} bytes; {ADVICE}") from None
    if checksum != _checksum(manifest):
        raise OSError(f"{path} is altered: found another content than its checksum is of; {ADVICE}")
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
        version = f"{manifest['format']!r} version {manifest['version']}"
        raise OSError(f"{path} is {version}, expected {FORMAT!r} version {VERSION}: another kvae wrote it")
    return manifest


def _checksum(manifest):
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


class ManifestSaver:
    """Saves a growing manifest, but so rarely that the saves take a tenth of the time at most.

    A context manager. On an exception it saves the latest state, or deletes a new manifest without any shard. After a
    kill, `pack` repeats the work since the last save.
    """

    def __init__(self, directory: pathlib.Path, manifest: dict[str, Any]):
        self.directory, self.manifest = directory, manifest
        self._changed, self._next_save = False, -math.inf
        self._existed = (directory / MANIFEST).exists()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        if kind and not self._existed and not any(all_shards(self.directory, self.manifest)):
            (self.directory / MANIFEST).unlink(missing_ok=True)
        elif self._changed:
            self.save()

    def change(self) -> None:
        """Saves the manifest, unless the last save is too recent."""
        self._changed = True
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        start = time.monotonic()
        save_manifest(self.directory, self.manifest)
        end = time.monotonic()
        self._changed, self._next_save = False, end + SAVE_PAUSE * (end - start)


def read_fingerprints(
    directory: Path, manifest: dict[str, Any], damaged: dict[str, str] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """The fingerprints of all blocks, {split: {column: uint8 (blocks, 8)}}. Reads the ends of the shards only.

    Args:
        directory: the folder.
        manifest: its manifest.
        damaged: dict that receives {path: fault} of each shard with another length, header or fingerprints than the
            manifest says. Default None: raises OSError for the first one.
    """
    fingerprints = {split: {name: [] for name in layout["columns"]} for split, layout in manifest["splits"].items()}
    directory, listed = stores.locate(directory), list(all_shards(directory, manifest))
    is_stored = isinstance(directory, stores.Store)
    frames = _stored_frames(directory, manifest, listed) if is_stored else itertools.repeat(None)
    for (path, split, name, shard), frame in zip(listed, frames, strict=is_stored):
        layout = manifest["splits"][split]
        try:
            frame = _local_frame(path, shard, layout["columns"][name]) if frame is None else frame
            if isinstance(frame, OSError):
                raise frame
            blocks = _shard_fingerprints(path, shard, *frame)
        except OSError as error:
            if damaged is None or isinstance(error, ConnectionError):  # then nothing is lost
                raise
            damaged[str(path)] = str(error)
            blocks = np.zeros((-(-shard["rows"] // layout["block_rows"]), 8), np.uint8)
        fingerprints[split][name].append(blocks)
    return {
        split: {name: np.concatenate(blocks) for name, blocks in columns.items() if blocks}
        for split, columns in fingerprints.items()
    }


def _local_frame(path, shard, column):
    """(header, fingerprints) of a shard, the bytes before and behind its rows."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: expected {shard['bytes']} bytes; {ADVICE}") from None
    if size != shard["bytes"]:
        fault = "is empty" if not size else "is cut" if size < shard["bytes"] else "is too long"
        raise OSError(f"{path} {fault}: found {size} bytes, expected {shard['bytes']}; {ADVICE}")
    with files.open_regular(path) as file:
        start = file.read(column["header_bytes"])
        file.seek(_end_of_rows(shard, column))
        return start, file.read()


def _stored_frames(store, manifest, listed):
    """The (header, fingerprints) of all shards, or an error in their place, requested together."""
    ranges = []
    for path, split, name, shard in listed:
        column = manifest["splits"][split]["columns"][name]
        ranges.append(stores.Range(path, 0, column["header_bytes"], "its header"))
        ranges.append(stores.Range(path, _end_of_rows(shard, column), shard["bytes"], "its end"))
    found = [each for first in range(0, len(ranges), FRAMES) for each in store.read(ranges[first : first + FRAMES])]
    for start, end in zip(found[::2], found[1::2], strict=True):
        yield next((each for each in (start, end) if isinstance(each, OSError)), (start, end))


def _end_of_rows(shard, column):
    return column["header_bytes"] + shard["rows"] * row_bytes(column)


def _shard_fingerprints(path, shard, start, end):
    if hashlib.sha256(start + end).hexdigest() != shard["frame_sha256"]:
        raise OSError(f"{path} is altered: its header or fingerprints aren't those of {MANIFEST}; {ADVICE}")
    return np.load(io.BytesIO(end)).view(np.uint8).reshape(-1, 8)


def verify(directory: Path) -> None:
    """Reads all of a folder of packed data and compares each shard with its SHA-256.

    `load` compares only the sizes of the files, and later each block when it reads it. Call `verify` after a copy or
    before a long run.

    Args:
        directory: a folder that `pack` wrote, or its address.

    Raises:
        OSError: for the first missing or altered file.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kvae.data.pack(np.zeros((100, 8, 8, 1), "uint8"), folder)
    ...     kvae.data.verify(folder)
    """
    directory = stores.locate(directory)
    manifest = read_manifest(directory)
    read_fingerprints(directory, manifest)
    for path, *_, shard in all_shards(directory, manifest):
        if _sha256(path) != shard["sha256"]:
            raise OSError(f"{path} is altered: its SHA-256 isn't that of {MANIFEST}; {ADVICE}")


def _sha256(path):
    if isinstance(path, stores.StoredFile):
        return path.sha256()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
