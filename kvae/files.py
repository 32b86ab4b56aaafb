"""Writes files whole or not at all, locks files and folders for one process at a time, and opens regular files."""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import BinaryIO

import filelock

from kvae import arguments

PARTIAL = ".partial"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCK = ".kvae.lock"
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # some network file systems
_WAIT = 600  # seconds for another process that writes one file

Path = str | os.PathLike[str]


class NotAFile(ValueError):
    """The error of a device, a pipe or a folder with the name of a file."""


# Paths and reading


def absolute(path: Path, name: str = "path") -> pathlib.Path:
    """The path, which a later change of the working folder leaves as it is. Links stay links.

    Raises TypeError, with the argument's name, for no path, and ValueError for an address such as gs://bucket.
    """
    return pathlib.Path(os.path.abspath(arguments.path(name, path)))


def make_folder(path: Path) -> pathlib.Path:
    """Makes a folder, unless it is there, and returns its absolute path. Raises OSError if the name is taken."""
    folder = absolute(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        taken = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        if taken.is_symlink() and not taken.exists():
            message = f"is a link to {os.readlink(taken)}, which isn't there: make that folder, or give another one"
        else:
            message = "is a file, expected a folder: give another name"
        raise NotADirectoryError(f"{taken} {message}") from None
    return folder


@contextlib.contextmanager
def open_regular(path: Path, most_bytes: int | None = None) -> Iterator[BufferedReader]:
    """Context manager. Opens a file for reading that must be a file, not a device, a pipe or a folder.

    Raises:
        ValueError: for something else of that name, and for more than `most_bytes` bytes.
        OSError: if the file can't be opened.
    """
    _validate_regular(
        arguments.path("path", path), os.stat(path), most_bytes
    )  # opening a pipe would wait for its other end
    with open(path, "rb") as file:
        _validate_regular(path, os.fstat(file.fileno()), most_bytes)
        yield file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a file, as `open_regular` opens it."""
    with open_regular(path, most_bytes) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1)  # read() sets aside as much as it is asked for
    if len(content) > most_bytes:  # grown since it was opened
        raise ValueError(f"{path} has more than {most_bytes:,} bytes")
    return content


def _validate_regular(path, status, most_bytes):
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        raise NotAFile(f"{path} is {kinds.get(stat.S_IFMT(status.st_mode), 'a socket')}, expected a file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise ValueError(f"{path} has {status.st_size:,} bytes, expected {most_bytes:,} at most")


# Writing


@contextlib.contextmanager
def atomic_path(path: Path, suffix: str = "") -> Iterator[pathlib.Path]:
    """Context manager. The block writes a file of the name that it gets; once it is on the disk, it is named `path`.

    No other process has that name, which ends in `suffix`. If the block raises, the file is deleted and an older one at
    `path` stays as it was. If `path` is a link, the file that it points to is replaced.
    """
    path = pathlib.Path(os.path.realpath(path))
    temporary = path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}{PARTIAL}{suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Context manager. Opens a binary file that gets its name once it is whole and on the disk, as `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "w+b") as file:
        yield file


def remove_partial(directory: Path) -> None:
    """Deletes the half-written files that a killed process left in a folder, which the caller has locked."""
    for path in pathlib.Path(directory).glob(f".*{PARTIAL}"):
        if re.fullmatch(rf"\.[0-9a-f]{{12}}-[0-9a-f]{{8}}{PARTIAL}", path.name):
            path.unlink(missing_ok=True)


def _prefix(path):
    """Of the names beside `path` that belong to it. It is short, so that names may have all the length there is."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk. Windows has no such wait for folders."""
    is_folder = os.path.isdir(path)
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def explain_errors(path: Path, size: Callable[[], int] | None = None, advice: str = "make room") -> Iterator[None]:
    """Context manager. An OSError in the block says why `path` can't be written, and what to do.

    Errors of other kinds and of files in other folders stay as they are.

    Args:
        path: a file or folder.
        size: function to the bytes that it takes, or None.
        advice: the end of the message if the disk is full.
    """
    path = absolute(path)
    try:
        yield
    except OSError as error:
        folder = next((each for each in (path, *path.parents) if each.is_dir()), path)
        is_own = str(error.filename or "").startswith(str(folder))
        if error.errno in FULL:
            room = {errno.EFBIG: "a limit on the size of files", errno.EDQUOT: "no quota left"}.get(error.errno or 0)
            need = "more room" if size is None else f"at least {size():,} bytes"
            message = (
                f"needs {need}, and {folder} has {room or f'{shutil.disk_usage(folder).free:,} bytes free'}: {advice}"
            )
        elif is_own and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"can't be written, {str(error.strerror).lower()}: give a folder that can be written to"
        else:
            raise
        raise OSError(error.errno, f"{path} {message}") from error


# Locks


@contextlib.contextmanager
def lock(directory: Path, message: str) -> Iterator[None]:
    """Context manager. Locks a folder. If the process is killed, the operating system frees the lock.

    Args:
        directory: the folder. The lock is a hidden file in it, deleted at the end.
        message: of the error if the folder is locked.

    Raises:
        FileExistsError: if another process, or another thread, holds the lock.
        OSError: if the folder can't be written to.
    """
    with _locked(pathlib.Path(directory) / _LOCK, 0, message):
        yield


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Context manager. Waits until no other process writes the file `path`, and keeps others waiting.

    Deletes what a killed process left half-written for it.

    Raises:
        FileExistsError: after ten minutes.
        OSError: if the file's folder can't be written to.
    """
    path = pathlib.Path(os.path.realpath(path))
    message = f"another process has been writing {path} for ten minutes: wait for its end, or give another name"
    with _locked(path.with_name(f"{_prefix(path)}lock"), _WAIT, message) as is_locked:
        for leftover in path.parent.glob(f"{_prefix(path)}*{PARTIAL}*") if is_locked else ():
            leftover.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _locked(path, timeout, message):
    if not path.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
    file_lock, is_locked = filelock.FileLock(path, timeout=timeout), True
    try:
        file_lock.acquire()
    except filelock.Timeout:
        raise FileExistsError(message) from None
    except (OSError, NotImplementedError) as error:  # NotImplementedError: from filelock, for ENOSYS
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        is_locked = False
    try:
        yield is_locked
    finally:
        with contextlib.suppress(OSError):  # Windows deletes it with the release
            path.unlink()
        file_lock.release()
