"""A folder of checkpoints, each one file that says of itself whether it is whole.

A file is a line of magic, the SHA-256 of all behind it, the length of a header, the header (JSON: what it is of, and
the arrays' dtypes and shapes), and the arrays' bytes. It has its name only once it is on the disk.
"""

import contextlib
import errno
import hashlib
import json
import math
import pathlib
import shutil
import warnings

import ml_dtypes  # noqa: F401  (numpy knows bfloat16 by it)
import numpy as np

from kvae import files

MAGIC = b"kvae checkpoint 1\n"
KEPT = 2
_DIGEST, _LENGTH = hashlib.sha256().digest_size, 8
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class CheckpointFolder:
    """The checkpoints in a directory, of which the last two are kept.

    Its methods raise OSError where the directory can't be written or read.
    """

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self._damaged = set()

    def files(self):
        """The paths of the checkpoints, the last one first."""
        return sorted(self.directory.glob("checkpoint-*.kvae"), key=_number, reverse=True)

    def save(self, content, arrays):
        """Write a checkpoint: content, of which JSON can be made, and a list of numpy arrays. Returns its path.

        Raises OSError where it can't be written, which leaves the checkpoints that there are and no other file.
        """
        files = self.files()
        path = self.directory / f"checkpoint-{_number(files[0]) + 1 if files else 0:06}.kvae"
        parts = _encoded(content, arrays)
        size = sum(map(len, parts))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with files.atomic_write(path) as file:
                for part in parts:
                    file.write(part)
            whole = [file for file in files if file not in self._damaged]
            for old in set(files).difference(whole[: KEPT - 1]):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise _told(error, path, size) from error
        return path

    def latest(self):
        """(content, arrays, path) of the last checkpoint that is whole, or None where there is no checkpoint.

        Warns of those that aren't; raises OSError where none of them is.
        """
        files = self.files()
        for path in files:
            try:
                return *read_checkpoint(path), path
            except OSError as error:
                self._damaged.add(path)
                warnings.warn(f"{error}; the checkpoint before it is taken, if there is one", stacklevel=2)
        if files:
            raise OSError(
                f"{self.directory} holds {len(files)} checkpoints, none of which is whole: restore one of them, or "
                "delete the folder to train from the start"
            )
        return None

    @contextlib.contextmanager
    def lock(self):
        """The only process that writes into the directory. What killed ones left half written is deleted."""
        stack = contextlib.ExitStack()
        message = (
            f"another process keeps its checkpoints in {self.directory}: wait for its end, or give another directory"
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock(self.directory, message))
        except FileExistsError:
            raise
        except OSError as error:
            raise _told(error, self.directory) from error
        with stack:
            for leftover in self.directory.glob(f"checkpoint-*{files.PARTIAL}"):
                leftover.unlink()
            yield


def read_checkpoint(path):
    """(content, arrays) of a checkpoint. Raises OSError where the file isn't as it was written."""
    file = pathlib.Path(path).read_bytes()
    start = len(MAGIC) + _DIGEST
    if not file.startswith(MAGIC) or len(file) < start + _LENGTH:
        found = f"{len(file)} bytes that don't begin as one does" if file else "nothing in it"
        raise OSError(f"{path} is damaged: expected a checkpoint, found {found}")
    body = memoryview(file)[start:]
    if hashlib.sha256(body).digest() != file[len(MAGIC) : start]:
        raise OSError(f"{path} is cut or altered: its {len(file)} bytes haven't the SHA-256 that it begins with")
    length = int.from_bytes(body[:_LENGTH], "little")
    header = json.loads(bytes(body[_LENGTH : _LENGTH + length]))
    arrays, place = [], _LENGTH + length
    for name, shape in header["arrays"]:
        count, dtype = math.prod(shape), np.dtype(name)
        arrays.append(np.frombuffer(body, dtype, count, place).reshape(shape))
        place += count * dtype.itemsize
    return header["content"], arrays


def _encoded(content, arrays):
    arrays = [np.asarray(array, order="C") for array in arrays]
    described = [(array.dtype.name, array.shape) for array in arrays]
    header = json.dumps({"content": content, "arrays": described}).encode()
    parts = [len(header).to_bytes(_LENGTH, "little"), header, *(array.reshape(-1).view(np.uint8) for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return [MAGIC, digest.digest(), *parts]


def _number(path):
    digits = path.stem.removeprefix("checkpoint-")
    return int(digits) if digits.isdigit() else -1


def _told(error, path, size=None):
    """The error in one sentence, of the same number."""
    directory = next((folder for folder in (path, *path.parents) if folder.is_dir()), path)
    if error.errno in _FULL and size is not None:
        free = shutil.disk_usage(directory).free
        limit = "a limit on the size of files" if error.errno == errno.EFBIG else f"{free:,} bytes free"
        said = f"a checkpoint needs {size:,} bytes and {directory} has {limit}: the ones before it are whole; make room"
    else:
        said = f"checkpoints can't be written to {path}: {error.strerror}; give a directory that can be written"
    return OSError(error.errno, said)
