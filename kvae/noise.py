"""Noise as a function of an example's position: evaluation repeats exactly, at any batch size."""

import math

from keras import ops

from kvae.arguments import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIER, _WEYL, _ROUNDS = 0xD256D193, 0x9E3779B9, 10


def philox(key: int, counter: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Philox-2x32-10: random words as a function of a key and a counter, without state.

    Args:
        key: int from 0 to 2**32 - 1, the stream.
        counter: integer tensor, the first word of the counter modulo 2**32.
        block: integer tensor of the same shape, the second word of the counter modulo 2**32.

    Returns:
        two int64 tensors of the same shape, uniform on [0, 2**32).

    Example:

    >>> from kvae.noise import philox
    >>> left, right = philox(key=0, counter=ops.zeros((1,), "int64"), block=ops.zeros((1,), "int64"))
    >>> [hex(int(word[0])) for word in (left, right)]  # the first of the paper's test vectors
    ['0xff1dae59', '0x6cd10df2']

    Reference:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    left, right = (ops.bitwise_and(ops.cast(word, "int64"), _MASK) for word in (counter, block))
    # The product overflows 2**63. After the masks, the halves of an int64 have the bits of a uint64.
    multiplier = ops.cast(_MULTIPLIER, "int64")
    for _ in range(_ROUNDS):
        product = left * multiplier
        high = ops.bitwise_and(ops.right_shift(product, 32), _MASK)
        left, right = ops.bitwise_xor(ops.bitwise_xor(high, key), right), ops.bitwise_and(product, _MASK)
        key = (key + _WEYL) & _MASK
    return left, right


def indexed_normal(index: Tensor, size: int, *, key: int = 0, dtype: str = "float32") -> Tensor:
    """Return eps ~ N(0, I) with row i a function of key and index[i] only.

    Args:
        index: integer tensor (n,), the examples' positions in their stream.
        size: int >= 1, the number of values per example.
        key: int or int64 scalar tensor from 0 to 2**32 - 1. Different keys give independent noise. Default 0.
        dtype: str, the result's. Default "float32".

    Returns:
        tensor (n, size): words from `philox`, transformed by Box and Muller (1958).

    Example:

    >>> from kvae.noise import indexed_normal
    >>> eps = indexed_normal(ops.array([5, 6, 7]), size=4)
    >>> bool(ops.all(eps[1:] == indexed_normal(ops.array([6, 7]), size=4)))
    True
    """
    pairs = (size + 1) // 2
    blocks = ops.arange(pairs, dtype="int64")[None, :]
    index = ops.cast(index, "int64")[:, None] + ops.zeros_like(blocks)
    left, right = (ops.cast(word, "float64") for word in philox(key, index, blocks + ops.zeros_like(index)))
    radius = ops.sqrt(-2.0 * ops.log((left + 0.5) / 2**32))
    angle = 2.0 * math.pi * right / 2**32
    return ops.cast(ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=1)[:, :size], dtype)
