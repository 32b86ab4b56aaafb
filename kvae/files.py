"""Writes files whole or not at all, and locks folders for one process at a time."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import filelock

PARTIAL = ".partial"
_LOCK = ".kvae.lock"
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # from some network file systems


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], temporary: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Context manager. The block writes the file `temporary`. Once it is on the disk, it gets the name `path`.

    If the block raises, `temporary` is deleted and an older file at `path` stays as it was.
    """
    path, temporary = pathlib.Path(path), pathlib.Path(temporary)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Context manager. Opens a binary file that gets its name once it is whole and on the disk, as `atomic_path`."""
    with atomic_path(path, f"{os.fspath(path)}{PARTIAL}") as temporary, open(temporary, "w+b") as file:
        yield file


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock(directory: str | os.PathLike[str], message: str) -> Iterator[None]:
    """Context manager. Locks a folder. If the process is killed, the operating system frees the lock.

    Args:
        directory: the folder. The lock is a hidden file in it, deleted at the end.
        message: of the error if the folder is locked.

    Raises:
        FileExistsError: if another process, or another thread, holds the lock.
        OSError: if the folder can't be written to.
    """
    path = pathlib.Path(directory) / _LOCK
    folder_lock = filelock.FileLock(path, timeout=0)
    try:
        folder_lock.acquire()
    except filelock.Timeout:
        raise FileExistsError(message) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes it with the release
            path.unlink()
        folder_lock.release()
