"""Streams from what users have: a folder of images, and rows of .npy, HDF5 and Parquet files."""

import importlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from kvae.data import validation
from kvae.data.decoding import Decoder
from kvae.data.stream import Stream, resolve_seed, shard_size

BLOCK_BYTES = 2**20
BLOCKS = 16  # that make up a shuffling pool, so that neighbours in the file don't stay neighbours
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def from_folder(path, batch_size=128, *, size=None, channels=None, labels=False, shuffle=0, seed=0):
    """A Stream of the images in a folder and the folders in it, batches (n, height, width, channels) of uint8.

    size: (height, width) to which all are resized; None where they have one size. channels: 1, 3 or 4, to which all
        are converted; None where they have as many.
    labels: True for (x, y), where y (int64) numbers the folders directly in `path` by their names' order.
    shuffle: images in the shuffling pool; as it holds names alone, any number means all of them, in another order in
        each epoch. 0 keeps that of their paths.
    seed: of that order; None draws one.

    Raises OSError where there is no such folder, ValueError where it holds no image and, within `clear_errors`,
    OSError once a file is read that can't be decoded and ValueError for an image whose shape is not the first one's.
    """
    validation.validate_batch_size(batch_size)
    validation.validate_shuffle(shuffle)
    path = pathlib.Path(path)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = [file for file in files if not labels or file.parent != path]
    if not files:
        where = "folders in it" if labels else "folder"
        raise ValueError(f"{path} holds no images: expected files that end in {', '.join(SUFFIXES)} in the {where}")
    names = np.array([str(file) for file in files])
    folders = [file.relative_to(path).parts[0] for file in files]
    numbers = np.unique(folders, return_inverse=True)[1].astype(np.int64)
    decode = Decoder(tf.constant(names[0]), tf.io.read_file, os.fsdecode, size, channels)

    def batches(epoch, skip, shard_index, num_shards):
        shard_size(batch_size, num_shards)
        rows = tf.range(len(names), dtype=tf.int64)
        rows = tf.random.experimental.stateless_shuffle(rows, [seed, epoch]) if shuffle else rows
        columns = (names, numbers) if labels else (names,)

        def batch(number):
            chosen = rows[number * batch_size : (number + 1) * batch_size][shard_index::num_shards]
            return tuple(tf.gather(column, chosen) for column in columns)

        # Batches are numbered, as what a dataset begins with is what tf.data service deals out to its workers.
        return decode(tf.data.Dataset.range(skip, steps).map(batch)).prefetch(2)

    seed, steps = resolve_seed(seed, shuffle), -(-len(names) // batch_size)
    return Stream(tf.autograph.experimental.do_not_convert(batches), steps, seed)


def from_npy(path, batch_size=128, *, labels=None, shuffle=0, seed=0):
    """A Stream of the rows of a .npy file, of which no more than a block is in memory at once.

    labels: a second .npy file with as many rows, for (x, y).
    shuffle: rows in the shuffling pool, which is made of blocks from all over the file; 0 keeps the file's order.
    seed: of that order; None draws one.

    Raises OSError where there is no such file, ValueError for files that are not .npy or have other rows than images
    can be made of.
    """
    paths = [path] if labels is None else [path, labels]
    return _from_arrays(
        lambda rows: [_mapped(file)[rows] for file in paths],
        [_mapped(file) for file in paths],
        paths,
        batch_size,
        shuffle,
        seed,
    )


def from_hdf5(path, dataset, batch_size=128, *, labels=None, shuffle=0, seed=0):
    """A Stream of the rows of a dataset in an HDF5 file, of which no more than a block is in memory at once.

    dataset, labels: names in the file; the second, with as many rows, is for (x, y). shuffle, seed: as for
    `from_npy`. Raises OSError where there is no such file, KeyError for a name that it doesn't hold, ValueError for
    rows that images can't be made of.
    """
    h5py = _imported("h5py", "hdf5")
    names = [dataset] if labels is None else [dataset, labels]
    with h5py.File(path, "r") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        missing = [name for name in names if name.strip("/") not in found]
        if missing:
            raise KeyError(f"{path} holds no dataset {missing[0]!r}: found {found}")
        arrays = [file[name] for name in names]

        def read(rows):
            with h5py.File(path, "r") as file:
                return [file[name][rows] for name in names]

        return _from_arrays(read, arrays, [f"{path}[{name!r}]" for name in names], batch_size, shuffle, seed)


def from_parquet(path, column, batch_size=128, *, labels=None, size=None, channels=None, shuffle=0, seed=0):
    """A Stream of a column of a Parquet file, read by its row groups, of which some are in memory at once.

    column: numbers, lists (of lists) of them, all of one length, or encoded images (binary, or a struct whose field
        "bytes" is that, as Hugging Face writes), which are decoded as `from_folder` does by size and channels.
    labels: a column of numbers, for (x, y). shuffle, seed: as for `from_npy`, of whole row groups.

    Raises OSError where there is no such file, KeyError for a column that it doesn't hold, ValueError for columns of
    other kinds or without rows and, within `clear_errors`, for images of several shapes; ImportError without pyarrow.
    """
    parquet = _imported("pyarrow.parquet", "parquet")
    columns = [column] if labels is None else [column, labels]
    file = parquet.ParquetFile(path)
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise KeyError(f"{path} holds no column {missing[0]!r}: found {file.schema_arrow.names}")
    sizes = {i: file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)}
    groups = [i for i, rows in sizes.items() if rows]
    if not groups:
        raise ValueError(f"{path} holds no rows, expected at least one")
    names = [f"{path}'s column {name!r}" for name in columns]

    def read(numbers):
        table = parquet.ParquetFile(path).read_row_groups([groups[i] for i in numbers], columns=columns)
        return [_column(table[column].combine_chunks(), name) for column, name in zip(columns, names, strict=True)]

    first = read([0])
    stream = _stream(read, [sizes[i] for i in groups], first, names, batch_size, shuffle, seed)
    if first[0].dtype != object:
        return stream
    decode = Decoder(first[0][0], tf.identity, lambda file: f"an image of {len(file)} bytes in {path}", size, channels)
    files = stream if labels else stream.map(lambda file: (file,))
    return files._each_epoch(decode)


def _imported(module, extra):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{module} is missing: install it with pip install 'keras-vae[{extra}]'") from None


def _mapped(path):
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} can't be read as a .npy file, it is cut or of another kind: {error}") from None


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
        shape.append(int(lengths[0]))
        array = array.flatten()
        _check_complete(array, name)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object and not isinstance(values[0], bytes):
        raise ValueError(f"{name} has the type {array.type}, expected numbers, lists of numbers or encoded images")
    return values.reshape(shape)


def _check_complete(array, name):
    if array.null_count:
        raise ValueError(f"{name} has {array.null_count} missing values: fill them, or leave those rows out")


def _from_arrays(read, arrays, names, batch_size, shuffle, seed):
    validation.validate_shuffle(shuffle)
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
    chunk = (getattr(arrays[0], "chunks", None) or [1])[0]  # of HDF5, which reads and inflates no less
    rows = max(1, rows // chunk) * chunk
    starts = range(0, lengths[0], rows)

    def read_blocks(blocks):
        parts = [read(slice(starts[i], starts[i] + rows)) for i in blocks]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    sizes = [min(rows, lengths[0] - start) for start in starts]
    return _stream(read_blocks, sizes, read(slice(0, 1)), names, batch_size, shuffle, seed)


def _stream(read, sizes, example, names, batch_size, shuffle, seed):
    """The Stream of the rows that read([block, ...]) gives as a list of arrays like those of `example`.

    sizes: the rows of each block. names: what errors call the arrays.
    """
    validation.validate_batch_size(batch_size)
    validation.validate_shuffle(shuffle)
    seed = resolve_seed(seed, shuffle)
    together = max(1, shuffle // max(sizes))

    def rows(number, blocks, epoch):
        types = [tf.string if a.dtype == object else tf.as_dtype(a.dtype.newbyteorder("=")) for a in example]
        *arrays, words = tf.numpy_function(found, [blocks], [*types, tf.string])
        with tf.control_dependencies([tf.debugging.Assert(words == "", [words])]):
            arrays = [tf.ensure_shape(array, (None, *a.shape[1:])) for array, a in zip(arrays, example, strict=True)]
        if shuffle:
            seeds = tf.random.experimental.stateless_fold_in(tf.stack([seed, epoch]), number)
            index = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(arrays[0])[0]), seeds)
            arrays = [tf.gather(array, index) for array in arrays]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    def found(blocks):
        """The blocks' rows, and what is wrong with them or nothing."""
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
        shard_size(batch_size, num_shards)
        blocks = tf.range(len(sizes), dtype=tf.int64)
        blocks = tf.random.experimental.stateless_shuffle(blocks, [seed, epoch]) if shuffle else blocks
        pools = tf.data.Dataset.from_tensor_slices(blocks).batch(together).enumerate()
        whole = pools.map(lambda number, blocks: rows(number, blocks, epoch)).rebatch(batch_size).skip(skip)
        shard = whole.map(lambda *batch: tf.nest.map_structure(lambda x: x[shard_index::num_shards], batch))
        return (shard if len(example) > 1 else shard.map(lambda x: x)).prefetch(2)

    return Stream(tf.autograph.experimental.do_not_convert(batches), -(-sum(sizes) // batch_size), seed)
