"""What `pack` wrote, as Streams: blocks of rows in an order drawn for each epoch, shuffled again in pools."""

import functools
import os
import pathlib

import numpy as np
import tensorflow as tf

from kvae import _compat
from kvae.data.packed import format, salvage
from kvae.data.packed.blocks import BlockReader
from kvae.data.provenance import Provenance
from kvae.data.splits import label_names, split_rows
from kvae.data.stream import Stream, resolve_seed, shard_size

POOL_BLOCKS = 16  # at least, about 4 MB
ROUNDS = 8  # of RandomIndexShuffle: its default of 4 leaves small permutations visibly uneven


def load(directory, batch_size=128, *, labels=None, validation=0.1, shuffle=10_000, seed=0, damaged="error"):
    """(train, validation, test) of the folder that `kvae.data.pack` wrote; arguments as those of `kvae.data.load`.

    shuffle: rows in a pool of consecutive blocks of the epoch's order, at least sixteen of about 256 KB; a few pools
        are in memory at a time. 0 keeps the order of the pack.

    Each is a `Stream`. In n shares worker i reads the i-th part of the epoch's blocks. Raises OSError for files that
    aren't as they were written, at once for their sizes, headers and fingerprints, otherwise when the rows are read.
    With damaged="skip" all of the folder is read now, and the blocks of rows with a damaged column are left out.
    """
    content = format.read_manifest(directory)
    if not content["complete"]:
        raise OSError(f"{directory} holds an unfinished pack: call `pack` again with the same data, which goes on")
    lost = {} if damaged == "skip" else None
    fingerprints = format.read_fingerprints(directory, content, lost)
    splits, folder = content["splits"], pathlib.Path(directory).resolve().name
    seed = resolve_seed(seed, shuffle)
    streams, kept, left_out, faults = [], {}, 0, []
    rows = {name: split["rows"] for name, split in splits.items()}
    for name, part in split_rows(rows, validation).items():
        if part is None:
            streams.append(None)
            continue
        split, start, stop = part
        columns = _columns(directory, split, splits[split], labels, fingerprints[split])
        read = functools.partial(_read, columns, labels)
        if lost is not None:
            if split not in kept:
                kept[split], found = salvage.kept_blocks(columns, lost)
                faults += found
            rows_there = stop - start
            numbers, start, stop = salvage.window(kept[split], start, stop, splits[split]["block_rows"])
            salvage.report(f"{name} of {directory}", 0 if stop > start else rows_there, rows_there, faults)
            left_out += rows_there - (stop - start)
            read = functools.partial(_read, columns, labels, chosen=numbers)
        pool = shuffle if name == "train" else 0
        stored = functools.partial(_stream, read, start, stop, splits[split]["block_rows"], int(batch_size))
        stream = stored(pool, seed)
        part = f"{split}[{start}:{stop}]"
        stream.provenance = Provenance(folder, None, part, stop - start, stored, content["source"], content["licence"])
        streams.append(stream)
    salvage.report(str(directory), left_out, sum(rows.values()), faults)
    return tuple(streams)


def _columns(directory, name, split, labels, fingerprints):
    """The `BlockReader`s of x and of the labels."""
    x, *others = split["columns"]
    names = label_names(labels)
    missing = [label for label in names if label not in split["columns"]]
    if missing:
        raise ValueError(f"{directory} has no column {missing} in {name}: labels can be of {others}")
    return [
        BlockReader(os.path.abspath(directory), name, column, split, fingerprints[column]) for column in (x, *names)
    ]


def _read(columns, labels, numbers, chosen=None):
    """x, (x, y) or (x, {name: y}), as labels asks for, of blocks' numbers, int64 (k,), counted among the chosen."""
    numbers = numbers if chosen is None else tf.gather(chosen, numbers)
    x, *y = (column.read(numbers) for column in columns)
    if labels is None:
        return x
    return x, y[0] if isinstance(labels, str) else dict(zip(label_names(labels), y, strict=True))


def _stream(read, start, stop, block_rows, batch_size, shuffle=0, seed=0):
    """The Stream of the rows from start to stop of a split; a shuffled one starts at 0.

    An epoch's order is the blocks in a random order, but for a last one that isn't full, cut into pools of whole
    batches; the rows of a pool are put into a random order. Share i of n is the i-th part of the order of the blocks.
    """
    full, rest = divmod(stop - start, batch_size)
    steps, full_blocks = full + bool(rest), stop // block_rows

    def batches(epoch, skip, shard_index, num_shards):
        size = shard_size(batch_size, num_shards)
        first, last = (start + full * size * i + rest * i // num_shards for i in (shard_index, shard_index + 1))
        own_steps = -(-(last - first) // size)
        pools = -(-(last - first) // max(shuffle, POOL_BLOCKS * block_rows))
        pool_steps = -(-own_steps // pools) if pools else 1
        key = tf.random.stateless_uniform([3], tf.stack([np.int64(seed), epoch]), None, None, tf.int32, "philox")

        @tf.autograph.experimental.do_not_convert
        def pool(number):
            begin = first + number * pool_steps * size
            end = tf.minimum(begin + pool_steps * size, last)
            numbers = tf.range(begin // block_rows, -(-end // block_rows))
            index = tf.range(begin % block_rows, begin % block_rows + end - begin)
            if shuffle:
                numbers = _shuffled(numbers, full_blocks, key)
                seeds = tf.stack([key[0], key[1] + tf.cast(number, tf.int32)])
                index = _compat.stateless_shuffle(index, seeds)
            return tf.nest.map_structure(lambda column: tf.gather(column, index), read(numbers))

        number, skipped = divmod(skip, pool_steps)
        rows = tf.data.Dataset.range(number, -(-own_steps // pool_steps)).map(pool).prefetch(1).rebatch(size)
        rows = rows.skip(skipped)
        if own_steps < steps and skip < steps:
            nothing = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), rows.element_spec)
            rows = rows.concatenate(tf.data.Dataset.from_tensors(nothing))
        return rows.prefetch(2)

    return Stream(batches, steps, seed)


def _shuffled(positions, full_blocks, key):
    """The numbers of the blocks at these positions (k,) of a random order of all that are full."""
    if full_blocks < 2:
        return positions
    moved = tf.raw_ops.RandomIndexShuffle(
        index=tf.minimum(positions, full_blocks - 1), seed=key, max_index=full_blocks - 1, rounds=ROUNDS
    )
    return tf.where(positions < full_blocks, moved, positions)
