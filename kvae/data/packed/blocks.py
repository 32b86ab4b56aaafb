"""Reads any blocks of a column in a graph, and compares each with its fingerprint."""

import contextlib
import functools
import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat
from kvae.data.errors import LESS_MEMORY
from kvae.data.packed import format, stores

ALIGNMENT = 64  # bytes: TensorFlow copies arrays that aren't aligned
AHEAD = 64  # blocks requested from the disk, or from a server, at once
REQUEST_BYTES = 2**20  # of neighboring blocks in one request to a server


class BlockReader:
    """Reads the blocks of one column of a split, in Python.

    TensorFlow's own ways cost more: its dataset of fixed-length records reads everything ahead of a block, and a
    graph copies its memory-mapped constants whole into memory.

    Args:
        directory: the folder, an absolute path or a `Store`.
        split: name of the split.
        column: name of the column.
        layout: the manifest's entry for the split.
        fingerprints: uint8 (blocks, 8), the fingerprints of all blocks of the column.
    """

    def __init__(
        self, directory: stores.Folder, split: str, column: str, layout: dict[str, Any], fingerprints: np.ndarray
    ):
        self.column, self.row_bytes = layout["columns"][column], format.row_bytes(layout["columns"][column])
        self.rows, self.block_rows, self.shard_rows = layout["rows"], layout["block_rows"], layout["shard_rows"]
        self.fingerprints = fingerprints
        self.path = functools.partial(format.shard_path, directory, split, column)

    def read(self, numbers: tf.Tensor) -> tf.Tensor:
        """The rows of some blocks, (rows, *shape), in the order of `numbers`.

        An assertion, an OSError within `clear_errors`, fails if a block differs from its fingerprint.

        Args:
            numbers: int64 (k,), counted through the split. The last block of the split may have fewer rows and must
                come last.
        """
        content, message = _compat.numpy_function(self._read_and_compare, [numbers], [tf.uint8, tf.string])
        with tf.control_dependencies([tf.debugging.Assert(message == "", [message])]):
            return self._typed(tf.ensure_shape(content, [None]))

    def faults(self, numbers: np.ndarray) -> list[tuple[int, str]]:
        """(number, message) of each of the blocks, int64 (k,), that is missing, cut or altered.

        Raises ConnectionError if a store can't be reached.
        """
        try:
            is_intact = self._match(self._read(numbers), numbers)
        except ConnectionError:  # these rows aren't lost
            raise
        except OSError as error:
            if len(numbers) == 1:
                return [(numbers[0], str(error))]
            return [fault for half in np.array_split(numbers, 2) for fault in self.faults(half)]
        return [(number, self._altered(number)) for number in numbers[~is_intact]]

    def location(self, number: int) -> tuple[pathlib.Path, int, int]:
        """(path of the shard, first row within it, rows) of a block."""
        row = number * self.block_rows
        shard, first = divmod(row, self.shard_rows)
        return self.path(shard), first, min(self.block_rows, self.rows - row)

    def _typed(self, content):
        dtype = tf.as_dtype(np.dtype(self.column["dtype"]))
        if dtype == tf.bool:
            content = tf.cast(content, "bool")
        elif dtype != tf.uint8:
            content = tf.bitcast(tf.reshape(content, [-1, dtype.size] if dtype.size > 1 else [-1]), dtype)
        return tf.reshape(content, [-1, *self.column["shape"]])

    def _read_and_compare(self, numbers):
        """(the bytes of the blocks, error message or "")."""
        try:
            content = self._read(numbers)
        except OSError as error:
            return np.empty(0, np.uint8), f"OSError: {error}"
        except MemoryError:
            size = len(numbers) * self.block_rows * self.row_bytes
            message = f"no memory for a pool of {len(numbers)} blocks of {self.path(0).parent}, {size:,} bytes"
            return np.empty(0, np.uint8), f"MemoryError: {message}: {LESS_MEMORY}"
        is_intact = self._match(content, numbers)
        return content, "" if is_intact.all() else f"OSError: {self._altered(numbers[np.argmin(is_intact)])}"

    def _match(self, content, numbers):
        """Whether each block has its fingerprint, bool (k,)."""
        size = self.block_rows * self.row_bytes
        full = len(content) // size
        actual = tf.fingerprint(content[: full * size].reshape(full, size)).numpy()
        if full < len(numbers):
            actual = np.concatenate([actual, tf.fingerprint(content[None, full * size :]).numpy()])
        return (actual == self.fingerprints[numbers]).all(axis=1)

    def _read(self, numbers):
        locations = [self.location(number) for number in numbers.tolist()]
        content = _aligned(sum(rows for *_, rows in locations) * self.row_bytes)
        filled = 0
        for first in range(0, len(locations), AHEAD):
            with contextlib.ExitStack() as stack:
                opened = [self._open(stack, *location) for location in locations[first : first + AHEAD]]
                for file, start, size in opened:
                    file.seek(start)
                    if file.readinto(content[filled : filled + size].data) != size:
                        raise OSError(f"{file.name} is cut: found {file.tell()} bytes, expected {start + size}")
                    filled += size
        return content

    def _open(self, stack, path, first, rows):
        """(file, start, size) of a block in bytes. Asks the disk to read it ahead."""
        file = stack.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
        start, size = self.column["header_bytes"] + first * self.row_bytes, rows * self.row_bytes
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)
        return file, start, size

    def _altered(self, number):
        path, first, rows = self.location(int(number))
        altered = f"rows {first} to {first + rows - 1}, counted from 0, haven't their fingerprint"
        return f"{path} is altered: {altered}; {format.ADVICE}"


class StoredBlockReader(BlockReader):
    """Reads the blocks of a column from a `Store`, through its cache.

    Blocks that differ from their fingerprints, by a fault of the cache or on the way, are requested once more.
    """

    def _read(self, numbers):
        sizes = [rows * self.row_bytes for _, _, rows in map(self.location, numbers.tolist())]
        starts = np.cumsum([0, *sizes]).tolist()  # of the blocks within the content
        content = _aligned(starts[-1])
        cache, missing = self.path(0).store.cache, list(range(len(numbers)))
        if cache is not None:
            missing = []
            for place, number in enumerate(numbers.tolist()):
                kept = cache.get(self._key(number), sizes[place])
                if kept is None:
                    missing.append(place)
                else:
                    content[starts[place] : starts[place + 1]] = np.frombuffer(kept, np.uint8)
        self._request(numbers, missing, starts, content)
        wrong = np.flatnonzero(~self._match(content, numbers)).tolist()
        self._request(numbers, wrong, starts, content)
        if cache is not None:
            for place in wrong:
                cache.drop(self._key(numbers[place]))
            for place in {*missing, *wrong}:
                cache.put(self._key(numbers[place]), content[starts[place] : starts[place + 1]])
        return content

    def _request(self, numbers, places, starts, content):
        """Fills in the blocks numbers[places], of which neighbors come in one request."""
        for first in range(0, len(places), AHEAD):
            ranges, spans = [], []
            for place in places[first : first + AHEAD]:
                path: Any
                path, row, rows = self.location(int(numbers[place]))
                start = self.column["header_bytes"] + row * self.row_bytes
                stop = start + rows * self.row_bytes
                ends = (ranges[-1].file.name, ranges[-1].stop, spans[-1][1]) if ranges else None
                if ends == (path.name, start, place) and stop - ranges[-1].start <= REQUEST_BYTES:
                    ranges[-1], spans[-1] = ranges[-1]._replace(stop=stop), (spans[-1][0], place + 1)
                else:
                    ranges.append(stores.Range(path, start, stop, f"the block of row {row}, counted from 0,"))
                    spans.append((place, place + 1))
            for (begin, end), found in zip(spans, self.path(0).store.read(ranges), strict=True):
                if isinstance(found, OSError):
                    raise found
                content[starts[begin] : starts[end]] = np.frombuffer(found, np.uint8)

    def _key(self, number):
        return stores.BlockCache.key(*self.location(int(number)), self.fingerprints[int(number)].tobytes().hex())


def block_reader(directory: stores.Folder, split: str, column: str, layout: dict, fingerprints: Any) -> BlockReader:
    """The reader of a column in a local folder or at an address. The arguments are those of `BlockReader`."""
    kind = StoredBlockReader if isinstance(directory, stores.Store) else BlockReader
    return kind(directory, split, column, layout, fingerprints)


def numbers_ahead(count: int) -> list[np.ndarray]:
    """The numbers of `count` blocks, in pieces that are read at once."""
    return np.split(np.arange(count), range(AHEAD, count, AHEAD))


def _aligned(size):
    content = np.empty(size + ALIGNMENT, np.uint8)
    start = -content.ctypes.data % ALIGNMENT
    return content[start : start + size]
