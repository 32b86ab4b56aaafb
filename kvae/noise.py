"""Noise as a function of a position, so that a number measured on a stream depends on no batch size and repeats."""

import math

from keras import ops

_MASK = 0xFFFFFFFF
_MULTIPLIER, _WEYL, _ROUNDS = 0xD256D193, 0x9E3779B9, 10


def philox(key, counter, block):
    """Philox-2x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        key: integer below 2**32, the stream.
        counter, block: integer tensors of one shape, the two words of the counter; taken modulo 2**32.

    Returns:
        two int64 tensors of that shape, uniform on [0, 2**32), a function of the arguments alone.
    """
    left, right = (ops.bitwise_and(ops.cast(word, "int64"), _MASK) for word in (counter, block))
    # The product wraps beyond 2**63; masked, both halves of an int64 hold the bits that a uint64's would.
    multiplier = ops.cast(_MULTIPLIER, "int64")
    for _ in range(_ROUNDS):
        product = left * multiplier
        high = ops.bitwise_and(ops.right_shift(product, 32), _MASK)
        left, right = ops.bitwise_xor(ops.bitwise_xor(high, key), right), ops.bitwise_and(product, _MASK)
        key = (key + _WEYL) & _MASK
    return left, right


def indexed_normal(index, size, *, key=0, dtype="float32"):
    """eps ~ N(0, I), where row i is a function of (key, index[i]) and of nothing else.

    Args:
        index: integer tensor (n,), the examples' positions in their stream.
        size: int, the number of values per example.
        key: integer below 2**32; another key gives independent noise.
        dtype: of the result.

    Returns:
        tensor (n, size): uniform words from `philox`, made normal by Box and Muller (1958).
    """
    pairs = (size + 1) // 2
    blocks = ops.arange(pairs, dtype="int64")[None, :]
    index = ops.cast(index, "int64")[:, None] + ops.zeros_like(blocks)
    left, right = (ops.cast(word, "float64") for word in philox(key, index, blocks + ops.zeros_like(index)))
    radius = ops.sqrt(-2.0 * ops.log((left + 0.5) / 2**32))
    angle = 2.0 * math.pi * right / 2**32
    return ops.cast(ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)[:, :size], dtype)
