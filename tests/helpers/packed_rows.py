"""Rows that are packed in tests, batch by batch."""

import numpy as np

ROWS, SHAPE = 1003, (5, 4, 3)
SIZES = {"shard_bytes": 200 * 60, "block_bytes": 1950}  # blocks of 32 rows (1920 bytes), shards of 192


def pixels():
    return np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPE), np.uint8)


def batches(x, size=50, stop=None):
    for start in range(0, len(x), size):
        if start == stop:
            raise KeyboardInterrupt
        yield {"image": x[start : start + size], "label": np.arange(len(x))[start : start + size]}
