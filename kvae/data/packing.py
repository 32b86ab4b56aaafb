"""Any stream written once to a folder from which `load` reads it in blocks, with nothing left to decode."""

from collections.abc import Mapping

import tensorflow as tf

from kvae.data import shards, streams
from kvae.data.stream import Stream

SPLITS = ("train", "validation", "test")


def pack(dataset, directory, *, source=None, licence=None, progress=None):
    """Write `dataset` once to a folder that `kvae.data.load` reads; called again after it was killed, it goes on.

    dataset: a stream of batches of x, (x, y), (x, {name: y}) or tfds dicts {"image": x, name: y}, of a `Stream`
        epoch 0; or arrays of these kinds; or the (train, validation, test) that `load` gives; or a mapping from names
        of splits to such. x is the column "image", y alone "label". Dtypes stay, save that x of float64 or bfloat16
        becomes float32; uint8 means 0 to 255.
    directory: holds nothing else. For each split and column it gets `.npy` shards of about 256 MB, the rows in the
        stream's order, each with a fingerprint of every 256 KB behind them, and manifest.json.
    source: where the data come from: a text, or a tfds builder, of which name, version, citation and licence stay.
    licence: a text.
    progress: whether a bar shows; None for where the output is a terminal.

    In memory are a batch and a block of 256 KB of each column. Raises ValueError or TypeError for what can't be
    packed and where the folder holds an unfinished pack of other data, FileExistsError where it holds a finished one.
    """
    if hasattr(source, "info"):
        info = source.info
        licence = licence or info.redistribution_info.license or None
        source = {"name": info.name, "version": str(info.version), "homepage": info.homepage, "citation": info.citation}
    splits = {name: _columns(data, name) for name, data in _splits(dataset).items()}
    shards.write(splits, directory, source=source, licence=licence, progress=progress)


def _splits(dataset):
    if isinstance(dataset, Mapping) and "image" not in dataset:
        splits = dict(dataset)
    elif isinstance(dataset, tuple) and all(part is None or isinstance(part, tf.data.Dataset) for part in dataset):
        if len(dataset) != len(SPLITS):
            raise ValueError(
                f"found a tuple of {len(dataset)} streams, expected (train, validation, test) as `load` gives, with "
                'None for what there isn\'t, or a mapping such as {"train": train, "test": test}'
            )
        splits = dict(zip(SPLITS, dataset, strict=True))
    else:
        splits = {"train": dataset}
    return {name: data for name, data in splits.items() if data is not None}


def _columns(data, name):
    """The dataset of batches {column: array} of one split, checked."""
    streams.check(data, name=name)
    streams.image_shape(data)
    batches = data.epoch(0) if isinstance(data, Stream) else streams.batches(data)

    @tf.autograph.experimental.do_not_convert
    def columns(*element):
        if len(element) > 2:
            raise ValueError(f'{name} has sample weights: give them as a column, (x, {{"label": y, "weight": w}})')
        x, y = (*element, None)[:2]
        found = {"image": streams.unpack(element)[0], **(x if isinstance(x, Mapping) else {})}
        labels = y if isinstance(y, Mapping) else {} if y is None else {"label": y}
        if twice := sorted(found.keys() & labels.keys()):
            raise ValueError(f"{name} has labels named {twice}, as a column beside them is: rename them with map")
        found.update(labels)
        if found["image"].dtype in (tf.float64, tf.bfloat16):
            found["image"] = tf.cast(found["image"], "float32")
        for column, values in found.items():
            if not isinstance(values, tf.Tensor) or values.dtype == tf.string:
                kind = "string" if isinstance(values, tf.Tensor) else type(values).__name__
                raise TypeError(f"{column} of {name} is {kind}, expected a tensor of numbers: leave it out with map")
        return found

    return batches.map(columns)
