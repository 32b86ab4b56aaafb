"""A column of arrays as `.npy` shards: how it is laid out, cut into blocks, compared and written."""

import contextlib
import functools
import hashlib
import re

import numpy as np
import tensorflow as tf

from kvae import files
from kvae.data.packed import format


def layout(batch, shard_bytes, block_bytes):
    """What the manifest says of a split whose first batch this is."""
    columns = {}
    for column, values in batch.items():
        check_name("column", column)
        if values.dtype.kind not in "biuf" or not values.ndim or 0 in values.shape[1:]:
            raise TypeError(f"{column} is {values.dtype} of shape {values.shape}, expected numbers of shape (n, ...)")
        dtype, shape = values.dtype.newbyteorder("<"), list(values.shape[1:])
        start = len(format.header(dtype, (0, *shape)))
        columns[column] = {"dtype": dtype.str, "shape": shape, "header_bytes": start, "shards": []}
    size = max(format.row_bytes(column) for column in columns.values())
    block = max(1, block_bytes // size)
    shard = max(1, shard_bytes // (size * block)) * block
    return {"rows": 0, "block_rows": block, "shard_rows": shard, "complete": False, "columns": columns}


def described(split):
    columns = {name: f"{column['dtype']} {tuple(column['shape'])}" for name, column in split["columns"].items()}
    return f"{columns} in shards of {split['shard_rows']} rows and blocks of {split['block_rows']}"


def blocks(batches, split):
    """The rows of the batches in blocks {column: array}, whose memory each next one takes."""
    columns, rows = split["columns"], split["block_rows"]
    block = {name: np.empty((rows, *like["shape"]), like["dtype"]) for name, like in columns.items()}
    filled = 0
    for batch in batches:
        length = _length(batch, columns)
        start = 0
        while start < length:
            stop = min(length, start + rows - filled)
            for name, values in batch.items():
                block[name][filled : filled + stop - start] = values[start:stop]
            filled, start = filled + stop - start, stop
            if filled == rows:
                yield block
                filled = 0
    if filled:
        yield {name: values[:filled] for name, values in block.items()}


def _length(batch, columns):
    found = {name: (values.dtype.newbyteorder("<").str, list(values.shape[1:])) for name, values in batch.items()}
    expected = {name: (like["dtype"], like["shape"]) for name, like in columns.items()}
    lengths = {len(values) for values in batch.values()}
    if found != expected or len(lengths) != 1:
        shapes = {name: (values.dtype.str, values.shape) for name, values in batch.items()}
        raise ValueError(f"found a batch of {shapes}, expected n rows of {expected} as in the first")
    return lengths.pop()


class ShardWriter:
    """Takes a column's blocks: compares them with the shards that are there, and writes the rest as new ones.

    split: what the manifest says of its split, to which new shards are added once they are on the disk; to a complete
    one none is. A context, whose end by an exception takes the unfinished shard away.
    """

    def __init__(self, directory, split_name, name, split):
        self.directory, self.path = directory, functools.partial(format.shard_path, directory, split_name, name)
        self.column, self.shard_rows, self.number = split["columns"][name], split["shard_rows"], 0
        self.complete = split["complete"]
        self.rows, self.fingerprints = 0, []
        self.written = self.file = None
        self.unfinished = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return self.unfinished.__exit__(*exception)

    def add(self, values):
        """Take a block; whether a new shard came to its end."""
        if not self.rows:
            self._begin()
        fingerprint = tf.fingerprint(values.reshape(1, -1).view(np.uint8)).numpy().tobytes()
        index = len(self.fingerprints)
        if self.file:
            self.file.write(values.data)
        elif self.written[index : index + 1] != [fingerprint]:
            raise other(
                self.directory,
                f"other rows in block {index} of {self.path(self.number).name}",
                "this stream's, whose order may be one that doesn't repeat (tf.data's shuffle draws another each time)",
            )
        self.fingerprints.append(fingerprint)
        self.rows += len(values)
        return self.rows == self.shard_rows and self._finish()

    def end(self):
        """Finish the last shard, and take those away that a killed pack left and no manifest speaks of."""
        if self.rows:
            self._finish()
        if self.number < len(self.column["shards"]):
            raise other(self.directory, f"rows in {self.path(self.number).name}", "none, as this stream has ended")
        number = self.number
        while self.path(number).exists():
            self.path(number).unlink()
            number += 1

    def _begin(self):
        if self.number < len(self.column["shards"]):
            with open(self.path(self.number), "rb") as file:
                file.seek(self._end_of_rows(self.column["shards"][self.number]["rows"]))
                self.written = [fingerprint.tobytes() for fingerprint in np.load(file)]
        elif self.complete:
            raise other(self.directory, f"no {self.path(self.number).name}", "this stream's further rows")
        else:
            self.file = self.unfinished.enter_context(files.atomic_write(self.path(self.number)))
            self.file.seek(self._end_of_rows(0))

    def _end_of_rows(self, rows):
        return self.column["header_bytes"] + rows * format.row_bytes(self.column)

    def _finish(self):
        new = self.file is not None
        if new:
            shard = self._write_frame()
            self.unfinished.close()
            self.column["shards"].append(shard)
        elif len(self.fingerprints) != len(self.written):
            found = f"{len(self.written)} blocks in {self.path(self.number).name}"
            raise other(self.directory, found, f"this stream's {len(self.fingerprints)}")
        self.number += 1
        self.rows, self.fingerprints, self.file = 0, [], None
        return new

    def _write_frame(self):
        """Write what stands ahead of the rows and behind them; what the manifest says of the shard."""
        start = format.header(self.column["dtype"], (self.rows, *self.column["shape"]))
        end = format.header("<u8", (len(self.fingerprints),)) + b"".join(self.fingerprints)
        self.file.write(end)
        size = self.file.tell()
        self.file.seek(0)
        self.file.write(start)
        self.file.seek(0)
        return {
            "rows": self.rows,
            "bytes": size,
            "sha256": hashlib.file_digest(self.file, "sha256").hexdigest(),
            "frame_sha256": hashlib.sha256(start + end).hexdigest(),
        }


def check_name(kind, name):
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise ValueError(f"a {kind} is named {name!r}, expected letters, digits and underscores")


def other(directory, found, expected):
    return ValueError(
        f"{directory} holds an unfinished pack of other data: found {found}, expected {expected}; give another "
        "folder, or delete that one"
    )
