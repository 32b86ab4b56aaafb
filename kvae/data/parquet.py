"""Streams from Parquet files."""

import os

import numpy as np
import tensorflow as tf

from kvae.data.decoding import Decoder, validate_size
from kvae.data.files import from_blocks, import_extra, validate_file, validate_names
from kvae.data.stream import Stream


def from_parquet(
    path: str | os.PathLike,
    column: str,
    batch_size: int = 128,
    *,
    labels: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    shuffle: int = 0,
    seed: int | None = 0,
    part: str | None = None,
    validation: float = 0.1,
) -> Stream:
    """A Stream of a column of a Parquet file. Some of its row groups are in memory at once.

    Args:
        path: the file.
        column: name of a column. It holds numbers, (nested) lists of one length, or encoded images: binary, or a
            struct with a field "bytes", as Hugging Face writes them.
        batch_size: int. Default 128.
        labels: name of a column of numbers, for batches (x, y).
        size, channels: as for `from_folder`, of encoded images.
        shuffle, seed, part, validation: as for `from_npy`; the buffer holds whole row groups.

    Raises:
        ImportError: without pyarrow.
        KeyError: for a column that the file doesn't hold.
        OSError: without such a file.
        TypeError: for a name that is no text.
        ValueError: for files of another kind, and for columns of other kinds or without rows; within `clear_errors`,
            for images of several shapes.
    """
    parquet = import_extra("pyarrow.parquet")
    validate_size(size, channels)
    columns = validate_names({"column": column, **({} if labels is None else {"labels": labels})})
    path = validate_file(path)

    def opened():
        try:
            return parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing") from None
            message = " ".join(str(error).split())
            raise ValueError(
                f"{path} can't be read as a Parquet file, it is cut or of another kind: {message}"
            ) from None

    file = opened()
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise KeyError(f"{path} holds no column {missing[0]!r}: found {file.schema_arrow.names}")
    sizes = {i: file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)}
    groups = [i for i, rows in sizes.items() if rows]
    if not groups:
        raise ValueError(f"{path} holds no rows, expected at least one")
    names = [f"{path}'s column {name!r}" for name in columns]

    def read(numbers):
        table = opened().read_row_groups([groups[i] for i in numbers], columns=columns)
        return [_column(table[column].combine_chunks(), name) for column, name in zip(columns, names, strict=True)]

    first = read([0])
    stream = from_blocks(read, [sizes[i] for i in groups], first, names, batch_size, shuffle, seed, (part, validation))
    if first[0].dtype != object:
        return stream
    decode = Decoder(first[0][0], tf.identity, lambda file: f"an image of {len(file)} bytes in {path}", size, channels)
    files = stream if labels else stream.map(lambda file: (file,))
    return files._each_epoch(decode)


def _column(array, name):
    """An array of pyarrow as numpy: numbers (n, ...), or bytes as objects (n,)."""
    shape = [len(array)]
    _check_complete(array, name)
    if hasattr(array.type, "names") and "bytes" in array.type.names:
        array = array.field("bytes")
        _check_complete(array, name)
    while hasattr(array.type, "value_type"):
        lengths = np.unique(array.value_lengths()) if hasattr(array, "value_lengths") else [array.type.list_size]
        if len(lengths) > 1:
            raise ValueError(f"{name} has lists of several lengths: from {lengths[0]} to {lengths[-1]}")
        if not lengths[0]:
            raise ValueError(f"{name} has empty lists, expected at least one number in each")
        shape.append(int(lengths[0]))
        array = array.flatten()
        _check_complete(array, name)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "buif" and not isinstance(values[0], bytes):
        raise ValueError(f"{name} has the type {array.type}, expected numbers, lists of numbers or encoded images")
    return values.reshape(shape)


def _check_complete(array, name):
    if array.null_count:
        raise ValueError(f"{name} has {array.null_count} missing values: fill them, or leave those rows out")
