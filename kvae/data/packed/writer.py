"""Writes any stream once to a folder. `load` reads it in blocks, with nothing left to decode."""

import contextlib
import importlib.metadata
import itertools
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import arguments, files
from kvae.columns import Columns
from kvae.data import arrays, elements, errors, provenance, validation
from kvae.data.packed import format, shards
from kvae.data.progress import bar
from kvae.data.stream import Stream

SHARD_BYTES = 2**28
BLOCK_BYTES = 2**18
SPLITS = ("train", "validation", "test")


def pack(
    dataset: Any,
    directory: str | os.PathLike[str],
    *,
    source: Any = None,
    license: str | None = None,
    progress: bool | None = None,
    licence: str | None = None,
    missing: bool = False,
) -> None:
    """Writes `dataset` once to a folder for `kvae.data.load`.

    If the process is killed, call `pack` again with the same arguments: it compares the shards on disk with the
    stream and continues behind them. Memory holds one batch, and one block of 256 KB of each column.

    Args:
        dataset: a stream of batches, or arrays, of x, (x, y), (x, {name: y}) or tfds dicts {"image": x, name: y}. Or
            the tuple (train, validation, test) from `load`. Or a mapping from these names to streams or arrays, with
            "train" at least. A `Stream` gives its epoch 0. x becomes the column "image", a single y the column
            "label", or its name in the table of `from_table`. Dtypes stay, except that x of float64 or bfloat16 becomes
            float32. uint8 means 0 to 255.
        directory: a new or empty local folder; upload it from there to other places. It gets manifest.json, and for
            each split and column `.npy` shards of about 256 MB with the rows in order, followed by a fingerprint of
            each 256 KB.
        source: text or tfds builder, the origin of the data. The manifest keeps the name, version,
            homepage, citation and license of a builder. Default None: the source in the provenance of all the Streams.
        license: text. Default None: the license of the source.
        progress: bool, whether to show a bar. Default None: only on a terminal and in a notebook.
        licence: old name of license.
        missing: bool, whether NaN in x means "not observed". Default False, except for a stream of `from_table`.

    Raises:
        ValueError: if the data can't be packed, or the folder holds an unfinished pack of other data.
        TypeError: if a column isn't a tensor of numbers.
        FileExistsError: if the folder holds a finished pack or other files, or another process is packing into it.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> images, digits = np.zeros((100, 28, 28, 1), "uint8"), np.arange(100) % 10
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kvae.data.pack((images, digits), folder, license="CC0")
    ...     train, validation, test = kvae.data.load(folder, batch_size=40, labels="label")
    ...     [x.shape[0] for x, y in train]
    [40, 40]
    """
    license = arguments.renamed("licence", licence, "license", license)
    if not isinstance(license, str | None):
        raise TypeError(f"license is {license!r}; expected a text, or None.")
    if not isinstance(source, str | Mapping | None) and not hasattr(source, "info"):
        raise TypeError(f"source is {source!r}; expected a text, a tfds builder, or None.")
    if isinstance(source, Mapping):
        try:
            json.dumps(dict(source))
        except TypeError as error:
            raise TypeError(f"source is a dict that JSON can't hold ({error}); expected texts and numbers.") from None
    if progress is not None:
        arguments.boolean("progress", progress)
    arguments.path("directory", directory)
    arguments.boolean("missing", missing)
    datasets = _splits(dataset)
    info = getattr(source, "info", None)
    if info is not None:
        known_source, known_license = provenance.tfds_source(info)
    else:
        known_source, known_license = _common_provenance(datasets.values())
        known_source = source or known_source
    _validate_class_names(datasets)
    columns = _table_columns(datasets)
    with errors.clear_errors():
        splits = {name: _columns(data, name, missing) for name, data in datasets.items()}
        license = license or known_license
        write_columns(splits, directory, source=known_source, license=license, progress=progress, table=columns)


def _validate_class_names(datasets):
    """Raises ValueError if a number means one class in a split and another class in another."""
    known = {name: data.class_names for name, data in datasets.items() if getattr(data, "class_names", None)}
    if len(set(known.values())) > 1:
        raise ValueError(
            f"the splits number other classes, {', '.join(f'{name} {list(names)}' for name, names in known.items())}: "
            "give all of them the class_names of one"
        )


def _table_columns(datasets):
    """The `Columns` of a table's streams, or None. Raises ValueError if the splits read their values differently."""
    known = {name: getattr(data, "columns", None) for name, data in datasets.items()}
    known = {name: columns for name, columns in known.items() if isinstance(columns, Columns)}
    first = next(iter(known.values()), None)
    other = next((name for name, columns in known.items() if columns != first), None)
    if other is not None:
        raise ValueError(
            f"{other} was read with other columns than {next(iter(known))}: give columns=train.columns to from_table"
        )
    return first


def _common_provenance(datasets):
    """(source, license) if all Streams name the same ones, else (None, None)."""
    known = [data.provenance if isinstance(data, Stream) else None for data in datasets]
    pairs = [(each.source, each.license) if each else (None, None) for each in known]
    return pairs[0] if all(pair == pairs[0] for pair in pairs) else (None, None)


def _splits(dataset):
    """{"train": data, ...}, without missing splits."""
    is_sequence = isinstance(dataset, tuple | list)
    if isinstance(dataset, Mapping) and "image" not in dataset:
        splits = dict(dataset)
    elif is_sequence and all(data is None or isinstance(data, tf.data.Dataset) for data in dataset):
        if len(dataset) != len(SPLITS):
            raise ValueError(
                f"found {len(dataset)} streams, expected (train, validation, test) as `load` gives, with None for what "
                'there isn\'t, or a mapping such as {"train": train, "test": test}'
            )
        splits = dict(zip(SPLITS, dataset, strict=True))
    else:
        splits = {"train": dataset}
    splits = {name: data for name, data in splits.items() if data is not None}
    if "train" not in splits or splits.keys() - set(SPLITS):
        raise ValueError(
            f'found the splits {list(splits)}, expected "train" and, where there are any, "validation" and "test": '
            "`load` reads no others"
        )
    return splits


def _columns(data, name, missing):
    """The validated dataset of batches {column: array} of one split."""
    table = getattr(data, "columns", None)
    is_table = isinstance(table, Columns)  # its values are checked when they are read, and NaN is a missing one
    if not is_table:
        validation.validate_first_batch(data, name=name, missing=missing)
    validation.image_shape(data)
    batches = data.epoch(0) if isinstance(data, Stream) else arrays.batches(data)
    y_name = table.labels[0].name if is_table and table.labels else "label"

    @tf.autograph.experimental.do_not_convert
    def to_columns(*element):
        if len(element) > 2:
            raise ValueError(f'{name} has sample weights: give them as a column, (x, {{"label": y, "weight": w}})')
        x, y = (*element, None)[:2]
        columns = {"image": elements.unpack(element)[0], **(x if isinstance(x, Mapping) else {})}
        labels = y if isinstance(y, Mapping) else {} if y is None else {y_name: y}
        if twice := sorted(columns.keys() & labels.keys()):
            raise ValueError(f"{name} has labels named {twice}, as a column beside them is: rename them with map")
        columns.update(labels)
        if columns["image"].dtype in (tf.float64, tf.bfloat16):
            columns["image"] = _as_float32(columns["image"], name)
        for column, values in columns.items():
            if not isinstance(values, tf.Tensor) or values.dtype == tf.string:
                kind = "string" if isinstance(values, tf.Tensor) else type(values).__name__
                raise TypeError(f"{column} of {name} is {kind}, expected a tensor of numbers: leave it out with map")
        return columns

    return batches.map(to_columns)


def _as_float32(x, name):
    """x as float32. An assertion, a ValueError within `clear_errors`, fails if the cast makes a number infinite."""
    cast = tf.cast(x, "float32")
    overflow = tf.cast(tf.boolean_mask(x, tf.math.is_inf(cast) & ~tf.math.is_inf(x))[:1], "float64")
    value = tf.strings.reduce_join(tf.strings.as_string(overflow, shortest=True))
    advice = ", beyond float32, which float64 is packed as: scale the data"
    message = tf.strings.join([f"ValueError: the image of {name} holds the value ", value, advice])
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(tf.size(overflow), 0), [message])]):
        return tf.identity(cast)


def write_columns(
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    directory: str | os.PathLike[str],
    *,
    source: Any = None,
    license: str | None = None,
    progress: bool | int | None = None,
    shard_bytes: int = SHARD_BYTES,
    block_bytes: int = BLOCK_BYTES,
    table: Columns | None = None,
) -> None:
    """Writes columns of any names, as `pack` does. `load` returns the first column as x.

    Args:
        splits: {split: batches}, each batch a dict {column: array (n, ...)} with any n.
        directory, source, license, progress: as in `pack`.
        shard_bytes, block_bytes: sizes of a shard and of a block of the column with the largest rows.
        table: the columns of x, if the rows are a table's.
    """
    directory, is_new = files.absolute(directory, "directory"), not os.path.lexists(directory)
    advice = "make room and call again, which goes on behind the whole shards, or give another folder"
    with (
        files.explain_errors(directory, advice=advice),
        _removed_if_empty(files.make_folder(directory), is_new),
        files.lock(directory, f"another process is packing into {directory}: wait for its end"),
    ):
        manifest = new_manifest(directory, splits) or _unfinished_manifest(directory, splits)
        manifest.update(source=source, licence=license)  # spelled as in the first release, whose folders stay valid
        if table is not None:
            manifest["table"] = table.get_config()
        with format.ManifestSaver(directory, manifest) as saver:
            for name, batches in splits.items():
                _write_split(name, _with_bar(name, batches, progress), saver, shard_bytes, block_bytes)
            manifest["complete"] = True
            saver.save()


@contextlib.contextmanager
def _removed_if_empty(directory, is_new):
    try:
        yield
    except Exception:
        if is_new:
            with contextlib.suppress(OSError):  # of a folder that isn't empty
                directory.rmdir()
        raise


def _with_bar(name, batches, progress) -> Iterator[shards.Rows]:
    """Yields the batches as numpy arrays and shows their number."""
    progress_bar, number = bar(operator.length_hint(batches) or None, f"batch of {name}", progress), 0
    for number, batch in enumerate(batches, start=1):
        yield {column: np.asarray(values) for column, values in batch.items()}
        progress_bar.update(number, finalize=False)
    progress_bar.update(number, finalize=True)


def new_manifest(directory, splits):
    """A manifest without shards, or None if the folder has a manifest. Raises FileExistsError for other files."""
    for name in splits:
        shards.validate_name("split", name)
    if (directory / format.MANIFEST).exists():
        return None
    leftover = format.MANIFEST + files.PARTIAL
    names = sorted(path.name for path in directory.iterdir() if path.name != leftover and path.name[0] != ".")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise FileExistsError(f"{directory} holds {names[0]}{more}, and no pack: give a new or an empty folder")
    version = importlib.metadata.version("keras-vae")
    return {"format": format.FORMAT, "version": format.VERSION, "kvae": version, "complete": False, "splits": {}}


def _unfinished_manifest(directory, splits):
    """The validated manifest of an unfinished pack. Deletes its half-written files."""
    manifest = format.read_manifest(directory)
    if manifest["complete"]:
        raise FileExistsError(f"{directory} holds packed data already: load them, or give another folder")
    format.read_fingerprints(directory, manifest)
    if set(manifest["splits"]) - set(splits):
        raise shards.other_data_error(directory, f"the splits {list(manifest['splits'])}", list(splits))
    shard = rf"({'|'.join(splits)})-\w+-\d{{5,}}\.npy"
    for path in directory.glob(f"*{files.PARTIAL}"):
        if re.fullmatch(f"{shard}|{format.MANIFEST}", path.name.removesuffix(files.PARTIAL)):  # of 0.1.0
            path.unlink()
    files.remove_partial(directory)
    return manifest


def _write_split(name, batches, saver, shard_bytes, block_bytes):
    """Compares the split with its shards on disk, and writes the rest."""
    directory, first = saver.directory, next(batches, None)
    if first is None:
        raise ValueError(f"{name} is empty: its stream ended before the first batch")
    new_layout = shards.new_layout(first, shard_bytes, block_bytes)
    layout = saver.manifest["splits"].setdefault(name, new_layout)
    if layout is new_layout:
        saver.change()  # before the first shard: so a folder with shards and no manifest isn't a pack's
    expected = shards.describe_layout(new_layout)
    if (found := shards.describe_layout(layout)) != expected:
        raise shards.other_data_error(directory, f"{found} in {name}", expected)
    with contextlib.ExitStack() as stack:
        writers = {
            column: stack.enter_context(shards.ShardWriter(directory, name, column, layout))
            for column in layout["columns"]
        }
        for block in shards.cut_into_blocks(itertools.chain([first], batches), layout):
            if any([writers[column].add(rows) for column, rows in block.items()]):
                saver.change()
        for writer in writers.values():
            writer.end()
    if not layout["complete"]:
        rows = sum(shard["rows"] for shard in next(iter(layout["columns"].values()))["shards"])
        layout.update(rows=rows, complete=True)
        saver.change()
