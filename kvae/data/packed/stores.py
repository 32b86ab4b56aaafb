"""Packed data on object stores and web servers: ranges of the files, read by fsspec, with a cache on the local disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from kvae import arguments, files

ATTEMPTS, PAUSE = 4, 0.5  # tries in all; the seconds before the second one, which double each time
CACHE_BYTES, PIECE_BYTES = 2**34, 2**24
_WEB, _QUERY = re.compile(r"(^|::)https?://", re.IGNORECASE), re.compile(r"\?[^\s'\")]+")
_RECOUNT = 256  # blocks that are written before the cache's files are counted anew, for those of other processes


class Store:
    """A folder at an address of a file system that fsspec knows: https://..., s3://..., gs://... and others.

    `store / name` is one of its files. Keys and the like come from the environment and from fsspec's own
    configuration. What follows a "?" in a web address, such as the signature of a folder, goes with each request, and
    into no message about it.

    Args:
        address: str.
        cache: a `BlockCache` or None.
    """

    def __init__(self, address: str, cache: BlockCache | None = None):
        address, mark, query = address.partition("?") if _WEB.search(address) else (address, "", "")
        self.query = mark + query
        as_it_stands: dict = {"encoded": True} if query else {}  # a signature may be of this text
        as_it_stands = dict.fromkeys(("http", "https"), as_it_stands) if query and "::" in address else as_it_stands
        try:
            import fsspec

            self.file_system, self.root = fsspec.core.url_to_fs(address, **as_it_stands)
        except ImportError as error:
            raise ImportError(
                f"{address} needs a package that isn't here ({error}): pip install 'keras-vae[stores]' for https://, "
                "and s3fs for s3:// or gcsfs for gs://"
            ) from None
        except ValueError as error:
            raise ValueError(f"fsspec can't read {address}: {error}") from None
        self.address, self.cache = address.rstrip("/"), cache
        self.name = self.address.rsplit("/", 1)[-1]

    def __truediv__(self, name: str) -> StoredFile:
        return StoredFile(self, name)

    def __str__(self):
        return self.address

    def read(self, ranges: Sequence[Range]) -> list[bytes | OSError]:
        """The bytes of all ranges, requested at once; an error stands in the place of bytes that don't come.

        A range that fails, or ends early, is tried `ATTEMPTS` times in all. A missing file stays missing.
        """
        contents: list = [None] * len(ranges)
        pending = list(range(len(ranges)))
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            chosen = [ranges[number] for number in pending]
            wanted = [[each.file.path, each.start, each.stop] for each in chosen]
            try:
                found = self.file_system.cat_ranges(*map(list, zip(*wanted, strict=True)), on_error="return")
            except Exception as error:  # some file systems of fsspec, such as simplecache, raise all the same
                found = [error] * len(chosen)
            for number, content in zip(pending, found, strict=True):
                contents[number] = ranges[number].checked(content)
            pending = [number for number in pending if _may_come(contents[number])]
            if not pending:
                break
        return contents


class StoredFile:
    """A file of a `Store`."""

    def __init__(self, store: Store, name: str):
        self.store, self.name = store, name

    def __str__(self):
        return f"{self.store}/{self.name}"

    @property
    def parent(self) -> Store:
        """The folder."""
        return self.store

    @property
    def path(self) -> str:
        """The name that fsspec has for the file."""
        return f"{self.store.root.rstrip('/')}/{self.name}{self.store.query}"

    def read(self) -> bytes:
        """The whole file."""
        content = self.store.read([Range(self, None, None, "the file")])[0]
        if isinstance(content, OSError):
            raise content
        return content

    def sha256(self) -> str:
        """The SHA-256 of the whole file, read in pieces."""
        digest = hashlib.sha256()
        try:
            size = self.store.file_system.size(self.path)
        except OSError as error:  # its message has the whole address, and calls a refused file missing
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ConnectionError
            raise kind(f"{self} is missing, or the server refuses it or doesn't answer") from None
        for start in range(0, size, PIECE_BYTES):
            content = self.store.read(
                [Range(self, start, min(start + PIECE_BYTES, size), f"what follows byte {start:,}")]
            )[0]
            if isinstance(content, OSError):
                raise content
            digest.update(content)
        return digest.hexdigest()


class Range(NamedTuple):
    """The bytes start..stop-1 of a file, of the whole file with None. `content` says what they are, for errors."""

    file: StoredFile
    start: int | None
    stop: int | None
    content: str

    def checked(self, found: Any) -> bytes | OSError:
        """What was found, if its length is right, or an error that names the range."""
        if isinstance(found, FileNotFoundError):
            return FileNotFoundError(f"{self.file} is missing")
        kind: type[OSError] = OSError
        if isinstance(found, BaseException):
            kind, fault = ConnectionError, f"{type(found).__name__}: {found}".removesuffix(": ")
            fault = _QUERY.sub("?...", fault) if self.file.store.query else fault
        elif self.stop is None or len(found) == self.stop - (self.start or 0):
            return found
        else:
            size = self.stop - (self.start or 0)
            fault = f"found {len(found):,} bytes, expected {size:,}"
            if len(found) > size:
                return FileNotFoundError(
                    f"{self.file} can't be read in parts: {self.content} came as {len(found):,} bytes instead "
                    f"of {size:,}; the server must answer requests for ranges"
                )
        return kind(
            f"{self.file} can't be read: {self.content} didn't come in {ATTEMPTS} attempts ({fault}); check the "
            "connection, the keys and the file"
        )


Folder = pathlib.Path | Store


def locate(directory: str | os.PathLike[str] | Store, cache: BlockCache | None = None) -> Folder:
    """The folder of a path, absolute, or of an address."""
    if isinstance(directory, Store):
        return directory
    if is_address(directory):
        return Store(os.fspath(directory), cache)
    return files.absolute(directory, "directory")


def is_address(name: Any) -> bool:
    """Whether a name is an address, such as s3://bucket/folder."""
    return isinstance(name, str) and re.match(r"[A-Za-z][\w+.-]*(::[\w+.-]+)*://", name) is not None


def _may_come(content):
    return isinstance(content, OSError) and not isinstance(content, FileNotFoundError)


class BlockCache:
    """Blocks of stored files on the local disk, in at most `max_bytes` bytes.

    The first blocks that are read stay: an epoch reads every block once, so a cache that drops the oldest one would
    have dropped each block by the time it is wanted again. Processes may share the folder: each may then pass the
    limit by 256 blocks, before it counts theirs. Delete it at any time.

    Args:
        directory: str or path, the folder.
        max_bytes: int.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int = CACHE_BYTES):
        if not os.fspath(directory):
            raise ValueError("cache_dir is '', expected a folder")
        self.directory = files.make_folder(arguments.path("cache_dir", directory))
        self.max_bytes = arguments.integer_at_least("cache_bytes", max_bytes, 1)
        self._bytes, self._written = self._count(), 0

    def get(self, key: str, size: int) -> bytes | None:
        """The block of this key, or None if it isn't there."""
        try:
            content = (self.directory / key).read_bytes()
        except OSError:
            return None
        return content if len(content) == size else None  # another process may be writing it

    def put(self, key: str, content: Any) -> None:
        """Keeps a block, if there is room."""
        if self._written % _RECOUNT == _RECOUNT - 1:
            self._bytes, self._written = self._count(), 0
        if self._bytes + len(content) > self.max_bytes:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)  # it may have been deleted
            (self.directory / key).write_bytes(content)
            self._bytes, self._written = self._bytes + len(content), self._written + 1
        except OSError:  # of a full disk
            with contextlib.suppress(OSError):
                (self.directory / key).unlink()

    def drop(self, key: str) -> None:
        """Deletes a block, if it is there."""
        with contextlib.suppress(OSError):
            self._bytes -= (self.directory / key).stat().st_size
            (self.directory / key).unlink()

    @staticmethod
    def key(*parts: Any) -> str:
        """The file name for a block: a hash of everything that identifies it."""
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:40] + ".block"

    def _count(self):
        if not self.directory.is_dir():
            return 0
        with os.scandir(self.directory) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(".block"))
