"""The rows of packed data that are drawn for training, validation and test, and the classes that they hold."""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from kvae.data.packed import format
from kvae.data.packed.blocks import block_reader, numbers_ahead
from kvae.data.splits import random_parts

ROWS_OF_BLOCKS = 4096  # blocks, a gigabyte, whose rows are drawn one by one; of more, whole blocks are drawn
MOST_LABEL_BYTES = 2**24


def draw_rows(directory: Any, layout: dict, windows: dict, group: str | None, fingerprints: dict) -> np.ndarray:
    """The part of each row, or, of many blocks, the part of each block: int8, by the place in `windows`."""
    sizes = [window[2] - window[1] if window and window[0] == "train" else 0 for window in windows.values()]
    rows, block_rows = layout["rows"], layout["block_rows"]
    if group is not None:
        if group not in layout["columns"]:
            raise ValueError(f"{directory} has no column {group!r} to group by: found {list(layout['columns'])}")
        column = block_reader(directory, "train", group, layout, fingerprints[group])
        values = [column.read(tf.constant(numbers)).numpy() for numbers in numbers_ahead(-(-rows // block_rows))]
        values = np.concatenate(values).reshape(rows, -1)
        if values.shape[1] != 1:
            raise ValueError(f"the column {group!r} has {values.shape[1]} numbers a row, expected one to group by")
        return random_parts(rows, (sizes[1], sizes[2]), values[:, 0])
    blocks = -(-rows // block_rows)
    if blocks <= ROWS_OF_BLOCKS:
        return random_parts(rows, (sizes[1], sizes[2]))
    validation, test = (size and max(1, round(size / block_rows)) for size in sizes[1:])
    drawn = random_parts(rows // block_rows, (validation, test))
    return np.append(drawn, np.zeros(blocks - len(drawn), np.int8))  # a smaller block is for training


def warn_if_disjoint(
    directory: Any, layouts: dict, fingerprints: dict, labels: Any, windows: dict, drawn: np.ndarray | None
) -> None:
    """Warn if validation or test has none of the classes of train. Reads columns of up to 16 MB."""
    seen = {}
    for number, (part, window) in enumerate(windows.items()):
        if window is None or not isinstance(labels, str):
            continue
        layout = layouts[window[0]]
        column = layout["columns"][labels]
        if column["shape"] or np.dtype(column["dtype"]).kind not in "biu":
            continue
        if layout["rows"] * format.row_bytes(column) > MOST_LABEL_BYTES:
            continue
        reader = block_reader(directory, window[0], labels, layout, fingerprints[window[0]][labels])
        try:
            values = np.concatenate(
                [reader.read(tf.constant(n)).numpy() for n in numbers_ahead(len(reader.fingerprints))]
            )
        except tf.errors.OpError:  # of damaged files, which reading the stream tells
            continue
        if drawn is not None and window[0] == "train":
            values = values[
                np.repeat(drawn == number, 1 if len(drawn) == len(values) else layout["block_rows"])[: len(values)]
            ]
        else:
            values = values[window[1] : window[2]]
        seen[part] = set(np.unique(values).tolist())
        if 2 * len(seen[part]) > len(values):  # no classes
            return
    for part in ("validation", "test"):
        if seen.get(part) and seen.get("train") and not seen[part] & seen["train"]:
            warnings.warn(
                f"{directory}: {part} has none of the values of {labels!r} that train has, so it measures classes that "
                "were never seen: split the data at random, or by another group",
                stacklevel=4,
            )


class RowsOfPart:
    """The rows of a part within the blocks of a split, block by block.

    Args:
        is_chosen: bool, for each row of the split or for each of its blocks.
        rows: the rows of the split.
        block_rows: the rows of a block.
        intact: the numbers of the blocks to read, or None for all.

    Attributes:
        blocks: int64 (k,), the blocks that hold rows of the part; a block of fewer rows comes last.
        counts: int64 (k,), their rows of the part.
        full: the number of these blocks that have all their rows.
        count, expected: the rows of the part, in the blocks to read and in all.
    """

    def __init__(self, is_chosen: np.ndarray, rows: int, block_rows: int, intact: np.ndarray | None):
        self.block_rows, all_blocks = block_rows, -(-rows // block_rows)
        self.by_row = is_chosen if len(is_chosen) == rows else None
        if self.by_row is None:
            lengths = np.minimum(block_rows, rows - block_rows * np.arange(all_blocks))
            counts = np.where(is_chosen, lengths, 0)
        else:
            counts = np.add.reduceat(is_chosen.astype(np.int64), np.arange(0, rows, block_rows))
        self.expected = int(counts.sum())
        blocks = np.flatnonzero(counts) if intact is None else intact[counts[intact] > 0]
        self.blocks, self.counts = blocks.astype(np.int64), counts[blocks].astype(np.int64)
        self.full = int(np.sum(blocks < rows // block_rows))
        self.count = int(self.counts.sum())

    def select(self, picks: np.ndarray) -> np.ndarray:
        """The positions of the part's rows among those of some of its blocks that are read one behind the other."""
        if self.by_row is None:
            starts, lengths = self.block_rows * np.arange(len(picks)), self.counts[picks]
            return np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
        within = [
            self.by_row[block * self.block_rows : (block + 1) * self.block_rows]
            for block in self.blocks[picks].tolist()
        ]
        return np.concatenate([i * self.block_rows + np.flatnonzero(each) for i, each in enumerate(within)])
