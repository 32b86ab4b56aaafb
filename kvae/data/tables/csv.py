"""CSV files by the block: where records begin, how many there are, and their columns, read by pyarrow."""

import csv
import dataclasses
import importlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae import arguments
from kvae.columns import Column, validate_unique
from kvae.data.files import import_extra
from kvae.data.tables.seekable import GzipBytes, PlainBytes
from kvae.data.tables.values import CellError, cell_fault, kind_of, refuse_numbers, without_texts

_SPACES = "", " ", "  "
LONGEST_RECORD = 2**26
_QUOTE, _NEWLINES = ord('"'), b"\r\n"


@dataclasses.dataclass(frozen=True)
class CsvFormat:
    """How the files are written.

    Args:
        names: the names of the columns if the files have no header, else None.
        delimiter: one character, or None for a comma, and a tab in .tsv files.
        decimal: "." or ",".
        encoding: of text, a superset of ASCII.
        na_values: further texts that mean a missing value, or None for pyarrow's in numbers, and empty cells.
    """

    names: Sequence[str] | None = None
    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    na_values: Sequence[str] | None = None

    def __post_init__(self):
        for name, texts in (("names", self.names), ("na_values", self.na_values)):
            if texts is not None and (
                not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts)
            ):
                raise TypeError(f"{name} is {texts!r}; expected a list of texts, or None.")
        if self.delimiter is not None and (not isinstance(self.delimiter, str) or len(self.delimiter) != 1):
            raise ValueError(f"delimiter is {self.delimiter!r}, expected one character, such as ';'")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal is {self.decimal!r}, expected '.' or ','")
        if isinstance(self.encoding, str) and self.encoding.lower().replace("_", "-") in ("utf-8-sig", "utf8-sig"):
            object.__setattr__(self, "encoding", "utf-8")  # a mark is left out in any case
        try:
            plain = "a,1\n".encode(self.encoding) == b"a,1\n"
        except (LookupError, TypeError):
            plain = False
        if not plain:
            raise ValueError(f"encoding is {self.encoding!r}, expected one that extends ASCII, as utf-8 and latin-1 do")


class CsvFile:
    """A source of rows: one CSV file, plain or gzip. One pass over it finds the blocks.

    Args:
        path: the file.
        form: its `CsvFormat`.
    """

    def __init__(self, path: pathlib.Path, form: CsvFormat):
        import_extra("pyarrow.csv")
        self.path, self.form = path, form
        with open(path, "rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
        self._bytes: Any = GzipBytes(path) if is_gzip else PlainBytes(path)
        self.delimiter = form.delimiter or ("\t" if ".tsv" in "".join(path.suffixes[-2:]) else ",")
        self._index()
        self._firsts = np.cumsum([0, *self.sizes]).tolist()

    def _index(self):
        """Finds the header and the blocks of records, a newline outside of quotes being the end of one."""
        self.starts, self.sizes, self.end = [], [], 0
        position, pending, header, inside, after_newline, blank = 0, b"", None, 0, True, _BlankLines()
        for chunk in self._bytes.chunks():
            if position == 0 and not pending:
                if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise ValueError(f"{self.path} is written in UTF-16, expected UTF-8: save it as UTF-8")
                bom = 3 if chunk.startswith(b"\xef\xbb\xbf") else 0
                position, chunk = bom, chunk[bom:]
            text = np.frombuffer(chunk, np.uint8)
            parity = (np.cumsum(text == _QUOTE, dtype=np.uint8) + np.uint8(inside)) & 1
            newline = ((text == 10) | (text == 13)) & (parity == 0)
            previous = np.concatenate([[after_newline], newline[:-1]])
            ends = np.flatnonzero(newline & ~previous)
            if header is None or self.delimiter.encode() not in header:
                blank.add(text, newline, newline & previous)
            inside = int(parity[-1]) if len(parity) else inside
            after_newline = bool(newline[-1]) if len(newline) else after_newline
            block = pending + chunk
            if len(ends) and header is None and self.form.names is None:
                stop = len(pending) + int(ends[0])
                header, block = block[:stop], block[stop:]
                position, ends = position + stop, ends[1:]
            if not len(ends):
                pending = block
                if len(pending) > LONGEST_RECORD:
                    raise ValueError(
                        f"{self._row(sum(self.sizes))} has more than {LONGEST_RECORD:,} bytes: is a quote missing at "
                        "the end of a cell?"
                    )
                continue
            last = len(block) - (len(chunk) - int(np.flatnonzero(newline)[-1])) + 1
            self.starts.append(position)
            self.sizes.append(len(ends))
            position, pending = position + last, block[last:]
        if header is None and self.form.names is None:
            header, pending = pending, b""
        rest = pending.strip(_NEWLINES)
        if rest:
            if inside:
                raise ValueError(f"{self._row(sum(self.sizes))} has a quote that is never closed")
            self.starts.append(position)
            self.sizes.append(1)
        self.end = position + len(pending)
        self._set_names(header)
        if len(self.names) == 1 and blank.found:
            arguments.warn(
                f'{self.path} has one column and empty lines, which are no rows: write "" for a value that is missing.'
            )
        if not self.sizes:
            raise ValueError(f"{self.path} holds no rows below its header, expected at least one")

    def _set_names(self, header):
        if header is not None:
            cells = next(csv.reader(io.StringIO(self._text(header, 0).strip("\r\n")), delimiter=self.delimiter), [])
            if not "".join(cells):
                raise ValueError(f"{self.path} is empty, expected a header and rows")
            other = next((mark for mark in ";\t|," if len(cells) == 1 and mark in cells[0]), None)
            if other:
                raise ValueError(f"{self.path} has one column, {cells[0]!r}: give delimiter={other!r} if it divides it")
            numeric = next((cell for cell in cells if "." in cell and cell.replace(".", "").strip("-").isdigit()), None)
            whole = all(cell.strip().removeprefix("-").isdecimal() for cell in cells)
            if whole and not set(np.diff(np.array(cells, "float64"))) <= {1}:
                numeric = cells[0]  # names such as 0, 1, 2, ... follow each other
            elif whole:
                arguments.warn(
                    f"{self.path}: its first row, {', '.join(cells[:5])}{', ...' if cells[5:] else ''}, is taken for "
                    "the names of the columns. Give names= if it is a row of values."
                )
            if numeric is not None:
                raise ValueError(
                    f"{self.path} has the number {numeric} among the names of its first row: give names= if it has no "
                    "header"
                )
        else:
            cells = list(self.form.names or ())
        validate_unique(cells, self.path)
        self.names = cells

    def _text(self, content, row):
        try:
            return content.decode(self.form.encoding)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n")
            about = "row" if len(content) > error.start and line == 0 else "a row at or after row"
            place = f"{self.path}, {about} {row + line + 1}" if row or line else f"{self.path}"
            raise ValueError(
                f"{place} holds bytes that aren't {self.form.encoding}: give its encoding, such as encoding='latin-1'"
            ) from None

    def _row(self, number):
        """A row, counted from 0, in words: counted from 1 below the header."""
        return f"{self.path}, row {number + 1}"

    def locate(self, block: int, row: int) -> str:
        """The file and the row's number in it, of a row of a block."""
        return self._row(self._firsts[block] + row)

    def kinds(self, names: Sequence[str]) -> dict[str, str]:
        """The kinds of some columns, by the values of the first block."""
        content = self._content(0)
        table, kinds = self._parse(content, 0, None), {}
        for name in names:
            values = table[name].combine_chunks()
            if str(values.type) == "binary":
                self._explain(content, 0, [Column(name, "category")])
            kinds[name] = kind_of(values)
            if str(values.type) == "string":
                try:
                    refuse_numbers(values.to_pylist(), Column(name), self.form.decimal)
                except CellError as error:
                    raise ValueError(f"{self.locate(0, error.row)}: column {name!r} {error}") from None
        return kinds

    def read(self, block: int, columns: list[Column]) -> list:
        """The columns of a block, a list of pyarrow's arrays. Raises ValueError with file and row."""
        pa = importlib.import_module("pyarrow")
        types = {"category": pa.dictionary(pa.int32(), pa.string()), "date": pa.timestamp("us")}
        wanted = {column.name: types.get(column.kind, pa.float64()) for column in columns}
        content = self._content(block)
        try:
            table = self._parse(content, block, wanted)
        except pa.ArrowInvalid as error:
            self._explain(content, block, columns)
            raise ValueError(f"{self.locate(block, 0)}, or one below it: {' '.join(str(error).split())}") from None
        if len(table) != self.sizes[block]:
            raise ValueError(
                f"{self.locate(block, 0)} to {self._firsts[block + 1]}: found {len(table)} rows, expected "
                f"{self.sizes[block]}: is there a quote within a cell that doesn't begin with one?"
            )
        return [table[column.name].combine_chunks() for column in columns]

    def _content(self, block):
        stop = self.starts[block + 1] if block + 1 < len(self.starts) else self.end
        content = self._bytes.read(self.starts[block], stop - self.starts[block])
        if len(content) != stop - self.starts[block]:
            raise OSError(f"{self.path} was cut while it was read")
        if self.form.encoding.lower().replace("-", "") not in ("utf8", "ascii"):
            content = self._text(content, self._firsts[block]).encode()
        return content

    def _parse(self, content, block, types, every_cell=False):
        pa: Any = importlib.import_module("pyarrow")
        reader: Any = importlib.import_module("pyarrow.csv")
        ragged = []
        options: dict[str, Any] = {"decimal_point": self.form.decimal}
        if types is not None:
            options.update(column_types=types, include_columns=list(types))
        options["null_values"] = _padded([*reader.ConvertOptions().null_values, *(self.form.na_values or ())])
        try:
            table = reader.read_csv(
                pa.BufferReader(content),
                reader.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=self.names),
                reader.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=lambda row: ragged.append(row) or "error",
                ),
                reader.ConvertOptions(**options),
            )
        except pa.ArrowInvalid as error:
            if ragged:
                first = ragged[0]
                raise ValueError(
                    f"{self.locate(block, (first.number or 1) - 1)} has {first.actual_columns} cells, expected "
                    f"{first.expected_columns} as the header has: {first.text[:60]!r}"
                ) from None
            raise error
        if self.form.na_values and not every_cell:
            for number, name in enumerate(table.column_names):
                values = without_texts(table[name], _padded(self.form.na_values))
                table = table.set_column(number, name, pa.chunked_array([values]))
        return table

    def _explain(self, content, block, columns):
        """Raises ValueError for the first cell that isn't what its column holds."""
        pa: Any = importlib.import_module("pyarrow")
        texts = self._parse(content, block, {column.name: pa.binary() for column in columns}, every_cell=True)
        missing = {*importlib.import_module("pyarrow.csv").ConvertOptions().null_values, *(self.form.na_values or ())}
        for column in columns:
            for row, cell in enumerate(texts[column.name].to_pylist()):
                try:
                    text = cell.decode()
                except UnicodeDecodeError:
                    raise ValueError(
                        f"{self.locate(block, row)}: column {column.name!r} holds {cell[:40]!r}, which isn't "
                        f"{self.form.encoding}: give encoding='latin-1', or another"
                    ) from None
                if text.strip(" ") in missing:
                    continue
                if message := cell_fault(text, column, self.form.decimal):
                    raise ValueError(f"{self.locate(block, row)}: column {column.name!r} {message}")


def _padded(texts):
    """The texts with up to two spaces before and behind."""
    return [before + text + behind for text in texts for before in _SPACES for behind in _SPACES]


class _BlankLines:
    """Whether there are empty lines between lines that aren't, of bytes that come in chunks."""

    def __init__(self):
        self.found, self._is_last, self._byte = False, False, 10

    def add(self, text: np.ndarray, newline: np.ndarray, repeated: np.ndarray) -> None:
        """Look at a chunk (n,), and masks of its newlines and of those after another newline, bool (n,)."""
        blank = repeated & ~((text == 10) & (np.concatenate([[self._byte], text[:-1]]) == 13))
        filled = np.flatnonzero(~newline)
        last = int(filled[-1]) if len(filled) else 0
        self.found = self.found or (len(filled) > 0 and (self._is_last or bool(blank[:last].any())))
        self._is_last = bool(blank[last:].any()) or (self._is_last and not len(filled))
        self._byte = int(text[-1]) if len(text) else self._byte
