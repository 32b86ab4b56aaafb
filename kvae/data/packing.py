"""Any stream written once to a folder from which `load` reads it in blocks, with nothing left to decode."""

from collections.abc import Mapping

import tensorflow as tf

from kvae.data import arrays, elements, errors, provenance, shards, validation
from kvae.data.stream import Stream

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
        shards.write(splits, directory, source=origin, licence=licence or its_licence, progress=progress)


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
