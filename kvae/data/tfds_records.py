"""The TFRecord files of tensorflow-datasets as a Stream: examples are shuffled as stored, then decoded by the batch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from kvae import _compat
from kvae.data.decoding import UNROLLED, decode_images
from kvae.data.stream import Stream, resolve_seed, rows_of_shard

FILES = 16  # files read in turn if the order is shuffled
BLOCK = 16  # examples of one file in its turn


def read(
    builder: Any,
    split: str,
    names: list[str],
    batch_size: int,
    element: Callable[[dict], Any],
    shuffle: int = 0,
    seed: int | None = None,
) -> Stream:
    """The Stream of element({name: (n, ...)}) for the batches of some features of a split.

    A shard is its rows of each batch. It reads all files, and decodes its own examples alone.

    Args:
        builder: a prepared builder.
        split: a split or a part of one, as tfds writes it, such as "train[:54000]".
        names: the features to decode.
        batch_size: int.
        element: function from the dict of a batch's features to the element of the Stream.
        shuffle: encoded examples in the shuffle buffer. The files' order is shuffled as well, and several are read in
            turn. 0 keeps the stored order.
        seed: int, decides on the order with the epoch; None draws one.

    Raises:
        ValueError: for sets not stored as TFRecords.
        OSError: within `clear_errors`, when a damaged file is read.
    """
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(f"{builder.name} is stored as {builder.info.file_format.value}, expected tfrecord")
    files = _files(builder, split)
    count = sum(take for _, _, take, _ in files)
    full, rest = divmod(count, batch_size)
    seed = resolve_seed(seed, shuffle)
    decode = _decoder(builder, names, math.gcd(batch_size, UNROLLED))

    def serialized(files, epoch):
        tf.random.set_seed(1)  # of this graph alone: otherwise the global seed changes the order, and 0 is an error
        columns = [np.array(column) for column in zip(*files, strict=True)]
        if shuffle:
            index = _compat.stateless_shuffle(tf.range(len(files)), seed=[seed, epoch])
            columns = [tf.gather(column, index) for column in columns]
        examples = tf.data.Dataset.from_tensor_slices(tuple(columns)).interleave(
            lambda *file: _examples(builder.name, *file),
            cycle_length=min(FILES, len(files)) if shuffle else 1,
            block_length=BLOCK,
        )
        if shuffle:
            every: Any = None  # no bound: all integers
            epoch_seed: Any = tf.random.stateless_uniform((), tf.stack([seed, epoch]), every, every, tf.int64)
            examples = examples.shuffle(min(shuffle, count), epoch_seed, reshuffle_each_iteration=False)
        return examples

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes a second
    def batches(epoch, skip, shard_index, num_shards):
        records = tf.data.Dataset.from_tensors(epoch).flat_map(lambda epoch: serialized(files, epoch))
        records = records.batch(batch_size).skip(skip)
        if num_shards > 1:
            records = records.map(lambda batch: rows_of_shard(batch, shard_index, num_shards))
        return records.map(lambda batch: element(decode(batch)), tf.data.AUTOTUNE, deterministic=True).prefetch(2)

    stream = Stream(batches, full + bool(rest), seed)
    if shuffle:
        stream._unshuffled = lambda: read(builder, split, names, batch_size, element, 0, 0)
    return stream


def first(builder: Any, split: str, names: list[str], count: int) -> dict[str, Any]:
    """The first `count` stored examples of a split, {name: (count, ...)}."""
    columns = [np.array(column) for column in zip(*_files(builder, split), strict=True)]
    examples = tf.data.Dataset.from_tensor_slices(tuple(columns)).flat_map(lambda *file: _examples(builder.name, *file))
    return _decoder(builder, names, 1)(next(iter(examples.batch(count))))


def _files(builder, split):
    """[(file, examples before the split's, the split's examples, all examples of the file)]."""
    files = builder.info.splits[split].file_instructions
    return [(file.filename, file.skip, file.take, file.examples_in_shard) for file in files]


def _examples(set_name, name, skip, take, total):
    """The serialized examples skip..skip+take-1 of the file `name`. An error message replaces each lost example."""
    message = [f"OSError: {set_name}'s file ", name, " is cut short or altered: it doesn't give its "]
    message = tf.strings.join([*message, tf.strings.as_string(total), " examples"])
    lost = tf.data.Dataset.from_tensors(message).repeat()
    # ignore_errors ends at the first unreadable example, but would try for ever to open a file. So a file is opened
    # first, and a missing one fails here.
    opened = tf.data.FixedLengthRecordDataset(name, 1).take(1).skip(1)
    records = tf.data.TFRecordDataset(name).ignore_errors().skip(skip)
    return opened.concatenate(records).concatenate(lost).take(take)


def _checked(serialized):
    """The same examples (n,), unless one is an error message, which an assertion then raises."""
    is_message = tf.not_equal(tf.strings.substr(serialized, 0, 1), "\n")  # a tf.train.Example begins with it
    message = tf.strings.reduce_join(tf.boolean_mask(serialized, is_message)[:1])
    with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(is_message)), [message])]):
        return tf.identity(serialized)


def _decoder(builder, names, unrolled):
    """A function from serialized examples (n,) to {name: (n, ...)}. It decodes `unrolled` images in one turn."""
    features = _compat.chosen_features(builder.info.features, names)
    specs = features.tf_example_spec

    def one_by_one(serialized):
        info = features.get_tensor_info()
        signature = tf.nest.map_structure(lambda feature: tf.TensorSpec(feature.shape, feature.tf_dtype), info)
        return tf.map_fn(features.deserialize_example, _checked(serialized), fn_output_signature=signature)

    def together(serialized):
        stored = tf.io.parse_example(_checked(serialized), specs)
        return {name: decode(features[name], stored[name]) for name in names}

    def decode(feature, stored):
        if isinstance(feature, tfds.features.Image):
            spec = tf.TensorSpec(feature.shape, feature.tf_dtype)  # pyright: ignore[reportArgumentType]
            return decode_images(stored, feature.decode_example, spec, unrolled)
        return feature.decode_batch_example(tf.cast(stored, feature.get_serialized_info().tf_dtype))

    kinds = (tfds.features.Image, tfds.features.Tensor)
    simple = all(isinstance(features[name], kinds) and _is_fixed(specs.get(name)) for name in names)
    return together if simple else one_by_one


def _is_fixed(spec):
    return isinstance(spec, tf.io.FixedLenFeature)
