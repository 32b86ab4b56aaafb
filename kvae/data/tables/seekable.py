"""The bytes of a file from any position, also of a gzip file."""

import pathlib
import zlib
from collections.abc import Iterator

from kvae import files

BLOCK_BYTES = 2**20
PACKED_BYTES = 2**15  # of a gzip file, read at once
CHECKPOINT_BYTES = 2**22  # of text, between two states of a gzip file's reader of some 40 KB each


class PlainBytes:
    """The bytes of a file, from any position."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def chunks(self) -> Iterator[bytes]:
        """All bytes in order."""
        with files.open_regular(self.path) as file:
            while chunk := file.read(BLOCK_BYTES):
                yield chunk

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on."""
        with files.open_regular(self.path) as file:
            file.seek(start)
            return file.read(size)


class GzipBytes:
    """The content of a gzip file, from any position: copies of the reader's state are kept on the way.

    A state takes 40 KB for each 4 MB of content.
    """

    def __init__(self, path: pathlib.Path):
        self.path, self._states = path, []

    def chunks(self) -> Iterator[bytes]:
        """All bytes in order. Keeps the states. Raises OSError for a cut or altered file."""
        self._states = [(0, 0, zlib.decompressobj(31))]
        pieces, size, position = [], 0, 0
        for piece, state in self._pieces(0, zlib.decompressobj(31)):
            pieces, size, position = [*pieces, piece], size + len(piece), position + len(piece)
            if position - self._states[-1][0] >= CHECKPOINT_BYTES:
                self._states.append((position, *state()))
            if size >= BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if pieces:
            yield b"".join(pieces)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on."""
        position, offset, reader = next(state for state in reversed(self._states) if state[0] <= start)
        content, skip = bytearray(), start - position
        for piece, _ in self._pieces(offset, reader.copy()):
            content += piece[skip:]
            skip = max(0, skip - len(piece))
            if len(content) >= size:
                break
        return bytes(content[:size])

    def _pieces(self, offset, reader):
        """(content, function to the state behind it) of each piece of the file from `offset` on."""
        with files.open_regular(self.path) as file:
            file.seek(offset)
            try:
                while packed := file.read(PACKED_BYTES):
                    content = b""
                    while packed:
                        if reader.eof:  # another member follows
                            reader = zlib.decompressobj(31)
                            packed = packed.lstrip(b"\0")
                            if not packed:
                                break
                        content += reader.decompress(packed)
                        packed = reader.unused_data
                    now = reader
                    yield content, lambda now=now: (file.tell(), now.copy())
            except zlib.error as error:
                raise OSError(f"{self.path} is altered: {error}") from None
            if not reader.eof:
                raise OSError(f"{self.path} is cut: its gzip content ends too early")
