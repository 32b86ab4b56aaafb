"""The file of compressed examples: a header, blocks that can be read alone, an index, and a checksum of each.

Magic bytes; the header; the blocks; the index; the length of the index, uint64, and the magic bytes again. Header and
index are JSON by zlib. Behind each part are 16 bytes of its SHA-256.
"""

import hashlib
import json
import os
import struct
import zlib
from typing import Any, BinaryIO, NoReturn

import numpy as np

from kvae.compression.blocks import LANES, Block
from kvae.compression.levels import MOST_LEVELS

VERSION = 1
_MAGIC = b"kvae compressed\n"
_DIGEST = 16  # bytes
_COUNTS = struct.Struct("<5Q")  # levels, known words; lengths of lanes, heads and notes
_SIZES = struct.Struct("<2Q")  # bytes of the part with the counts, and of the words
_MOST_PACKED = 2**28  # bytes
_LITTLE = {"lanes": "<u2", "heads": "<u8", "notes": "<i8"}


class Writer:
    """Writes a file's header, then one block after the other, then the index.

    Args:
        file: open for writing.
        header: dict for JSON.
    """

    def __init__(self, file: BinaryIO, header: dict[str, Any]):
        self._file, self._ends, self._examples = file, [], []
        content = _packed_json({"version": VERSION, **header})
        self._file.write(_MAGIC + struct.pack("<Q", len(content)))
        self._part(content)
        self._start = file.tell()

    def add(self, block: Block, digest: bytes) -> None:
        """Write a block. digest: 16 bytes, of its examples."""
        steps, repeats = _runs(block.lanes)
        block = block._replace(lanes=np.stack([steps, repeats]))
        arrays = [np.asarray(getattr(block, name), dtype).ravel() for name, dtype in _LITTLE.items()]
        counts = _COUNTS.pack(block.levels, block.known, *map(len, arrays))
        # All first bytes of the numbers, then all second ones: the last bytes of most heads are 0.
        packed = zlib.compress(
            b"".join([counts, *(array.view("u1").reshape(-1, array.itemsize).T.tobytes() for array in arrays)]), 9
        )
        words = np.asarray(block.words, "<u4").tobytes()
        number = struct.pack("<Q", len(self._ends))
        self._part(b"".join([number, digest, _SIZES.pack(len(packed), len(words)), packed, words]))
        self._ends.append(self._file.tell())
        self._examples.append(int(np.dot(steps, repeats)))

    def close(self) -> None:
        """Write the index."""
        index = {"start": self._start, "ends": self._ends, "examples": self._examples}
        index = _packed_json(index)
        self._part(index)
        self._file.write(struct.pack("<Q", len(index)) + _MAGIC)

    def _part(self, content):
        self._file.write(content + _digest(content))


class Reader:
    """Reads a file that `Writer` has written.

    Args:
        file: open for reading.
        path: its name, for messages.

    Attributes:
        header: dict.
        examples: list of ints, the examples of each block.

    Raises:
        ValueError: if it is another file, or damaged.
    """

    def __init__(self, file: BinaryIO, path: Any):
        self._file, self._path = file, path
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path} isn't a file that kvae.compression.compress wrote, or its start is damaged.")
        header = self._json("header", *struct.unpack("<Q", self._exactly(8, "header")))
        tail = 8 + len(_MAGIC)
        if size < file.tell() + tail:
            self._fail("it ends early")
        file.seek(size - tail)
        (length,) = struct.unpack("<Q", self._exactly(8, "end"))
        if file.read(len(_MAGIC)) != _MAGIC or length > size - tail - _DIGEST:
            self._fail("its end is missing or damaged")
        file.seek(size - tail - _DIGEST - length)
        index_start = file.tell()
        index = self._json("index", length)
        if header.get("version") != VERSION:
            raise ValueError(
                f"{path} has version {header.get('version')!r}; this release reads {VERSION}: update kvae."
            )
        self.header, self.examples = header, index["examples"]
        self._edges = [index["start"], *index["ends"]]
        if self._edges[-1] != index_start or self._edges != sorted(self._edges):
            self._fail("its index doesn't fit its length")

    def block(self, number: int) -> tuple[Block, bytes]:
        """Return a block and the digest of its examples. Raises ValueError if it is damaged."""
        start, end = self._edges[number : number + 2]
        self._file.seek(start)
        content = self._part(f"block {number}", end - start - _DIGEST)
        head = 8 + _DIGEST + _SIZES.size
        if len(content) < head or struct.unpack("<Q", content[:8]) != (number,):
            self._fail(f"block {number} is damaged")
        sizes = _SIZES.unpack(content[8 + _DIGEST : head])
        if head + sum(sizes) != len(content) or sizes[1] % 4:
            self._fail(f"block {number} is damaged")
        packed = self._unpacked(content[head : head + sizes[0]], f"block {number}")
        if len(packed) < _COUNTS.size:
            self._fail(f"block {number} is damaged")
        levels, known, *lengths = _COUNTS.unpack(packed[: _COUNTS.size])
        dtypes = [np.dtype(dtype) for dtype in _LITTLE.values()]
        if (
            _COUNTS.size + sum(dtype.itemsize * length for dtype, length in zip(dtypes, lengths, strict=True))
            != len(packed)
            or lengths[0] % 2
            or not 2 <= levels <= MOST_LEVELS + 1
            or not 1 <= lengths[1] <= LANES
        ):
            self._fail(f"block {number} is damaged")
        arrays: dict[str, Any] = {"words": np.frombuffer(content, "<u4", offset=head + sizes[0])}
        position = _COUNTS.size
        for name, dtype, length in zip(_LITTLE, dtypes, lengths, strict=True):
            planes = np.frombuffer(packed, "u1", dtype.itemsize * length, position)
            arrays[name] = planes.reshape(dtype.itemsize, length).T.copy().view(dtype)[:, 0]
            position += planes.nbytes
        steps, repeats = arrays["lanes"].reshape(2, -1).astype("int64")
        if np.dot(steps, repeats) != self.examples[number] or np.max(steps, initial=0) > lengths[1]:
            self._fail(f"block {number} is damaged")
        arrays["lanes"] = np.repeat(steps, repeats)
        arrays["notes"] = arrays["notes"].reshape(-1, 3)
        return Block(levels=levels, known=known, **arrays), content[8 : 8 + _DIGEST]

    def _json(self, what, length):
        if length > _MOST_PACKED:
            self._fail(f"its {what} is damaged")
        try:
            content = json.loads(self._unpacked(self._part(f"its {what}", length), f"its {what}"))
        except RecursionError:
            self._fail(f"its {what} is damaged")
        return content if isinstance(content, dict) else self._fail(f"its {what} is damaged")

    def _unpacked(self, content, what):
        try:
            return zlib.decompressobj().decompress(content, _MOST_PACKED)
        except zlib.error:
            self._fail(f"{what} is damaged")

    def _part(self, what, length):
        content = self._exactly(max(length, 0), what)
        if self._exactly(_DIGEST, what) != _digest(content):
            self._fail(f"{what} is damaged")
        return content

    def _exactly(self, count, what):
        content = self._file.read(count)
        if len(content) < count:
            self._fail(f"it ends early, in {what}")
        return content

    def _fail(self, what) -> NoReturn:
        raise ValueError(f"{self._path} can't be decompressed: {what}. Restore the file, or compress the data again.")


def _packed_json(content):
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)


def _runs(numbers):
    """The numbers (n,) and how often each follows itself: of steps of equal size there are many."""
    starts = np.flatnonzero(np.diff(numbers.astype("int64"), prepend=-1))
    return numbers[starts], np.diff(starts, append=len(numbers))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_DIGEST]


def digest_of(x: np.ndarray) -> bytes:
    """16 bytes of the SHA-256 of an array's bytes."""
    return _digest(np.ascontiguousarray(x).tobytes())
