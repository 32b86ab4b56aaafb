"""Any stream written once to a folder from which `load` reads it in blocks, with nothing left to decode."""

import contextlib
import importlib.metadata
import itertools
import math
import operator
import pathlib
import re
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kvae import files
from kvae.data import arrays, elements, errors, provenance, validation
from kvae.data.packed import format, shards
from kvae.data.progress import bar
from kvae.data.stream import Stream

SHARD_BYTES = 2**28
BLOCK_BYTES = 2**18
PAUSE = 10  # times what a save took, until the next
SPLITS = ("train", "validation", "test")


def pack(dataset, directory, *, source=None, licence=None, progress=None):
    """Write `dataset` once to a folder that `kvae.data.load` reads; called again after it was killed, it goes on.

    dataset: a stream of batches of x, (x, y), (x, {name: y}) or tfds dicts {"image": x, name: y}, of a `Stream`
        epoch 0; or arrays of these kinds; or the (train, validation, test) that `load` gives; or a mapping from these
        names, "train" at least, to such. x is the column "image", y alone "label". Dtypes stay, save that x of float64
        or bfloat16 becomes float32; uint8 means 0 to 255.
    directory: a new or an empty one. For each split and column it gets `.npy` shards of about 256 MB, the rows in the
        stream's order, each with a fingerprint of every 256 KB behind them, and manifest.json.
    source: where the data come from: a text, or a tfds builder, of which name, version, citation and licence stay;
        None for what the Streams say of themselves, where those of all splits say the same.
    licence: a text; None for that of the source.
    progress: whether a bar shows; None for where one is seen, on a terminal and in a notebook.

    In memory are a batch and a block of 256 KB of each column. Raises ValueError or TypeError for what can't be
    packed and where the folder holds an unfinished pack of other data, FileExistsError where it holds a finished one
    or other files.
    """
    given = _splits(dataset)
    if hasattr(source, "info"):
        origin, its_licence = provenance.tfds_source(source.info)
    else:
        origin, its_licence = _told(given.values())
        origin = source or origin
    splits = {name: _columns(data, name) for name, data in given.items()}
    with errors.clear_errors():
        write_columns(splits, directory, source=origin, licence=licence or its_licence, progress=progress)


def _told(splits):
    """(origin, licence) that the Streams tell, where all tell the same."""
    known = [data.provenance if isinstance(data, Stream) else None for data in splits]
    told = [(each.source, each.license) if each else (None, None) for each in known]
    return told[0] if all(each == told[0] for each in told) else (None, None)


def _splits(dataset):
    """{"train": data, ...} of what there is."""
    parts = dataset if isinstance(dataset, tuple | list) else [dataset]
    if isinstance(dataset, Mapping) and "image" not in dataset:
        splits = dict(dataset)
    elif parts is dataset and all(part is None or isinstance(part, tf.data.Dataset) for part in parts):
        if len(parts) != len(SPLITS):
            raise ValueError(
                f"found {len(parts)} streams, expected (train, validation, test) as `load` gives, with None for what "
                'there isn\'t, or a mapping such as {"train": train, "test": test}'
            )
        splits = dict(zip(SPLITS, parts, strict=True))
    else:
        splits = {"train": dataset}
    splits = {name: data for name, data in splits.items() if data is not None}
    if "train" not in splits or splits.keys() - set(SPLITS):
        raise ValueError(
            f'found the splits {list(splits)}, expected "train" and, where there are any, "validation" and "test": '
            "`load` reads no others"
        )
    return splits


def _columns(data, name):
    """The dataset of batches {column: array} of one split, checked."""
    validation.validate_first_batch(data, name=name)
    validation.image_shape(data)
    batches = data.epoch(0) if isinstance(data, Stream) else arrays.batches(data)

    @tf.autograph.experimental.do_not_convert
    def columns(*element):
        if len(element) > 2:
            raise ValueError(f'{name} has sample weights: give them as a column, (x, {{"label": y, "weight": w}})')
        x, y = (*element, None)[:2]
        found = {"image": elements.unpack(element)[0], **(x if isinstance(x, Mapping) else {})}
        labels = y if isinstance(y, Mapping) else {} if y is None else {"label": y}
        if twice := sorted(found.keys() & labels.keys()):
            raise ValueError(f"{name} has labels named {twice}, as a column beside them is: rename them with map")
        found.update(labels)
        if found["image"].dtype in (tf.float64, tf.bfloat16):
            found["image"] = _as_float32(found["image"], name)
        for column, values in found.items():
            if not isinstance(values, tf.Tensor) or values.dtype == tf.string:
                kind = "string" if isinstance(values, tf.Tensor) else type(values).__name__
                raise TypeError(f"{column} of {name} is {kind}, expected a tensor of numbers: leave it out with map")
        return found

    return batches.map(columns)


def _as_float32(x, name):
    """x cast; where that makes a number infinite, an assertion that `clear_errors` makes a ValueError."""
    cast = tf.cast(x, "float32")
    lost = tf.cast(tf.boolean_mask(x, tf.math.is_inf(cast) & ~tf.math.is_inf(x))[:1], "float64")
    value = tf.strings.reduce_join(tf.strings.as_string(lost, shortest=True))
    advice = ", beyond float32, which float64 is packed as: scale the data"
    words = tf.strings.join([f"ValueError: the image of {name} holds the value ", value, advice])
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(tf.size(lost), 0), [words])]):
        return tf.identity(cast)


def write_columns(
    splits, directory, *, source=None, licence=None, progress=None, shard_bytes=SHARD_BYTES, block_bytes=BLOCK_BYTES
):
    """Write columns of any names as `pack` does; the first column is what `load` gives as x.

    splits: {split: iterable of batches {column: array (n, ...)}}, n as it comes.
    shard_bytes, block_bytes: of the column with the largest rows.

    Raises FileExistsError where the folder holds a finished pack, or files and no pack, and ValueError where it holds
    an unfinished one of other data.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with files.lock(directory, f"another process is packing into {directory}: wait for its end"):
        content = _begun(directory, splits)
        content.update(source=source, licence=licence)
        with _ManifestSaver(directory, content) as saved:
            for name, batches in splits.items():
                _write_split(name, _shown(name, batches, progress), saved, shard_bytes, block_bytes)
            content["complete"] = True
            saved.save()


class _ManifestSaver:
    """The manifest, which is saved so seldom that its saves take a tenth of the time, and where an exception ends it.

    A killed pack writes anew what it wrote since the last save. One that an exception ends before its first shard
    leaves nothing.
    """

    def __init__(self, directory, content):
        self.directory, self.content = directory, content
        self.changed, self.next = False, -math.inf
        self.begun = (directory / format.MANIFEST).exists()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        if kind and not self.begun and not any(format.all_shards(self.directory, self.content)):
            (self.directory / format.MANIFEST).unlink(missing_ok=True)
        elif self.changed:
            self.save()

    def change(self):
        """Save, unless that was just done."""
        self.changed = True
        if time.monotonic() >= self.next:
            self.save()

    def save(self):
        start = time.monotonic()
        format.save_manifest(self.directory, self.content)
        end = time.monotonic()
        self.changed, self.next = False, end + PAUSE * (end - start)


def _shown(name, batches, progress):
    """The batches, as numpy arrays, while a bar shows how many there were."""
    shown, number = bar(operator.length_hint(batches) or None, f"batch of {name}", progress), 0
    for number, batch in enumerate(batches, start=1):
        yield {column: np.asarray(values) for column, values in batch.items()}
        shown.update(number, finalize=False)
    shown.update(number, finalize=True)


def _begun(directory, splits):
    """The manifest of an unfinished pack of the same splits, or a new one."""
    for name in splits:
        shards.check_name("split", name)
    if not (directory / format.MANIFEST).exists():
        _check_empty(directory)
        version = importlib.metadata.version("keras-vae")
        return {
            "format": format.FORMAT,
            "version": format.VERSION,
            "kvae": version,
            "complete": False,
            "splits": {},
        }
    content = format.read_manifest(directory)
    if content["complete"]:
        raise FileExistsError(f"{directory} holds packed data already: load them, or give another folder")
    format.read_fingerprints(directory, content)
    if set(content["splits"]) - set(splits):
        raise shards.other(directory, f"the splits {list(content['splits'])}", list(splits))
    shard = rf"({'|'.join(splits)})-\w+-\d{{5,}}\.npy"
    for leftover in directory.glob(f"*{files.PARTIAL}"):
        if re.fullmatch(f"{shard}|{format.MANIFEST}", leftover.name.removesuffix(files.PARTIAL)):
            leftover.unlink()
    return content


def _check_empty(directory):
    """Raise FileExistsError for files that no pack has left: its first is the format."""
    leftover = format.MANIFEST + files.PARTIAL
    names = sorted(path.name for path in directory.iterdir() if path.name != leftover and path.name[0] != ".")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise FileExistsError(f"{directory} holds {names[0]}{more}, and no pack: give a new or an empty folder")


def _write_split(name, batches, saved, shard_bytes, block_bytes):
    """Write one split, or compare it where it is there."""
    directory, first = saved.directory, next(batches, None)
    if first is None:
        raise ValueError(f"{name} is empty: its stream ended before the first batch")
    layout = shards.layout(first, shard_bytes, block_bytes)
    split = saved.content["splits"].setdefault(name, layout)
    if split is layout:
        saved.change()  # ahead of the first shard, so that files in a folder without a manifest aren't a pack's
    if shards.described(split) != shards.described(layout):
        raise shards.other(directory, f"{shards.described(split)} in {name}", shards.described(layout))
    with contextlib.ExitStack() as stack:
        writers = {
            column: stack.enter_context(shards.ShardWriter(directory, name, column, split))
            for column in split["columns"]
        }
        for block in shards.blocks(itertools.chain([first], batches), split):
            finished = [writers[column].add(values) for column, values in block.items()]
            if any(finished):
                saved.change()
        for writer in writers.values():
            writer.end()
    if not split["complete"]:
        rows = sum(shard["rows"] for shard in next(iter(split["columns"].values()))["shards"])
        split.update(rows=rows, complete=True)
        saved.change()
