"""A column of packed data read in a graph, any blocks of rows at a time, each checked against its fingerprint."""

import contextlib
import functools
import os

import numpy as np
import tensorflow as tf

from kvae.data.errors import LESS_MEMORY
from kvae.data.packed import format

ALIGNMENT = 64  # bytes: TensorFlow copies arrays that aren't aligned
AHEAD = 64  # blocks asked of the disk at once


class BlockReader:
    """The blocks of one column of a split.

    Python reads them: TensorFlow's dataset of fixed-length records reads all that is ahead of a block, and its
    mapped constants are copied whole into memory where a graph is made of them.

    column: what the manifest says of it, as of split. fingerprints: of all blocks, uint8 (blocks, 8).
    """

    def __init__(self, directory, split_name, name, split, fingerprints):
        self.column, self.row_bytes = split["columns"][name], format.row_bytes(split["columns"][name])
        self.rows, self.block_rows, self.shard_rows = split["rows"], split["block_rows"], split["shard_rows"]
        self.fingerprints = fingerprints
        self.path = functools.partial(format.shard_path, directory, split_name, name)

    def read(self, numbers):
        """The rows of some blocks, a tensor (rows, *shape), in the order of their numbers.

        numbers: int64 (k,), counted through the split; its last block, which may be smaller, comes last. What isn't
        as it was written fails an assertion that `clear_errors` makes an OSError.
        """
        content, error = tf.numpy_function(self._checked, [numbers], [tf.uint8, tf.string])
        with tf.control_dependencies([tf.debugging.Assert(error == "", [error])]):
            return self._typed(tf.ensure_shape(content, [None]))

    def _typed(self, content):
        dtype = tf.as_dtype(np.dtype(self.column["dtype"]))
        if dtype == tf.bool:
            content = tf.cast(content, "bool")
        elif dtype != tf.uint8:
            content = tf.bitcast(tf.reshape(content, [-1, dtype.size] if dtype.size > 1 else [-1]), dtype)
        return tf.reshape(content, [-1, *self.column["shape"]])

    def _checked(self, numbers):
        """The blocks' bytes in one array, and what is wrong with them or nothing."""
        try:
            content = self._read(numbers)
        except OSError as error:
            return np.empty(0, np.uint8), f"OSError: {error}"
        except MemoryError:
            size = len(numbers) * self.block_rows * self.row_bytes
            words = f"no memory for a pool of {len(numbers)} blocks of {self.path(0).parent}, {size:,} bytes"
            return np.empty(0, np.uint8), f"MemoryError: {words}: {LESS_MEMORY}"
        same = self._same(content, numbers)
        return content, "" if same.all() else f"OSError: {self._altered(numbers[np.argmin(same)])}"

    def _same(self, content, numbers):
        size = self.block_rows * self.row_bytes
        full = len(content) // size
        found = tf.fingerprint(content[: full * size].reshape(full, size)).numpy()
        if full < len(numbers):
            found = np.concatenate([found, tf.fingerprint(content[None, full * size :]).numpy()])
        return (found == self.fingerprints[numbers]).all(axis=1)

    def faults(self, numbers):
        """(number, what is wrong with it) of those of the blocks, int64 (k,), that can't be read as they were."""
        try:
            same = self._same(self._read(numbers), numbers)
        except OSError as error:
            if len(numbers) == 1:
                return [(numbers[0], str(error))]
            return [fault for part in np.array_split(numbers, 2) for fault in self.faults(part)]
        return [(number, self._altered(number)) for number in numbers[~same]]

    def _read(self, numbers):
        places = [self.location(number) for number in numbers.tolist()]
        content = _aligned(sum(rows for *_, rows in places) * self.row_bytes)
        filled = 0
        for first in range(0, len(places), AHEAD):
            with contextlib.ExitStack() as stack:
                files = [self._open(stack, *place) for place in places[first : first + AHEAD]]
                for file, start, size in files:
                    file.seek(start)
                    if file.readinto(content[filled : filled + size]) != size:
                        raise OSError(f"{file.name} is cut: found {file.tell()} bytes, expected {start + size}")
                    filled += size
        return content

    def _open(self, stack, path, first, rows):
        """The shard's file, the block's place in it and its bytes, for which the disk is asked."""
        file = stack.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
        start, size = self.column["header_bytes"] + first * self.row_bytes, rows * self.row_bytes
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)
        return file, start, size

    def _altered(self, number):
        path, first, rows = self.location(int(number))
        altered = f"rows {first} to {first + rows - 1}, counted from 0, haven't their fingerprint"
        return f"{path} is altered: {altered}; {format.ADVICE}"

    def location(self, number):
        """The path of a block's shard, the block's first row in it, its rows."""
        row = number * self.block_rows
        shard, first = divmod(row, self.shard_rows)
        return self.path(shard), first, min(self.block_rows, self.rows - row)


def _aligned(size):
    content = np.empty(size + ALIGNMENT, np.uint8)
    start = -content.ctypes.data % ALIGNMENT
    return content[start : start + size]
