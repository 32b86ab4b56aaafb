"""Keeps the intact blocks of a damaged folder of packed data, if the user asks for it."""

import warnings

import numpy as np

from kvae.data.packed.blocks import AHEAD, BlockReader
from kvae.data.packed.format import ADVICE

CHOICES = ("error", "skip")
NAMED_FAULTS = 3  # faults in a warning


def validate(damaged: str) -> None:
    """Raises ValueError unless `damaged` is "error" or "skip"."""
    if damaged not in CHOICES:
        raise ValueError(f"damaged is {damaged!r}, expected one of {CHOICES}")


def intact_blocks(columns: list[BlockReader], damaged_shards: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Reads a split. Returns the numbers of the blocks that are intact in all columns, and the faults of the others.

    Args:
        columns: the readers of the split's columns.
        damaged_shards: {path: fault} of the shards to leave out unread.
    """
    is_intact, faults = np.ones(-(-columns[0].rows // columns[0].block_rows), bool), {}
    for column in columns:
        for numbers in _groups(len(is_intact)):
            paths = [str(column.location(number)[0]) for number in numbers.tolist()]
            faults.update((path, damaged_shards[path]) for path in paths if path in damaged_shards)
            readable = np.array([path not in damaged_shards for path in paths])
            is_intact[numbers] &= readable
            for number, message in column.faults(numbers[readable]):
                is_intact[number] = False
                faults[message] = message
    return np.flatnonzero(is_intact), [message.removesuffix(f"; {ADVICE}") for message in faults.values()]


def _groups(count):
    return np.split(np.arange(count), range(AHEAD, count, AHEAD))


def window(intact: np.ndarray, start: int, stop: int, block_rows: int) -> tuple[np.ndarray, int, int]:
    """(numbers, first, last): the intact blocks that overlap rows start..stop-1, and the rows' range within them."""
    begin, end = start // block_rows, -(-stop // block_rows)
    numbers = intact[(intact >= begin) & (intact < end)]
    if not len(numbers):
        return numbers, 0, 0
    first = start % block_rows if numbers[0] == begin else 0
    rest = end * block_rows - stop if numbers[-1] == end - 1 else 0
    return numbers, first, len(numbers) * block_rows - rest


def report(name: str, left_out: int, rows: int, faults: list[str]) -> None:
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
