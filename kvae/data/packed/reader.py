"""Reads packed data as Streams: the blocks in an order of each epoch, their rows through a shuffle buffer."""

import functools
import os
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat
from kvae.columns import Columns
from kvae.data.packed import format, parts, stores
from kvae.data.packed.blocks import BlockReader, block_reader, numbers_ahead
from kvae.data.provenance import Provenance
from kvae.data.splits import label_names, split_rows
from kvae.data.stream import Stream, resolve_seed

BUFFER_BLOCKS = 16  # at least, about 4 MB; the order of shuffled rows depends on it
STORED_BLOCKS = 64  # of a buffer in order from a server, which rests between buffers
ROUNDS = 8  # of RandomIndexShuffle: its default of 4 leaves small permutations visibly uneven
STORED_BUFFERS = 2  # requested at once, so that a server is never waited for without a request
NAMED_FAULTS = 3  # in a warning of left-out rows


def load(
    directory: str | os.PathLike[str],
    batch_size: int = 128,
    *,
    labels: Any = None,
    validation: float = 0.1,
    shuffle: int = 10_000,
    seed: int | None = 0,
    damaged: str = "error",
    split: str = "random",
    group: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int = stores.CACHE_BYTES,
) -> tuple[Stream, Stream | None, Stream | None]:
    """The streams (train, validation, test) of a folder that `kvae.data.pack` wrote.

    `kvae.data.load` calls this and describes the arguments. A shard takes its rows of each batch and reads the blocks
    that hold them: all blocks of many small rows, no other worker's blocks if a block holds one row. To read a share
    of the folder alone, take a share of the batches: `stream.skip(first).take(count)`.

    Args:
        shuffle: rows in the shuffle buffer, which is a run of consecutive blocks in the order of the epoch, at least
            16 of about 256 KB. A few buffers are in memory at a time. 0 keeps the order of the pack.

    Raises:
        OSError: if the folder is unfinished, or files are missing, cut or altered. A call checks sizes, headers and
            fingerprints. The stream checks each block of rows when it reads the block.
    """
    if cache_dir is not None and not stores.is_address(directory):
        raise ValueError(f"{directory} is a local folder, and cache_dir is for addresses such as s3://bucket/folder")
    cache = None if cache_dir is None else stores.BlockCache(cache_dir, cache_bytes)
    folder: Any = stores.locate(directory, cache)
    directory, is_stored = folder, isinstance(folder, stores.Store)
    manifest = format.read_manifest(directory)
    if not manifest["complete"]:
        raise OSError(f"{directory} holds an unfinished pack: call `pack` again with the same data, which goes on")
    damaged_shards = {} if damaged == "skip" else None
    fingerprints = format.read_fingerprints(directory, manifest, damaged_shards)
    layouts, name = manifest["splits"], folder.name if is_stored else folder.resolve().name
    ahead = STORED_BUFFERS if is_stored else None
    num_rows = {split: layout["rows"] for split, layout in layouts.items()}
    seed = resolve_seed(seed, shuffle)
    streams, intact, left_out, faults = [], {}, 0, []
    windows, drawn = split_rows(num_rows, validation), None
    if split == "random" and windows["train"] != ("train", 0, num_rows["train"]):
        drawn = parts.draw_rows(directory, layouts["train"], windows, group, fingerprints["train"])
    for number, (part, window) in enumerate(windows.items()):
        if window is None:
            streams.append(None)
            continue
        source, start, stop = window
        block_rows = layouts[source]["block_rows"]
        columns = _columns(directory, source, layouts[source], labels, fingerprints[source])
        if damaged_shards is not None and source not in intact:
            intact[source], new_faults = _intact_blocks(columns, damaged_shards)
            faults += new_faults
        if drawn is not None and source == "train":
            chosen = parts.RowsOfPart(drawn == number, num_rows["train"], block_rows, intact.get(source))
            expected, count = chosen.expected, chosen.count
            read = functools.partial(_read, columns, labels)
            stored = functools.partial(_stream_of_part, read, chosen, int(batch_size), ahead)
            rows = f"train[{part} at random{f' by {group}' if group else ''}]"
        else:
            numbers, expected = None, stop - start
            if damaged_shards is not None:
                numbers, start, stop = _intact_window(intact[source], start, stop, block_rows)
            read, count = functools.partial(_read, columns, labels, intact=numbers), stop - start
            stored = functools.partial(_stream, read, start, stop, block_rows, int(batch_size), ahead)
            rows = f"{source}[{start}:{stop}]"
        if damaged_shards is not None:
            _report_left_out(f"{part} of {directory}", 0 if count else expected, expected, faults)
            left_out += expected - count
        stream = stored(shuffle if part == "train" else 0, seed)
        if shuffle and part == "train":
            stream._unshuffled = stored
        stream.provenance = Provenance(name, None, rows, count, stored, manifest["source"], manifest["licence"])
        if "table" in manifest:
            stream.columns, stream.class_names = _table(manifest["table"], labels)
        streams.append(stream)
    _report_left_out(str(directory), left_out, sum(num_rows.values()), faults)
    if group is None or group != labels:
        parts.warn_if_disjoint(directory, layouts, fingerprints, labels, windows, drawn)
    return tuple(streams)


def _table(config, labels):
    """(columns, class names) of packed rows of a table."""
    columns = Columns.from_config(config)
    y = next((label for label in columns.labels if label.name == labels and label.kind == "category"), None)
    return columns, None if y is None else tuple(map(str, y.categories))


def _columns(directory, split, layout, labels, fingerprints):
    """The `BlockReader`s of x and of the labels."""
    x, *others = layout["columns"]
    names = label_names(labels)
    missing = [name for name in names if name not in layout["columns"]]
    if missing:
        raise ValueError(f"{directory} has no column {missing} in {split}: labels can be of {others}")
    return [block_reader(directory, split, name, layout, fingerprints[name]) for name in (x, *names)]


def _read(columns, labels, numbers, intact=None):
    """The rows of some blocks as x, (x, y) or (x, {name: y}), by the form of `labels`.

    numbers: int64 (k,), counted among the intact blocks, or among all if `intact` is None.
    """
    numbers = numbers if intact is None else tf.gather(intact, numbers)
    x, *y = (column.read(numbers) for column in columns)
    if labels is None:
        return x
    return x, y[0] if isinstance(labels, str) else dict(zip(label_names(labels), y, strict=True))


def _stream(read, start, stop, block_rows, batch_size, ahead=None, shuffle=0, seed=0):
    """The Stream of the rows start..stop-1 of a split. With `shuffle`, start must be 0.

    `ahead` buffers are read at once; None reads one after the other.

    An epoch puts the full blocks in a random order and a smaller one last, cuts them into buffers of whole batches,
    and shuffles the rows of each buffer.
    """
    full, rest = divmod(stop - start, batch_size)
    num_batches, full_blocks = full + bool(rest), stop // block_rows

    def batches(epoch, skip, shard_index, num_shards):
        blocks = STORED_BLOCKS if ahead and not shuffle else BUFFER_BLOCKS
        num_buffers = -(-(stop - start) // max(shuffle, blocks * block_rows))
        buffer_batches = -(-num_batches // num_buffers) if num_buffers else 1
        whole: Any = (None, None)  # all integers of the dtype
        key = tf.random.stateless_uniform([3], tf.stack([np.int64(seed), epoch]), *whole, dtype=tf.int32, alg="philox")

        @tf.autograph.experimental.do_not_convert
        def read_buffer(number):
            begin = start + number * buffer_batches * batch_size
            end = tf.minimum(begin + buffer_batches * batch_size, stop)
            numbers = tf.range(begin // block_rows, -(-end // block_rows))
            index = tf.range(begin % block_rows, begin % block_rows + end - begin)
            if shuffle:
                numbers = _shuffled(numbers, full_blocks, key)
                seeds = tf.stack([key[0], key[1] + tf.cast(number, tf.int32)])
                index = _compat.stateless_shuffle(index, seeds)
            numbers, index = _of_shard(numbers, index, block_rows, batch_size, shard_index, num_shards)
            return tf.nest.map_structure(lambda column: tf.gather(column, index), read(numbers))

        first_buffer, skip_in_buffer = divmod(skip, buffer_batches)
        buffers = tf.data.Dataset.range(first_buffer, -(-num_batches // buffer_batches)).map(read_buffer, ahead)
        return _in_batches(buffers, batch_size, rest, skip_in_buffer, num_batches - skip, shard_index, num_shards)

    return Stream(batches, num_batches, seed)


def _stream_of_part(read, rows, batch_size, ahead=None, shuffle=0, seed=0):
    """The Stream of the rows of a part. An epoch is as that of `_stream`, but that blocks give different numbers."""
    full, rest = divmod(rows.count, batch_size)
    num_batches, num_blocks = full + bool(rest), len(rows.blocks)

    def batches(epoch, skip, shard_index, num_shards):
        blocks = STORED_BLOCKS if ahead and not shuffle else BUFFER_BLOCKS
        num_buffers = -(-rows.count // max(shuffle, blocks * int(rows.counts.max(initial=1))))
        buffer_batches = -(-num_batches // num_buffers) if num_buffers else 1
        order = tf.range(num_blocks, dtype=tf.int64)
        if shuffle:  # a smaller block stays last
            order = tf.concat([_compat.stateless_shuffle(order[: rows.full], [seed, epoch]), order[rows.full :]], 0)
        counts = tf.gather(rows.counts, order)
        ends = tf.cumsum(counts)

        @tf.autograph.experimental.do_not_convert
        def read_buffer(number):
            begin = number * buffer_batches * batch_size
            end = tf.minimum(begin + buffer_batches * batch_size, rows.count)
            begin_end = tf.cast(tf.stack([begin, end]), tf.int64)
            first_block = tf.searchsorted(ends, begin_end[:1], side="right")[0]
            picks = order[first_block : tf.searchsorted(ends, begin_end[1:], side="left")[0] + 1]
            index = tf.ensure_shape(_compat.numpy_function(rows.select, [picks], tf.int64), [None])
            start = begin_end[0] - (ends[first_block] - counts[first_block])
            index = index[start : start + begin_end[1] - begin_end[0]]
            if shuffle:
                index = _compat.stateless_shuffle(index, _compat.fold_in(tf.stack([np.int64(seed), epoch]), number))
            picks, index = _of_shard(picks, index, rows.block_rows, batch_size, shard_index, num_shards)
            return tf.nest.map_structure(lambda column: tf.gather(column, index), read(tf.gather(rows.blocks, picks)))

        first_buffer, skip_in_buffer = divmod(skip, buffer_batches)
        buffers = tf.data.Dataset.range(first_buffer, -(-num_batches // buffer_batches)).map(read_buffer, ahead)
        return _in_batches(buffers, batch_size, rest, skip_in_buffer, num_batches - skip, shard_index, num_shards)

    return Stream(batches, num_batches, seed)


def _of_shard(blocks, index, block_rows, batch_size, shard_index, num_shards):
    """(blocks, index) of a shard: the rows of its places in each batch, and the blocks that hold them.

    Args:
        blocks: (k,), the blocks of a buffer.
        index: (n,), the rows of the buffer's batches, one batch behind the other, among the blocks' rows.
    """
    if num_shards == 1:
        return blocks, index
    first, last = (batch_size * number // num_shards for number in (shard_index, shard_index + 1))
    place = tf.range(tf.size(index)) % batch_size
    index = tf.boolean_mask(index, (place >= first) & (place < last))
    block = index // block_rows
    needed = tf.sort(tf.unique(block)[0])  # a smaller block stays last
    return tf.gather(blocks, needed), tf.searchsorted(
        needed, block, out_type=index.dtype
    ) * block_rows + index % block_rows


def _in_batches(buffers, batch_size, rest, skip, num_batches, shard_index, num_shards):
    """A shard's rows, in buffers of whole batches, as `num_batches` batches without the first `skip`.

    Args:
        rest: the rows of the last batch of all shards if it has fewer than `batch_size`, else 0.
    """
    first, last = (batch_size * number // num_shards for number in (shard_index, shard_index + 1))
    size, buffers = last - first, buffers.prefetch(1)
    rows = buffers.rebatch(size).skip(skip) if size else buffers.take(0)
    lacking = (first >= rest > 0) if size else num_batches
    if lacking and num_batches > 0:  # every shard has as many batches
        empty = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape[1:]], spec.dtype), rows.element_spec)
        rows = rows.concatenate(tf.data.Dataset.from_tensors(empty).repeat(int(lacking)))
    return rows.prefetch(2)


def _shuffled(positions, full_blocks, key):
    """The blocks at these positions (k,) in a random order of the full blocks. A smaller block stays last."""
    if full_blocks < 2:
        return positions
    shuffled = tf.raw_ops.RandomIndexShuffle(
        index=tf.minimum(positions, full_blocks - 1), seed=key, max_index=full_blocks - 1, rounds=ROUNDS
    )
    return tf.where(positions < full_blocks, shuffled, positions)


# Damaged folders, of which the intact blocks are kept if the user asks for it -----------------------------------------


def _intact_blocks(columns: list[BlockReader], damaged_shards: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Reads a split. Returns the numbers of the blocks that are intact in all columns, and the faults of the others.

    Args:
        columns: the readers of the split's columns.
        damaged_shards: {path: fault} of the shards to leave out unread.
    """
    is_intact, faults = np.ones(-(-columns[0].rows // columns[0].block_rows), bool), {}
    for column in columns:
        for numbers in numbers_ahead(len(is_intact)):
            paths = [str(column.location(number)[0]) for number in numbers.tolist()]
            faults.update((path, damaged_shards[path]) for path in paths if path in damaged_shards)
            readable = np.array([path not in damaged_shards for path in paths])
            is_intact[numbers] &= readable
            for number, message in column.faults(numbers[readable]):
                is_intact[number] = False
                faults[message] = message
    return np.flatnonzero(is_intact), [message.removesuffix(f"; {format.ADVICE}") for message in faults.values()]


def _intact_window(intact: np.ndarray, start: int, stop: int, block_rows: int) -> tuple[np.ndarray, int, int]:
    """(numbers, first, last): the intact blocks that overlap rows start..stop-1, and the rows' range within them."""
    begin, end = start // block_rows, -(-stop // block_rows)
    numbers = intact[(intact >= begin) & (intact < end)]
    if not len(numbers):
        return numbers, 0, 0
    first = start % block_rows if numbers[0] == begin else 0
    rest = end * block_rows - stop if numbers[-1] == end - 1 else 0
    return numbers, first, len(numbers) * block_rows - rest


def _report_left_out(name: str, left_out: int, rows: int, faults: list[str]) -> None:
    """Warns of left-out rows, if there are any, and names the faults. Raises OSError if no rows are left."""
    if not left_out:
        return
    more = [f"{len(faults) - NAMED_FAULTS} more"] if len(faults) > NAMED_FAULTS else []
    message = "; ".join([*faults[:NAMED_FAULTS], *more])
    if left_out == rows:
        raise OSError(f"{name} has no rows left that are as they were written: {message}")
    warnings.warn(
        f"{name}: {left_out} of {rows} rows are left out, being damaged or beside damaged ones: {message}", stacklevel=2
    )
