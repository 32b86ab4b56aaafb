"""Sources of a table's rows: arrays, DataFrames, sparse matrices, HDF5 files, and several files."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvae.columns import Column
from kvae.data.files import import_extra
from kvae.data.tables.values import arrow, is_categorical, kind_of

BLOCK_BYTES = 2**22


class Rows:
    """A source of rows in memory, or in an array on disk: slices of it are read by the block.

    Args:
        name: of the source, in errors.
        names: the names of its columns.
        count: its rows.
        read: function from a slice of rows, and the numbers of some columns, to an array (n, columns) of numbers or a
            list of columns.
        kinds: function from the number of a column to its kind, or None if all are numbers.
        row_bytes: the bytes of a row.
    """

    def __init__(self, name: str, names: Sequence[str], count: int, read: Any, kinds: Any = None, row_bytes: int = 8):
        self.name, self.names, self._read, self._kinds = name, list(names), read, kinds
        if not count:
            raise ValueError(f"{name} holds no rows, expected at least one")
        self._rows = max(1, min(count, BLOCK_BYTES // max(1, row_bytes)))
        self.sizes = [min(self._rows, count - start) for start in range(0, count, self._rows)]

    def locate(self, block: int, row: int) -> str:
        return f"{self.name}, row {block * self._rows + row + 1}"

    def kinds(self, names: Sequence[str]) -> dict[str, str]:
        if self._kinds is None:
            return dict.fromkeys(names, "number")
        return {name: self._kinds(self.names.index(name)) for name in names}

    def read(self, block: int, columns: list[Column]) -> Any:
        start = block * self._rows
        return self._read(
            slice(start, start + self.sizes[block]), [self.names.index(column.name) for column in columns]
        )


def from_matrix(array: Any, name: str, names: Sequence[str] | None) -> Rows:
    """The rows of an array (n, columns), also of a memory map, or of a sparse matrix of scipy."""
    is_sparse = hasattr(array, "toarray")
    if is_sparse and getattr(array, "format", None) != "csr":
        array = array.tocsr()
    shape, fields = tuple(array.shape), getattr(array.dtype, "names", None)
    if fields:
        return from_columns(list(fields), [array[field] for field in fields], name)
    if len(shape) != 2 or not shape[1] or array.dtype.kind not in "buifUSOM":
        raise ValueError(f"{name} has the shape {shape} and the dtype {array.dtype}, expected rows of columns")
    names = named(names, shape[1], name)

    def read(rows, columns):
        block = array[rows].toarray() if is_sparse else np.asarray(_filled(array[rows]))
        return block if columns == list(range(shape[1])) else block[:, columns]

    kind = None if array.dtype.kind in "uif" else lambda number: _kind(read(slice(0, 1_000), [number])[:, 0])
    return Rows(name, names, shape[0], read, kind, row_bytes=shape[1] * max(array.dtype.itemsize, 8))


def named(names: Sequence[str] | None, count: int, source: str) -> list[str]:
    """The names of `count` columns, by default their numbers. Raises ValueError for another number of names."""
    names = [str(number) for number in range(count)] if names is None else list(names)
    if len(names) != count:
        raise ValueError(f"names has {len(names)} names, but {source} has {count} columns")
    return names


def from_columns(names: Sequence[str], columns: Sequence[Any], name: str) -> Rows:
    """The rows of a sequence of columns: arrays, lists, pyarrow's, or others with a length and slices."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        shown = dict(zip(names, lengths, strict=True))
        raise ValueError(f"{name} has columns of several lengths, {shown}, expected as many values in each")

    def read(rows, numbers):
        return [one(number, rows) for number in numbers]

    def one(number, rows):
        try:
            return _values(columns[number][rows])
        except ValueError as error:
            raise ValueError(f"{name}: column {names[number]!r} {error}") from None

    return Rows(
        name,
        names,
        lengths[0] if lengths else 0,
        read,
        lambda number: _kind(columns[number][:1_000]),
        row_bytes=16 * max(1, len(names)),
    )


def _kind(values):
    try:
        kind = kind_of(_values(values))
        return "category" if is_categorical(values) else kind
    except ValueError as error:
        return str(error)


def _values(values):
    """A part of a column as numpy has it, if it holds numbers, or as pyarrow has it."""
    values = _filled(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return values
    pa: Any = import_extra("pyarrow")
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(getattr(values, "dtype", None), np.dtype) and values.dtype.kind in "iuf":  # a Series of pandas
        return np.asarray(values)
    if str(getattr(values, "dtype", "")).startswith("Sparse"):  # of pandas
        return np.asarray(values)
    if getattr(getattr(values, "dtype", None), "kind", None) == "S":
        values = np.char.decode(values, "utf-8")
    try:
        return arrow(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"holds values of several types, or of a type that no column has, expected numbers, texts or dates: make "
            f"them texts, or leave it out with columns=: {' '.join(str(error).split())}"
        ) from None


def _filled(values):
    """An array with NaN, or None, in place of masked values; others as they are."""
    if not np.ma.isMaskedArray(values):
        return values
    is_masked = np.ma.getmaskarray(values)
    if values.dtype.kind in "iuf":
        return np.where(is_masked, np.nan, values.data)
    missing: Any = None
    return np.where(is_masked, missing, values.data.astype(object))


def from_frame(frame: Any, name: str) -> Rows:
    """The rows of a DataFrame of pandas or polars, or of a Table of pyarrow."""
    if hasattr(frame, "iloc"):
        names = [str(column) for column in frame.columns]
        return from_columns(names, [Sliced(frame.iloc[:, number]) for number in range(len(names))], name)
    pa: Any = import_extra("pyarrow")
    table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    return from_columns(table.column_names, table.columns, name)


class Sliced:
    """A Series of pandas, whose slices are by position."""

    def __init__(self, series: Any):
        self.series = series

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, rows: slice) -> Any:
        return self.series.iloc[rows]


class Hdf5Column:
    """A column in an HDF5 file: a dataset (n,), or a column of a dataset (n, columns)."""

    def __init__(self, path: pathlib.Path, dataset: str, length: int, number: int | None):
        self.path, self.dataset, self.length, self.number = path, dataset, length, number

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, rows: slice) -> np.ndarray:
        with import_extra("h5py").File(self.path, "r") as file:
            values = file[self.dataset][rows] if self.number is None else file[self.dataset][rows, self.number]
        if values.dtype.kind == "O":
            values = np.array([text.decode() if isinstance(text, bytes) else text for text in values], object)
        return values


def from_hdf5(path: pathlib.Path) -> Rows:
    """The rows of an HDF5 file: its datasets (n,) are columns, and so are those of datasets (n, columns)."""
    h5py = import_extra("h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise OSError(f"{path} can't be read as an HDF5 file, it is cut or of another kind: {error}") from None
    columns: dict[str, Any] = {}
    with file:

        def add(name, item):
            if not isinstance(item, h5py.Dataset) or item.ndim not in (1, 2):
                return
            if item.ndim == 1:
                columns[name] = Hdf5Column(path, name, len(item), None)
                return
            for number in range(item.shape[1]):
                columns[f"{name}[{number}]"] = Hdf5Column(path, name, len(item), number)

        file.visititems(add)
    if not columns:
        raise ValueError(f"{path} holds no dataset of one or two axes, expected columns")
    return from_columns(list(columns), list(columns.values()), str(path))


class Several:
    """A source of the rows of several files, one after another, that all have the columns of the first."""

    def __init__(self, sources: list):
        self.sources, self.names = sources, sources[0].names
        for source in sources[1:]:
            if set(source.names) != set(self.names):
                lacking = sorted(set(self.names) - set(source.names)) or sorted(set(source.names) - set(self.names))
                raise ValueError(
                    f"{source.path} and {sources[0].path} have other columns: {lacking[0]!r} is in one of them alone"
                )
        self.places = [(source, block) for source in sources for block in range(len(source.sizes))]
        self.sizes = [size for source in sources for size in source.sizes]

    def for_any_order(self) -> "Several":
        """The source whose blocks are fast to read in any order."""
        return Several([getattr(source, "for_any_order", lambda source=source: source)() for source in self.sources])

    def kinds(self, names: Sequence[str]) -> dict[str, str]:
        return self.sources[0].kinds(names)

    def locate(self, block: int, row: int) -> str:
        source, number = self.places[block]
        return source.locate(number, row)

    def read(self, block: int, columns: list[Column]) -> Any:
        source, number = self.places[block]
        return source.read(number, columns)
