"""A split of a tensorflow-datasets set as a Stream: shuffled as it is stored, parsed and decoded by the batch."""

import math

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from kvae import _compat
from kvae.data.decoding import UNROLLED, decoded
from kvae.data.stream import Stream, resolve_seed, shard_size

FILES = 16  # files read in turn where the order is shuffled
BLOCK = 16  # examples of one file read in its turn


def read(builder, part, names, batch_size, element, shuffle=0, seed=None, files=None):
    """The Stream of element({name: (n, ...)}), batch by batch, of the features `names` of a split or a part of one.

    builder: a prepared tfds builder. part: as tfds writes it, such as "train[:54000]". element: function of tensors.
    shuffle: examples in the shuffling pool, as they are stored; 0 keeps the stored order. The files' order is
        shuffled as well, and several are read in turn.
    seed: int, which alone decides with the epoch on the order; None draws one.
    files: those of the part, as `files_of` gives them; None for all.

    Of n shares each is a stretch of the files, where there are n of them, and otherwise every n-th row of the whole
    one's batches. Raises ValueError for sets not stored as TFRecords and for a batch_size that n doesn't divide; what
    is cut short or altered is an OSError within `clear_errors` once it is read.
    """
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(f"{builder.name} is stored as {builder.info.file_format.value}, expected tfrecord")
    files = files_of(builder, part) if files is None else files
    count = sum(take for _, _, take, _ in files)
    full, rest = divmod(count, batch_size)
    seed = resolve_seed(seed, shuffle)
    decode = _decoder(builder, names, math.gcd(batch_size, UNROLLED))

    def serialized(files, epoch):
        tf.random.set_seed(1)  # of this graph alone: else the global one has a say in the order, and 0 is an error
        columns = [np.array(column) for column in zip(*files, strict=True)]
        if shuffle:
            index = tf.random.experimental.stateless_shuffle(tf.range(len(files)), seed=[seed, epoch])
            columns = [tf.gather(column, index) for column in columns]
        examples = tf.data.Dataset.from_tensor_slices(tuple(columns)).interleave(
            lambda *file: _examples(builder.name, *file),
            cycle_length=min(FILES, len(files)) if shuffle else 1,
            block_length=BLOCK,
        )
        if shuffle:
            pool = min(shuffle, count)
            examples = examples.shuffle(pool, _draw(seed, epoch), reshuffle_each_iteration=False)
        return examples

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes a second
    def batches(epoch, skip, shard_index, num_shards):
        size = shard_size(batch_size, num_shards)
        examples = [full * size + len(range(i, rest, num_shards)) for i in range(num_shards)]
        apart = full and num_shards <= len(files)
        start = sum(examples[:shard_index])
        chosen = list(_stretch(files, start, start + examples[shard_index])) if apart else files
        records = tf.data.Dataset.from_tensors(epoch).flat_map(lambda epoch: serialized(chosen, epoch))
        if not apart:
            records = records.batch(batch_size).map(lambda batch: batch[shard_index::num_shards])
        else:
            records = records.batch(size)
            if shard_index >= rest > 0:  # fewer rows than shares are left for the last batch, which is empty then
                records = records.concatenate(tf.data.Dataset.from_tensors(tf.constant([], tf.string)))
        records = records.skip(skip)
        return records.map(lambda batch: element(decode(batch)), tf.data.AUTOTUNE, deterministic=True).prefetch(2)

    return Stream(batches, full + bool(rest), seed)


def first(builder, files, names, count):
    """The first `count` examples of some files as they are stored, {name: (count, ...)}."""
    files = [np.array(column) for column in zip(*files, strict=True)]
    examples = tf.data.Dataset.from_tensor_slices(tuple(files)).flat_map(lambda *file: _examples(builder.name, *file))
    return _decoder(builder, names, 1)(next(iter(examples.batch(count))))


def files_of(builder, part):
    """[(name, the examples before the part's, the part's, all examples)] of a split or a part of one."""
    files = builder.info.splits[part].file_instructions
    return [(file.filename, file.skip, file.take, file.examples_in_shard) for file in files]


def _draw(seed, epoch):
    return tf.random.stateless_uniform((), [seed, epoch], None, None, tf.int64)


def _stretch(files, start, stop):
    """The parts of `files` that hold the examples start..stop-1 of all of them."""
    for name, skip, take, whole in files:
        first, last = max(start, 0), min(stop, take)
        if first < last:
            yield name, skip + first, last - first, whole
        start, stop = start - take, stop - take


def _examples(set_name, name, skip, take, whole):
    """The serialized examples skip..skip+take-1 of the file `name`; in the place of each that's lost, what to say."""
    words = [f"OSError: {set_name}'s file ", name, " is cut short or altered: it doesn't give its "]
    words = tf.strings.join([*words, tf.strings.as_string(whole), " examples"])
    lost = tf.data.Dataset.from_tensors(words).repeat()
    # A file that can't be opened fails here: ignore_errors would try for ever. It ends what can't be read on.
    opened = tf.data.FixedLengthRecordDataset(name, 1).take(1).skip(1)
    records = tf.data.TFRecordDataset(name).ignore_errors().skip(skip)
    return opened.concatenate(records).concatenate(lost).take(take)


def _checked(serialized):
    """The same examples (n,), or an error with the words that stand in the place of one."""
    is_lost = tf.not_equal(tf.strings.substr(serialized, 0, 1), "\n")  # with which a tf.train.Example begins
    words = tf.strings.reduce_join(tf.boolean_mask(serialized, is_lost)[:1])
    with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(is_lost)), [words])]):
        return tf.identity(serialized)


def _decoder(builder, names, unrolled):
    """The function from serialized examples (n,) to {name: (n, ...)}, which decodes `unrolled` images in a turn."""
    features = _compat.chosen_features(builder.info.features, names)
    specs = features.tf_example_spec

    def one_by_one(serialized):
        signature = tf.nest.map_structure(lambda i: tf.TensorSpec(i.shape, i.tf_dtype), features.get_tensor_info())
        return tf.map_fn(features.deserialize_example, _checked(serialized), fn_output_signature=signature)

    def together(serialized):
        stored = tf.io.parse_example(_checked(serialized), specs)
        return {name: decode(features[name], stored[name]) for name in names}

    def decode(feature, stored):
        if isinstance(feature, tfds.features.Image):
            spec = tf.TensorSpec(feature.shape, feature.tf_dtype)
            return decoded(stored, feature.decode_example, spec, unrolled)
        return feature.decode_batch_example(tf.cast(stored, feature.get_serialized_info().tf_dtype))

    known = (tfds.features.Image, tfds.features.Tensor)
    simple = all(isinstance(features[name], known) and _is_fixed(specs.get(name)) for name in names)
    return together if simple else one_by_one


def _is_fixed(spec):
    return isinstance(spec, tf.io.FixedLenFeature)
