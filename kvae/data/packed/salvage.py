"""What is left of data whose files aren't as they were written, where that was asked for."""

import warnings

import numpy as np

from kvae.data.packed.blocks import AHEAD
from kvae.data.packed.format import ADVICE

CHOICES = ("error", "skip")
NAMED = 3  # faults that a warning tells


def validate(damaged):
    """Raise ValueError unless it is "error" or "skip"."""
    if damaged not in CHOICES:
        raise ValueError(f"damaged is {damaged!r}, expected one of {CHOICES}")


def kept_blocks(columns, lost):
    """The numbers of the blocks that are as they were written in all columns, and what is wrong with the others.

    columns: `BlockReader`s of one split, which are read as a whole. lost: {path: what is wrong with that shard}.
    """
    kept, faults = np.ones(-(-columns[0].rows // columns[0].block_rows), bool), {}
    for column in columns:
        for numbers in _runs(len(kept)):
            paths = [str(column.location(number)[0]) for number in numbers.tolist()]
            faults.update((path, lost[path]) for path in paths if path in lost)
            kept[numbers] &= [path not in lost for path in paths]
            present = numbers[[path not in lost for path in paths]]
            for number, words in column.faults(present):
                kept[number] = False
                faults[words] = words
    return np.flatnonzero(kept), [words.removesuffix(f"; {ADVICE}") for words in faults.values()]


def _runs(count):
    return np.split(np.arange(count), range(AHEAD, count, AHEAD))


def window(kept, start, stop, block_rows):
    """(numbers, first, last): of the rows start..stop-1 the kept blocks, and the rows' place in these, put together."""
    begin, end = start // block_rows, -(-stop // block_rows)
    numbers = kept[(kept >= begin) & (kept < end)]
    if not len(numbers):
        return numbers, 0, 0
    first = start % block_rows if numbers[0] == begin else 0
    rest = end * block_rows - stop if numbers[-1] == end - 1 else 0
    return numbers, first, len(numbers) * block_rows - rest


def report(name, left_out, rows, faults):
    """Warn, where anything was left out, of how many rows and why. Raises OSError where nothing is left."""
    if not left_out:
        return
    said = "; ".join([*faults[:NAMED], *([f"{len(faults) - NAMED} more"] if len(faults) > NAMED else [])])
    if left_out == rows:
        raise OSError(f"{name} has no rows left that are as they were written: {said}")
    warnings.warn(
        f"{name}: {left_out} of {rows} rows are left out, being damaged or beside damaged ones: {said}", stacklevel=2
    )
