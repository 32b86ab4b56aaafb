"""The folder of packed data: its files, its manifest, and whether they are as they were written.

A folder holds `manifest.json` and, for each split and column, `.npy` shards of as many rows each, all but the last.
Behind its rows a shard has a second array (as two calls of `numpy.save` to one file leave it): the FarmHash
fingerprint of each block of rows, uint64. `numpy.load` of a shard gives the rows.
"""

import hashlib
import io
import json
import math
import os
import pathlib

import numpy as np

from kvae import files

MANIFEST = "manifest.json"
FORMAT = "kvae packed data"
VERSION = 1
ADVICE = "restore it, or delete the folder and pack again"


def is_packed(name):
    """Whether `name` means a folder of packed data, damaged or not, rather than a set of tensorflow-datasets."""
    path = pathlib.Path(name)
    found = (path / MANIFEST).exists() or any(path.glob("*-*-00000.npy"))
    return found or isinstance(name, os.PathLike) or path.is_absolute()


def shard_path(directory, split, column, number):
    return pathlib.Path(directory) / f"{split}-{column}-{number:05}.npy"


def header(dtype, shape):
    """What numpy writes ahead of an array, as long for any number of rows."""
    file = io.BytesIO()
    content = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue()


def save_manifest(directory, content):
    """Write the manifest, content and its checksum."""
    with files.atomic_write(pathlib.Path(directory) / MANIFEST) as file:
        file.write(json.dumps({**content, "checksum": _checksum(content)}, indent=1).encode())


def read_manifest(directory):
    """The manifest's content, a dict. Raises OSError where it is missing, damaged or of another version."""
    path = pathlib.Path(directory) / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("checksum")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is missing: expected a folder that `kvae.data.pack` wrote") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise OSError(f"{path} is damaged: found no manifest in its {path.stat().st_size} bytes; {ADVICE}") from None
    if checksum != _checksum(content):
        raise OSError(f"{path} is altered: found another content than its checksum is of; {ADVICE}")
    if (content["format"], content["version"]) != (FORMAT, VERSION):
        found = f"{content['format']!r} version {content['version']}"
        raise OSError(f"{path} is {found}, expected {FORMAT!r} version {VERSION}: another kvae wrote it")
    return content


def read_fingerprints(directory, content, lost=None):
    """The blocks' fingerprints, {split: {column: uint8 (blocks, 8)}}.

    lost: a dict, which gets {path: what is wrong} of each shard that isn't as long as it was, or has another header or
    other fingerprints; None raises OSError for the first.
    """
    fingerprints = {split: {name: [] for name in part["columns"]} for split, part in content["splits"].items()}
    for path, split, name, shard in all_shards(directory, content):
        try:
            found = _fingerprints(path, shard, content["splits"][split]["columns"][name])
        except OSError as error:
            if lost is None:
                raise
            lost[str(path)] = str(error)
            found = np.zeros((-(-shard["rows"] // content["splits"][split]["block_rows"]), 8), np.uint8)
        fingerprints[split][name].append(found)
    return {
        split: {name: np.concatenate(blocks) for name, blocks in part.items() if blocks}
        for split, part in fingerprints.items()
    }


def _fingerprints(path, shard, column):
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: expected {shard['bytes']} bytes; {ADVICE}") from None
    if size != shard["bytes"]:
        found = "is empty" if not size else "is cut" if size < shard["bytes"] else "is too long"
        raise OSError(f"{path} {found}: found {size} bytes, expected {shard['bytes']}; {ADVICE}")
    with open(path, "rb") as file:
        start = file.read(column["header_bytes"])
        file.seek(column["header_bytes"] + shard["rows"] * row_bytes(column))
        end = file.read()
    if hashlib.sha256(start + end).hexdigest() != shard["frame_sha256"]:
        raise OSError(f"{path} is altered: its header or fingerprints aren't those of {MANIFEST}; {ADVICE}")
    return np.load(io.BytesIO(end)).view(np.uint8).reshape(-1, 8)


def verify(directory):
    """Read every shard of packed data as a whole and raise OSError for the first that isn't as it was written.

    `load` checks the files' sizes, and each block as it is read; this finds what a run would meet later.
    """
    content = read_manifest(directory)
    read_fingerprints(directory, content)
    for path, *_, shard in all_shards(directory, content):
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                raise OSError(f"{path} is altered: its SHA-256 isn't that of {MANIFEST}; {ADVICE}")


def all_shards(directory, content):
    """(path, split, column, what the manifest says of it) of every shard."""
    for split, part in content["splits"].items():
        for name, column in part["columns"].items():
            for number, shard in enumerate(column["shards"]):
                yield shard_path(directory, split, name, number), split, name, shard


def row_bytes(column):
    return np.dtype(column["dtype"]).itemsize * math.prod(column["shape"])


def _checksum(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
