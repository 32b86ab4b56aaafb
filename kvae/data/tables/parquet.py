"""Parquet files by the block: their row groups, or parts of them in order."""

import importlib
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

from kvae.columns import Column
from kvae.data.files import import_extra
from kvae.data.tables.values import kind_of

BLOCK_BYTES = 2**22  # of 64-bit values, of a part of a row group


class ParquetFile:
    """A source of rows: a Parquet file. A block is a row group, or in order a part of one.

    Args:
        path: the file.
        in_order: whether blocks are read one after another. Large row groups are then never in memory as a whole.
    """

    def __init__(self, path: pathlib.Path, in_order: bool = True):
        self._parquet = import_extra("pyarrow.parquet")
        self.path, self._lock, self._reader = path, threading.Lock(), None
        file = self._opened()
        self.names = list(file.schema_arrow.names)
        self._types = {name: file.schema_arrow.field(name).type for name in self.names}
        rows = max(1_024, BLOCK_BYTES // (8 * max(1, len(self.names)))) if in_order else None
        self.blocks, first = [], 0  # (row group, part of it, first row, rows)
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            step = rows or max(1, size)
            for part, start in enumerate(range(0, size, step)):
                self.blocks.append((group, part, first + start, min(step, size - start)))
            first += size
        self.sizes, self._rows = [block[3] for block in self.blocks], rows
        if not self.blocks:
            raise ValueError(f"{path} holds no rows, expected at least one")

    def _opened(self):
        try:
            return self._parquet.ParquetFile(self.path, buffer_size=2**18, pre_buffer=False)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            if not self.path.exists():
                raise FileNotFoundError(f"{self.path} is missing") from None
            message = " ".join(str(error).split())
            raise ValueError(
                f"{self.path} can't be read as a Parquet file, it is cut or of another kind: {message}"
            ) from None

    def for_any_order(self) -> "ParquetFile":
        """The source whose blocks are fast to read in any order: whole row groups."""
        return ParquetFile(self.path, in_order=False)

    def locate(self, block: int, row: int) -> str:
        return f"{self.path}, row {self.blocks[block][2] + row + 1}"

    def kinds(self, names: Sequence[str]) -> dict[str, str]:
        pa: Any = importlib.import_module("pyarrow")
        kinds = {}
        for name in names:
            kind = self._types[name]
            try:
                is_dictionary = pa.types.is_dictionary(kind)
                of_values = kind_of(pa.array([], kind.value_type if is_dictionary else kind))
                kinds[name] = "category" if is_dictionary else of_values
            except (ValueError, pa.ArrowNotImplementedError):
                kinds[name] = f"holds values of the type {kind}, expected numbers, texts or dates"
        return kinds

    def read(self, block: int, columns: list[Column]) -> list:
        names = [column.name for column in columns]
        group, part, *_ = self.blocks[block]
        with self._lock:
            try:
                table = self._next(group, part, names) if self._rows else None
                table = self._opened().read_row_groups([group], columns=names) if table is None else table
            except (OSError, ValueError) as error:
                raise OSError(
                    f"{self.path} can't be read, it is cut or altered: {' '.join(str(error).split())}"
                ) from None
        return [table.column(name) for name in names]

    def _next(self, group, part, names):
        """A part of a row group. The reader of the last call goes on if it stands there."""
        if self._reader is None or self._reader[0] != (group, part, names):
            batches = self._opened().iter_batches(self._rows, row_groups=[group], columns=names, use_threads=False)
            for _ in range(part):
                next(batches)
        else:
            batches = self._reader[1]
        batch = next(batches)
        self._reader = (group, part + 1, names), batches
        return batch
