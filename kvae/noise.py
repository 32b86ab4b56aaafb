"""Noise as a function of an example's position and the draw's index: no batch size changes it, and it repeats."""

import math
from typing import Any

import numpy as np
from keras import ops

from kvae.arguments import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIER, _WEYL, _ROUNDS = 0xD256D193, 0x9E3779B9, 10


def philox(key: int, counter: Tensor, block: Tensor, xp: Any = ops) -> tuple[Tensor, Tensor]:
    """Philox-2x32-10: two random words of 32 bits, as a function of three.

    Args:
        key: the stream, 0 <= key < 2**32.
        counter: integers, the first word of the counter, modulo 2**32.
        block: integers of the same shape, the second word, modulo 2**32.
        xp: `keras.ops`, or `numpy` for arrays. Both give the same words.

    Returns:
        two int64 tensors of that shape, uniform on [0, 2**32).

    Example:
        >>> left, right = philox(0, np.array([0]), np.array([0]))
        >>> hex(int(left[0])), hex(int(right[0]))  # a known answer of Random123
        ('0xff1dae59', '0x6cd10df2')

    Reference:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    left, right = (xp.bitwise_and(_cast(word, "int64", xp), _MASK) for word in (counter, block))
    # The product wraps beyond 2**63. Both masked halves of an int64 hold the same bits as a uint64's.
    multiplier = _cast(_MULTIPLIER, "int64", xp)
    for _ in range(_ROUNDS):
        product = left * multiplier
        high = xp.bitwise_and(xp.right_shift(product, 32), _MASK)
        left, right = xp.bitwise_xor(xp.bitwise_xor(high, key), right), xp.bitwise_and(product, _MASK)
        key = (key + _WEYL) & _MASK
    return left, right


def indexed_normal(index: Any, size: int, *, draw: Any = 0, key: int = 0, dtype: str = "float32", xp: Any = ops) -> Any:
    """eps ~ N(0, I). Row i is a function of (key, index[i], draw[i]) and of nothing else.

    Args:
        index: integers (n,), the examples' positions in their stream.
        size: number of values per row.
        draw: integer or integers (n,), the number of the draw for the same example.
        key: 0 <= key < 2**32. Different keys give independent noise.
        dtype: of the result.
        xp: `keras.ops`, or `numpy`. On a CPU numpy is about twice as fast. The words are the same; the normal values
            agree to their last bit or the one before.

    Returns:
        tensor (n, size): words of `philox`, made normal by the transform of Box and Muller (1958).

    Example:
        >>> eps = indexed_normal(np.arange(100), 7, xp=np)
        >>> eps.shape
        (100, 7)
        >>> bool(np.all(indexed_normal([41], 7, xp=np) == eps[41]))
        True
    """
    pairs = (size + 1) // 2
    draw = xp.reshape(_cast(draw, "int64", xp), (-1, 1))
    blocks = draw * pairs + xp.arange(pairs, dtype="int64")[None, :]
    index = _cast(index, "int64", xp)[:, None] + xp.zeros_like(blocks)
    words = philox(key, index, blocks + xp.zeros_like(index), xp)
    left, right = (_cast(word, "float64", xp) for word in words)
    radius = xp.sqrt(-2.0 * xp.log((left + 0.5) * 2.0**-32))
    angle = right * (2.0 * math.pi / 2**32)
    halves = [_cast(radius * function(angle), dtype, xp) for function in (xp.cos, xp.sin)]
    return xp.concatenate(halves, axis=1)[:, :size]


def _cast(x, dtype, xp) -> Any:
    return ops.cast(x, dtype) if xp is ops else np.asarray(x, dtype)
