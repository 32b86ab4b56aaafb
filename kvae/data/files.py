"""Streams from users' files: rows of .npy and HDF5 files. For images see `folder`, for Parquet `parquet`."""

import functools
import importlib
import os
import pathlib
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat, files
from kvae.data.elements import validate_batch_size, validate_shuffle
from kvae.data.splits import rows_of_part
from kvae.data.stream import Stream, resolve_seed, rows_of_shard

BLOCK_BYTES = 2**20
BLOCKS = 16  # of a shuffle buffer, so that neighbors in the file don't stay neighbors


def from_npy(
    path: str | os.PathLike,
    batch_size: int = 128,
    *,
    labels: str | os.PathLike | None = None,
    shuffle: int = 0,
    seed: int | None = 0,
    part: str | None = None,
    validation: float = 0.1,
) -> Stream:
    """A Stream of the rows of a .npy file. No more than some blocks of it are in memory at once.

    Args:
        path: the file.
        batch_size: int. Default 128.
        labels: a second .npy file with as many rows, for batches (x, y).
        shuffle: rows in the shuffle buffer. The buffer holds blocks from all over the file. 0 keeps the file's order.
        seed: int, decides on the order with the epoch; None draws one.
        part: None for all rows, or "train", "validation" or "test" for those of a part. The rows are drawn, by their
            number: every call draws the same, and so does `kvae.data.load` of the packed rows.
        validation: the share of the rows for validation; test has as many, and train the others. Default 0.1.

    Raises:
        OSError: without such a file.
        ValueError: for files of another kind, and for rows of other things than numbers.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.zeros((5, 2), "float32"))
    ...     [x.shape for x in kvae.data.from_npy(f"{folder}/x.npy", batch_size=3).as_numpy_iterator()]
    [(3, 2), (2, 2)]
    """
    given = {"path": path} if labels is None else {"path": path, "labels": labels}
    paths = [files.absolute(file, name) for name, file in given.items()]
    return _from_arrays(
        lambda rows: [_mapped(file)[rows] for file in paths],
        [_mapped(file) for file in paths],
        paths,
        batch_size,
        shuffle,
        seed,
        (part, validation),
    )


def from_hdf5(
    path: str | os.PathLike,
    dataset: str,
    batch_size: int = 128,
    *,
    labels: str | None = None,
    shuffle: int = 0,
    seed: int | None = 0,
    part: str | None = None,
    validation: float = 0.1,
) -> Stream:
    """A Stream of the rows of a dataset in an HDF5 file. No more than some blocks of it are in memory at once.

    Args:
        path: the file.
        dataset: name of the dataset in the file.
        batch_size: int. Default 128.
        labels: name of a dataset with as many rows, for batches (x, y).
        shuffle, seed, part, validation: as for `from_npy`.

    Raises:
        ImportError: without h5py.
        KeyError: for a name missing in the file.
        OSError: without such a file.
        TypeError: for a name that is no text.
        ValueError: for files of another kind, and for rows of other things than numbers.
    """
    h5py = import_extra("h5py")
    names = validate_names({"dataset": dataset, **({} if labels is None else {"labels": labels})})
    path = validate_file(path)

    def opened():
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing") from None
            raise OSError(f"{path} can't be read as an HDF5 file, it is cut or of another kind: {error}") from None

    with opened() as file:
        datasets = []
        file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        missing = [name for name in names if name.strip("/") not in datasets]
        if missing:
            raise KeyError(f"{path} holds no dataset {missing[0]!r}: found {datasets}")
        arrays = [file[name] for name in names]

        def read(rows):
            with opened() as file:
                return [file[name][rows] for name in names]

        return _from_arrays(
            read, arrays, [f"{path}[{name!r}]" for name in names], batch_size, shuffle, seed, (part, validation)
        )


def import_extra(module: str) -> ModuleType:
    """The module. Raises ImportError with the command to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        library = module.split(".")[0]
        raise ImportError(f"{library} is missing: install it with python -m pip install {library}") from None


def validate_file(path: str | os.PathLike) -> pathlib.Path:
    """The absolute path of a file. Raises ValueError for a folder, a pipe or a device, OSError if there is nothing."""
    with files.open_regular(path):
        return files.absolute(path)


def validate_names(names: dict[str, Any]) -> list[str]:
    """The names within a file, of {argument: name}. Raises TypeError for other things than text."""
    for argument, name in names.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} is {name!r}, expected a name in the file, a text")
    return list(names.values())


def _mapped(path):
    try:
        with files.open_regular(path):
            array = np.load(path, mmap_mode="r")
    except files.NotAFile:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, SyntaxError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} can't be read as a .npy file, it is cut or of another kind: {message}") from None
    if not isinstance(array, np.ndarray):
        with array:
            found = f"found a .npz file with the arrays {array.files}"
        raise ValueError(f"{path} can't be read as a .npy file: {found}, expected one array; save it with np.save")
    return array


def _from_arrays(read, arrays, names, batch_size, shuffle, seed, part):
    validate_shuffle(shuffle)
    for array, name in zip(arrays, names, strict=True):
        if not array.shape or array.dtype.kind not in "buif":
            raise ValueError(
                f"{name} has the shape {array.shape} and the dtype {array.dtype}, expected rows of numbers"
            )
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"{' and '.join(map(str, names))} have {lengths} rows, expected at least one, and as many")
    bytes_each = max(1, arrays[0].dtype.itemsize * int(np.prod(arrays[0].shape[1:])))
    rows = max(1, BLOCK_BYTES // bytes_each)
    rows = min(rows, max(1, shuffle // BLOCKS)) if shuffle else rows
    chunk = (getattr(arrays[0], "chunks", None) or [1])[0]  # HDF5 reads and inflates whole chunks
    rows = max(1, rows // chunk) * chunk
    starts = range(0, lengths[0], rows)

    def read_blocks(blocks):
        columns = zip(*(read(slice(starts[i], starts[i] + rows)) for i in blocks), strict=True)
        return [np.concatenate(column) for column in columns]

    sizes = [min(rows, lengths[0] - start) for start in starts]
    return from_blocks(read_blocks, sizes, read(slice(0, 1)), names, batch_size, shuffle, seed, part)


def _of_part(read, sizes, part, validation):
    """`read` and `sizes` of the rows of a part alone."""
    is_chosen = rows_of_part(sum(sizes), part, validation)
    if is_chosen is None:
        return read, sizes
    starts = np.cumsum(sizes) - sizes
    counts = np.add.reduceat(is_chosen.astype(int), starts)
    blocks = np.flatnonzero(counts)

    def read_part(numbers):
        chosen = blocks[numbers]
        index = np.concatenate([is_chosen[starts[i] : starts[i] + sizes[i]] for i in chosen])
        return [array[index] for array in read(chosen)]

    return read_part, counts[blocks].tolist()


def from_blocks(
    read: Callable[[np.ndarray], list[np.ndarray]],
    sizes: list[int],
    example: list[np.ndarray],
    names: list,
    batch_size: int,
    shuffle: int,
    seed: int | None,
    part: tuple[str | None, float] = (None, 0.1),
) -> Stream:
    """A Stream of rows, read by the block, shuffled by blocks and then within the shuffle buffer.

    Args:
        read: function from the numbers of some blocks to their rows, a list of arrays.
        sizes: the rows of each block.
        example: arrays with the dtypes and the shapes of the rows.
        names: the names of the arrays in errors.
        batch_size, shuffle, seed: as for `from_npy`.
        part: (part, validation) of `from_npy`.
    """
    validate_batch_size(batch_size)
    unshuffled = functools.partial(from_blocks, read, sizes, example, names, batch_size, 0, 0, part)
    read, sizes = _of_part(read, sizes, *part)
    validate_shuffle(shuffle)
    seed = resolve_seed(seed, shuffle)
    together = max(1, shuffle // max(sizes))

    def rows(number, blocks, epoch):
        types = [tf.string if a.dtype == object else tf.as_dtype(a.dtype.newbyteorder("=")) for a in example]
        *arrays, fault = _compat.numpy_function(attempt, [blocks], [*types, tf.string])
        with tf.control_dependencies([tf.debugging.Assert(fault == "", [fault])]):
            arrays = [tf.ensure_shape(array, (None, *a.shape[1:])) for array, a in zip(arrays, example, strict=True)]
        if shuffle:
            seeds = _compat.fold_in(tf.stack([seed, epoch]), number)
            index = _compat.stateless_shuffle(tf.range(tf.shape(arrays[0])[0]), seeds)
            arrays = [tf.gather(array, index) for array in arrays]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    def attempt(blocks):
        """The blocks' rows and an error message, empty if all is well."""
        try:
            arrays = read(blocks)
            for array, a, name in zip(arrays, example, names, strict=True):
                if array.shape[1:] != a.shape[1:]:
                    raise ValueError(f"{name} has rows of shape {array.shape[1:]}, expected {a.shape[1:]} as its first")
            return *map(native, arrays), ""
        except (OSError, ValueError) as error:
            kind = "OSError" if isinstance(error, OSError) else "ValueError"
            return *(native(a[:0]) for a in example), f"{kind}: {' '.join(str(error).split())}"

    def native(array):
        return array if array.dtype == object else array.astype(array.dtype.newbyteorder("="), copy=False)

    def batches(epoch, skip, shard_index, num_shards):
        blocks = tf.range(len(sizes), dtype=tf.int64)
        blocks = _compat.stateless_shuffle(blocks, [seed, epoch]) if shuffle else blocks
        pools = tf.data.Dataset.from_tensor_slices(blocks).batch(together).enumerate()
        whole = pools.map(lambda number, blocks: rows(number, blocks, epoch)).rebatch(batch_size).skip(skip)
        shard = whole.map(lambda *batch: rows_of_shard(batch, shard_index, num_shards))
        return (shard if len(example) > 1 else shard.map(lambda x: x)).prefetch(2)

    stream = Stream(tf.autograph.experimental.do_not_convert(batches), -(-sum(sizes) // batch_size), seed)
    if shuffle:
        stream._unshuffled = unshuffled
    return stream
