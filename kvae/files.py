"""Files that are written whole or not at all, and folders that one process at a time writes to."""

import contextlib
import errno
import os
import pathlib

import filelock

PARTIAL = ".partial"
_LOCK = ".kvae.lock"
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # from some network file systems


@contextlib.contextmanager
def atomic_write(path):
    """Opens a binary file that gets the name `path` once it is whole and on the disk.

    If the block raises, nothing is left of it, and an older file at `path` stays as it was.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def lock(directory, message):
    """Locks a folder for the block. The operating system frees the lock if the process is killed.

    Raises:
        FileExistsError: with `message`, if the folder is locked already.
        OSError: if the folder can't be written to.
    """
    path = pathlib.Path(directory) / _LOCK
    held = filelock.FileLock(path, timeout=0)
    try:
        held.acquire()
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
        held.release()


def _sync_folder(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
