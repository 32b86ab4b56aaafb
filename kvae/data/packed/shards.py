"""Writes a column of packed data as `.npy` shards, or compares it with the shards of an unfinished pack."""

import contextlib
import functools
import hashlib
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import files
from kvae.data.packed import format

Rows = dict[str, np.ndarray]


def new_layout(batch: Rows, shard_bytes: int, block_bytes: int) -> dict[str, Any]:
    """The manifest's entry for a new split with `batch` as its first batch."""
    columns = {}
    for name, values in batch.items():
        validate_name("column", name)
        if values.dtype.kind not in "biuf" or not values.ndim or 0 in values.shape[1:]:
            raise TypeError(f"{name} is {values.dtype} of shape {values.shape}, expected numbers of shape (n, ...)")
        dtype, shape = values.dtype.newbyteorder("<"), list(values.shape[1:])
        header_bytes = len(format.npy_header(dtype, (0, *shape)))
        columns[name] = {"dtype": dtype.str, "shape": shape, "header_bytes": header_bytes, "shards": []}
    row_bytes = max(format.row_bytes(column) for column in columns.values())
    block_rows = max(1, block_bytes // row_bytes)
    shard_rows = max(1, shard_bytes // (row_bytes * block_rows)) * block_rows
    return {"rows": 0, "block_rows": block_rows, "shard_rows": shard_rows, "complete": False, "columns": columns}


def describe_layout(layout: dict[str, Any]) -> str:
    columns = {name: f"{column['dtype']} {tuple(column['shape'])}" for name, column in layout["columns"].items()}
    return f"{columns} in shards of {layout['shard_rows']} rows and blocks of {layout['block_rows']}"


def validate_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise ValueError(f"a {kind} is named {name!r}, expected letters, digits and underscores")


def other_data_error(directory, found, expected) -> ValueError:
    return ValueError(
        f"{directory} holds an unfinished pack of other data: found {found}, expected {expected}; give another "
        "folder, or delete that one"
    )


def cut_into_blocks(batches: Iterable[Rows], layout: dict[str, Any]) -> Iterator[Rows]:
    """Yields the rows of the batches in blocks {column: array}. Every block reuses the memory of the one before."""
    columns, block_rows = layout["columns"], layout["block_rows"]
    block = {name: np.empty((block_rows, *column["shape"]), column["dtype"]) for name, column in columns.items()}
    filled = 0
    for batch in batches:
        length = _batch_length(batch, columns)
        start = 0
        while start < length:
            stop = min(length, start + block_rows - filled)
            for name, values in batch.items():
                block[name][filled : filled + stop - start] = values[start:stop]
            filled, start = filled + stop - start, stop
            if filled == block_rows:
                yield block
                filled = 0
    if filled:
        yield {name: values[:filled] for name, values in block.items()}


def _batch_length(batch, columns):
    """The number of rows. Raises ValueError unless the columns are those of the first batch, of equal length."""
    actual = {name: (values.dtype.newbyteorder("<").str, list(values.shape[1:])) for name, values in batch.items()}
    expected = {name: (column["dtype"], column["shape"]) for name, column in columns.items()}
    lengths = {len(values) for values in batch.values()}
    if actual != expected or len(lengths) != 1:
        shapes = {name: (values.dtype.str, values.shape) for name, values in batch.items()}
        raise ValueError(f"found a batch of {shapes}, expected n rows of {expected} as in the first")
    return lengths.pop()


class ShardWriter:
    """Takes the blocks of one column. Compares them with the shards on disk, then writes the rest as new shards.

    A context manager. On an exception it deletes the unfinished shard.

    Args:
        directory: the folder.
        split: name of the split.
        column: name of the column.
        layout: the manifest's entry for the split. Each new shard is added to it once the shard is on the disk. A
            complete split accepts no new shards.
    """

    def __init__(self, directory: pathlib.Path, split: str, column: str, layout: dict[str, Any]):
        self.directory, self.path = directory, functools.partial(format.shard_path, directory, split, column)
        self.column, self.shard_rows = layout["columns"][column], layout["shard_rows"]
        self.is_complete = layout["complete"]
        self.number = self.rows = 0  # of the current shard
        self.fingerprints, self.expected, self.file = [], [], None
        self._unfinished = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return self._unfinished.__exit__(*exception)

    def add(self, block: np.ndarray) -> bool:
        """Takes a block. Returns whether it completed a new shard."""
        if not self.rows:
            self._start_shard()
        fingerprint = tf.fingerprint(block.reshape(1, -1).view(np.uint8)).numpy().tobytes()
        index = len(self.fingerprints)
        if self.file:
            self.file.write(block.data)
        elif self.expected[index : index + 1] != [fingerprint]:
            raise other_data_error(
                self.directory,
                f"other rows in block {index} of {self.path(self.number).name}",
                "this stream's, whose order may be one that doesn't repeat (tf.data's shuffle draws another each time)",
            )
        self.fingerprints.append(fingerprint)
        self.rows += len(block)
        return self.rows == self.shard_rows and self._finish_shard()

    def end(self) -> None:
        """Finishes the last shard. Deletes further shards of a killed pack. The manifest doesn't list them."""
        if self.rows:
            self._finish_shard()
        if self.number < len(self.column["shards"]):
            name = self.path(self.number).name
            raise other_data_error(self.directory, f"rows in {name}", "none, as this stream has ended")
        number = self.number
        while self.path(number).exists():
            self.path(number).unlink()
            number += 1

    def _start_shard(self):
        if self.number < len(self.column["shards"]):
            with open(self.path(self.number), "rb") as file:
                file.seek(self._end_of_rows(self.column["shards"][self.number]["rows"]))
                self.expected = [fingerprint.tobytes() for fingerprint in np.load(file)]
        elif self.is_complete:
            name = self.path(self.number).name
            raise other_data_error(self.directory, f"no {name}", "this stream's further rows")
        else:
            self.file = self._unfinished.enter_context(files.atomic_write(self.path(self.number)))
            self.file.seek(self._end_of_rows(0))

    def _end_of_rows(self, rows):
        return self.column["header_bytes"] + rows * format.row_bytes(self.column)

    def _finish_shard(self):
        is_new = self.file is not None
        if self.file is not None:
            shard = self._write_frame(self.file)
            self._unfinished.close()
            self.column["shards"].append(shard)
        elif len(self.fingerprints) != len(self.expected):
            found = f"{len(self.expected)} blocks in {self.path(self.number).name}"
            raise other_data_error(self.directory, found, f"this stream's {len(self.fingerprints)}")
        self.number += 1
        self.rows, self.fingerprints, self.file = 0, [], None
        return is_new

    def _write_frame(self, file):
        """Writes the header and the fingerprints. Returns the manifest's entry for the shard."""
        start = format.npy_header(self.column["dtype"], (self.rows, *self.column["shape"]))
        end = format.npy_header("<u8", (len(self.fingerprints),)) + b"".join(self.fingerprints)
        file.write(end)
        size = file.tell()
        file.seek(0)
        file.write(start)
        file.seek(0)
        return {
            "rows": self.rows,
            "bytes": size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            "frame_sha256": hashlib.sha256(start + end).hexdigest(),
        }
