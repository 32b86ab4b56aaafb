"""Asymmetric numeral systems: a stack of bits that takes symbols by their probability, several chains at a time."""

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

PRECISION = 28  # a symbol's frequency is a share of 2^28
_WORD = 32  # bits that move between a head and the stack
_LOWEST = np.uint64(1 << _WORD)  # heads stay in [2^32, 2^64)
_WORD_MASK = np.uint64((1 << _WORD) - 1)
_SHIFT, _BITS = np.uint64(_WORD), np.uint64(PRECISION)
_ROOM = np.uint64(64 - PRECISION)
# Of a generator that never changes.
_MASK = np.random.RandomState(1).randint(0, 1 << 32, 8191, "uint32").astype("uint64")
_SLOTS = np.uint64((1 << PRECISION) - 1)


class Stack:
    """A last-in, first-out store of symbols. A symbol of probability p takes -log2 p bits.

    Lane i is a chain with a head of its own, a number of 64 bits. All lanes share one stack of words: a head that grows
    too large gives its lower 32 bits to it, and one that gets too small takes them back. A lane begins with a word of
    the stack, so that its head costs no bits.

    Args:
        words: array (m,) uint32, the bits that are there at first.
        heads: array (lanes,) uint64, or None for heads without content.
        lanes: int, the number of heads without content.

    Example:

    >>> import numpy as np
    >>> from kvae.compression.ans import Stack
    >>> stack = Stack(lanes=2)
    >>> stack.push(start=np.uint64([0, 7]), frequency=np.uint64([1 << 27, 9]))  # symbols of 1 and of 24.8 bits
    >>> stack.peek(2) >= np.uint64([0, 7])
    array([ True,  True])
    >>> stack.pop(start=np.uint64([0, 7]), frequency=np.uint64([1 << 27, 9]))
    >>> stack.holds(np.uint32([]))
    True

    Reference:
        Duda (2009), "Asymmetric numeral systems"; several lanes as in Giesen (2014), "Interleaved entropy coders".
    """

    def __init__(self, words: NDArray | tuple = (), heads: NDArray | None = None, *, lanes: int = 1):
        words = np.asarray(words, "uint32")
        self.heads = np.full(lanes, _LOWEST) if heads is None else np.array(heads, "uint64")
        self._words = np.concatenate([words, np.empty(1024, "uint32")])
        self.size = self.lowest = len(words)  # words now, and the least that there ever were
        self._key: int | None = None

    @property
    def words(self) -> NDArray:
        """The words (size,) uint32, the oldest first."""
        return self._words[: self.size]

    def holds(self, words: NDArray) -> bool:
        """Whether these words (m,) are all that is left, and the heads have no content."""
        return bool(np.array_equal(self.words, words) and np.all(self.heads == _LOWEST))

    def push(self, start: NDArray, frequency: NDArray) -> None:
        """Store a symbol in each of the first n lanes.

        Args:
            start: array (n,) uint64, the sum of the frequencies of the symbols before it.
            frequency: array (n,) uint64, from 1 to 2^28 - 1.

        Raises:
            ValueError: if a frequency is 0.
        """
        if not frequency.all():
            raise ValueError("a symbol has no probability")
        heads = self.heads[: len(start)]
        is_full = heads >= frequency << _ROOM
        if is_full.any():
            full = heads[is_full]
            self._append(full & _WORD_MASK)
            heads[is_full] = full >> _SHIFT
        quotient = heads // frequency
        heads += (quotient << _BITS) - quotient * frequency + start

    def peek(self, lanes: int) -> NDArray:
        """Return the slot, (lanes,) uint64 below 2^28, of the next symbol: it is in [start, start + frequency)."""
        return self.heads[:lanes] & _SLOTS

    def pop(self, start: NDArray, frequency: NDArray) -> None:
        """Remove the symbol that `peek` has shown, as `push` stored it: arrays (n,) uint64.

        Raises:
            ValueError: if the stack has no bits left.
        """
        heads = self.heads[: len(start)]
        heads[:] = frequency * (heads >> _BITS) + (heads & _SLOTS) - start
        is_low = heads < _LOWEST
        if is_low.any():
            heads[is_low] = heads[is_low] << _SHIFT | self._take(np.count_nonzero(is_low))

    def begin(self, start: int, stop: int) -> None:
        """Fill the heads of the lanes from start to stop, which have no content, with a word each.

        Raises:
            ValueError: if the stack has no bits left.
        """
        if stop > start:
            self.heads[start:stop] |= self._take(stop - start)

    def end(self, start: int, stop: int) -> None:
        """Undo `begin`.

        Raises:
            ValueError: if other content is in the heads.
        """
        if stop > start:
            heads = self.heads[start:stop]
            if np.any(heads >> _SHIFT != 1):
                raise ValueError("bits are left over")
            self._append(heads & _WORD_MASK)
            heads[:] = _LOWEST

    @contextlib.contextmanager
    def scrambled(self, key: int, lanes: int, *, is_popping: bool) -> Iterator[None]:
        """Context manager. The block reads, or writes back, the bits of the first lanes through a mask of random bits.

        Symbols that it pops are then uniform, however the bits got there. With symbols that it pushes under the same
        key, the bits become what they were.

        Args:
            key: int, of the mask.
            lanes: int.
            is_popping: bool, whether the block pops.
        """
        if is_popping:
            self.heads[:lanes] ^= _MASK[:lanes]
        self._key = key
        yield
        self._key = None
        if not is_popping:
            self.heads[:lanes] ^= _MASK[:lanes]

    def _append(self, words):
        end = self.size + len(words)
        if end > len(self._words):
            self._words = np.concatenate([self._words, np.empty(max(end, len(self._words)), "uint32")])
        self._words[self.size : end] = words ^ self._mask(self.size, end)
        self.size = end

    def _take(self, count):
        if count > self.size:
            raise ValueError("the stack has no bits left")
        self.size -= count
        self.lowest = min(self.lowest, self.size)
        end = self.size + count
        return self._words[self.size : end].astype("uint64") ^ self._mask(self.size, end)

    def _mask(self, start, end):
        if self._key is None:
            return np.uint64(0)
        return _MASK[(np.arange(start, end) + 977 * self._key) % len(_MASK)]
