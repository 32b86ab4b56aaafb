"""A folder of checkpoints. Each checkpoint is one file with its own checksum.

A file is a line of magic, the SHA-256 of everything behind it, the length of the header, the header (JSON: the
content, and the dtypes and shapes of the arrays), and the bytes of the arrays.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

from kvae import files

MAGIC = b"kvae checkpoint 1\n"
NUM_KEPT = 2
_DIGEST_BYTES, _LENGTH_BYTES = hashlib.sha256().digest_size, 8
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class CheckpointFolder:
    """The checkpoints in a directory. The last two intact ones are kept.

    The methods raise OSError if the directory can't be read or written.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self.directory = files.absolute(directory, "directory")
        self._damaged = set()

    def paths(self) -> list[pathlib.Path]:
        """The checkpoints, the last one first."""
        return sorted(self.directory.glob("checkpoint-*.kvae"), key=_number, reverse=True)

    def save(self, content: Any, arrays: Sequence[np.ndarray]) -> pathlib.Path:
        """Writes a checkpoint and returns its path. If this fails, the other checkpoints stay as they are.

        Args:
            content: anything JSON can hold.
            arrays: numpy arrays.
        """
        paths = self.paths()
        path = self.directory / f"checkpoint-{_number(paths[0]) + 1 if paths else 0:06}.kvae"
        parts = _encode(content, arrays)
        size = sum(map(len, parts))
        try:
            files.make_folder(self.directory)
            with files.atomic_write(path) as file:
                for part in parts:
                    file.write(part)
            intact = [each for each in paths if each not in self._damaged]
            for old in set(paths).difference(intact[: NUM_KEPT - 1]):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise _explain(error, path, size) from error
        return path

    def latest(self) -> tuple[Any, list[np.ndarray], pathlib.Path] | None:
        """(content, arrays, path) of the last intact checkpoint, or None if there are no checkpoints.

        Warns of each damaged one. Raises OSError if all are damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return *read_checkpoint(path), path
            except OSError as error:
                self._damaged.add(path)
                warnings.warn(f"{error}; the checkpoint before it is taken, if there is one", stacklevel=2)
        if paths:
            raise OSError(
                f"{self.directory} holds {len(paths)} checkpoints, none of which is whole: restore one of them, or "
                "delete the folder to train from the start"
            )
        return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the directory for one process, and deletes half-written files of a killed process."""
        message = (
            f"another process keeps its checkpoints in {self.directory}: wait for its end, or give another directory"
        )
        with contextlib.ExitStack() as stack:
            try:
                files.make_folder(self.directory)
                stack.enter_context(files.lock(self.directory, message))
            except OSError as error:
                raise _explain(error, self.directory) from error
            for leftover in self.directory.glob(f"checkpoint-*{files.PARTIAL}"):  # of 0.1.0
                leftover.unlink()
            files.remove_partial(self.directory)
            yield


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Any, list[np.ndarray]]:
    """(content, arrays) of a checkpoint. Raises OSError if the file is damaged, cut or altered."""
    try:
        with files.open_regular(path) as opened:
            file = opened.read(len(MAGIC))
            file += opened.read() if file == MAGIC else b""
    except files.NotAFile as error:
        raise OSError(f"{error}: give back the checkpoint, or delete it") from None
    start = len(MAGIC) + _DIGEST_BYTES
    if not file.startswith(MAGIC) or len(file) < start + _LENGTH_BYTES:
        found = f"{os.path.getsize(path)} bytes that don't begin as one does" if file else "nothing in it"
        raise OSError(f"{path} is damaged: expected a checkpoint, found {found}")
    body = memoryview(file)[start:]
    if hashlib.sha256(body).digest() != file[len(MAGIC) : start]:
        raise OSError(f"{path} is cut or altered: its {len(file)} bytes haven't the SHA-256 that it begins with")
    length = int.from_bytes(body[:_LENGTH_BYTES], "little")
    header = json.loads(bytes(body[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    arrays, offset = [], _LENGTH_BYTES + length
    for name, shape in header["arrays"]:
        count, dtype = math.prod(shape), np.dtype(name)
        arrays.append(np.frombuffer(body, dtype, count, offset).reshape(shape))
        offset += count * dtype.itemsize
    return header["content"], arrays


def _encode(content, arrays):
    """The file as a list of bytes and byte arrays."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    header = {"content": content, "arrays": [(array.dtype.name, array.shape) for array in arrays]}
    header = json.dumps(header).encode()
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    parts = [length, header, *(array.reshape(-1).view(np.uint8) for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return [MAGIC, digest.digest(), *parts]


def _number(path):
    digits = path.stem.removeprefix("checkpoint-")
    return int(digits) if digits.isdigit() else -1


def _explain(error, path, size=None):
    """An OSError with the same number and advice in its message."""
    if error.errno is None:  # it has a message of kvae's own
        return error
    directory = next((folder for folder in (path, *path.parents) if folder.is_dir()), path)
    if error.errno in _FULL and size is not None:
        free = shutil.disk_usage(directory).free
        limit = "a limit on the size of files" if error.errno == errno.EFBIG else f"{free:,} bytes free"
        message = (
            f"a checkpoint needs {size:,} bytes and {directory} has {limit}: the ones before it are whole; make room"
        )
    else:
        message = f"checkpoints can't be written to {path}: {error.strerror}; give a directory that can be written"
    return OSError(error.errno, message)
