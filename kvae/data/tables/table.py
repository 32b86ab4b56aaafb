"""`from_table`: the rows of a table as a Stream, whatever holds them."""

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvae import arguments
from kvae.columns import KINDS, Column, Columns, validate_unique
from kvae.data import files
from kvae.data.elements import validate_batch_size, validate_shuffle
from kvae.data.splits import label_names, rows_of_part
from kvae.data.stream import Stream
from kvae.data.tables import sources
from kvae.data.tables.csv import CsvFile, CsvFormat
from kvae.data.tables.fit import Fit
from kvae.data.tables.parquet import ParquetFile
from kvae.data.tables.values import matrix

_CSV, _PARQUET, _HDF5 = (".csv", ".tsv", ".txt"), (".parquet", ".pq"), (".h5", ".hdf5", ".he5")


def from_table(
    source: Any,
    columns: Sequence[str] | Mapping[str, str] | Columns | None = None,
    labels: str | list[str] | tuple[str, ...] | None = None,
    batch_size: int = 128,
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str = "utf-8",
    na_values: Sequence[str] | None = None,
    unseen: str = "error",
    shuffle: int = 0,
    seed: int | None = 0,
    part: str | None = None,
    validation: float = 0.1,
) -> Stream:
    """A Stream of the rows of a table: x float32 (n, columns), in the table's own units.

    Numbers stay as they are, texts become the codes of categories, dates become days since 1970-01-01, and an empty
    cell, a null or a NaN becomes NaN. One pass checks every value, and finds the categories, means and standard
    deviations of the training rows: with a `part`, whichever it is, those of "train". The result is the Stream's
    `columns`, which read other tables alike:

    - another file: `from_table("test.csv", columns=train.columns)`
    - rows for a loaded model: `from_table("new.csv", columns=model.likelihood.columns)`

    No more than some blocks of a file are in memory at once. Of a gzip file, 40 KB for each 4 MB of text stay too.

    Args:
        source: a .csv, .tsv or .txt file, plain or .gz; a .parquet, .npy or .h5 file; several files of a kind, as a
            list or a pattern such as "rows-*.csv"; a DataFrame of pandas or polars; a Table of pyarrow; {name: column};
            an array (n, columns), also a memory map; or a sparse matrix of scipy, made dense by the block. In an HDF5
            file, datasets (n,) are columns, and those of datasets (n, columns) are named "x[0]", "x[1]", ...
        columns: the columns of x. None for all but the labels; their names; {name: kind}, with the kinds "number",
            "count", "category" and "date"; or fitted `Columns`. By default texts and bools are categories, numbers are
            numbers.
        labels: name of a column for batches (x, y), or names for (x, {name: y}). Texts become codes, int64, with the
            Stream's `class_names`; whole numbers int64, others float32.
        batch_size: int. Default 128.
        names: names of the columns of a table without them: a CSV file without a header, an array. The columns of an
            array are else named "0", "1", ...
        delimiter: character between the cells of a CSV file. Default None: a comma, or a tab in .tsv files.
        decimal: "." (default) or ",", of numbers in a CSV file.
        encoding: of a CSV file. Default "utf-8", with or without a byte order mark.
        na_values: texts of a CSV file that mean a missing value, besides empty cells. Default None: "NA", "NaN",
            "null", "N/A" and their like in columns of numbers; none among categories.
        unseen: "error" (default) or "missing": the treatment of categories that fitted `columns` lack.
        shuffle: rows in the shuffle buffer, as for `from_npy`; of Parquet whole row groups. 0 keeps the order.
        seed, part, validation: as for `from_npy`.

    Raises:
        ImportError: without pyarrow or h5py, for the tables that need it.
        KeyError: for a column that isn't there.
        OSError: for a file that is missing, cut or altered.
        TypeError: for arguments and sources of another kind.
        ValueError: for a value, a row or a file that can't be read, with its file and row. The first row below the
            header is row 1.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/people.csv", "w") as file:
    ...         _ = file.write("age,job,happy\\n31,cook,yes\\n,nurse,no\\n45,cook,yes\\n")
    ...     stream = kvae.data.from_table(f"{folder}/people.csv", labels="happy")
    ...     x, y = next(iter(stream))
    >>> x.numpy(), y.numpy()
    (array([[31.,  0.],
           [nan,  1.],
           [45.,  0.]], dtype=float32), array([1, 0, 1]))
    >>> stream.columns, stream.class_names
    (Columns(age: integer, job: category), ('no', 'yes'))
    """
    validate_batch_size(batch_size)
    validate_shuffle(shuffle)
    arguments.choice("unseen", unseen, ("error", "missing"))
    wanted_labels = label_names(labels)
    form = CsvFormat(names, delimiter, decimal, encoding, na_values)
    table = open_table(source, form)
    chosen, kinds = _chosen(table, columns, wanted_labels)
    if isinstance(columns, Columns):
        fitted = Columns(columns.columns, _known_labels(columns, wanted_labels))
        if set(wanted_labels) - {label.name for label in fitted.labels}:
            known = [label.name for label in columns.labels]
            raise KeyError(f"labels is {labels!r}, but the columns were fitted with the labels {known}")
    else:
        fitted = _fit(table, chosen, kinds, wanted_labels, (part, validation))
    if shuffle and hasattr(table, "for_any_order"):
        table = table.for_any_order()
    all_columns = [*fitted.columns, *fitted.labels]
    width = len(fitted)

    def read(blocks):
        found = [_block(table, int(block), all_columns, width, unseen) for block in blocks]
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    example = [np.zeros((0, width), "float32"), *(np.zeros(0, _label_dtype(label)) for label in fitted.labels)]
    stream = files.from_blocks(
        read, table.sizes, example, ["x", *wanted_labels], batch_size, shuffle, seed, (part, validation)
    )
    if labels is not None and not isinstance(labels, str):
        stream = stream.map(lambda x, *y: (x, dict(zip(wanted_labels, y, strict=True))))
    stream.columns = fitted
    if isinstance(labels, str) and fitted.labels[0].kind == "category":
        stream.class_names = tuple(map(str, fitted.labels[0].categories))
    return stream


def _chosen(table, columns, labels):
    """(names of the columns of x, {name: kind}). Raises KeyError for one that isn't there."""
    if isinstance(columns, str):
        raise TypeError(f"columns is {columns!r}; expected a list of names, such as [{columns!r}].")
    if columns is not None and not isinstance(columns, Sequence | Mapping):
        raise TypeError(f"columns is {columns!r}; expected names, {{name: kind}}, or the columns of a Stream.")
    kinds: dict[str, str] = {}
    if columns is None:
        chosen = [name for name in table.names if name not in labels]
        if "" in chosen:
            raise ValueError(
                f"{_name(table)}: column {chosen.index('') + 1} of the header has no name: choose with columns="
            )
    elif isinstance(columns, Columns):
        chosen = list(columns.names)
    else:
        chosen, kinds = list(columns), dict(columns) if isinstance(columns, Mapping) else {}
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise ValueError(f"columns says that {name!r} is {kind!r}; expected one of {', '.join(map(repr, KINDS))}.")
    for name in (*chosen, *labels):
        if not isinstance(name, str):
            raise TypeError(f"columns holds {name!r}; expected the names of columns, texts.")
        if name not in table.names:
            known = table.names if len(table.names) <= 20 else [*table.names[:20], "..."]
            raise KeyError(f"{_name(table)} holds no column {name!r}: found {known}")
    if not chosen:
        raise ValueError(f"columns is {columns!r}; expected at least one column besides the labels.")
    validate_unique(table.names, _name(table))
    validate_unique(chosen, "columns")
    if both := sorted(set(chosen) & set(labels)):
        raise ValueError(f"{both[0]!r} is among columns and labels; expected it in one of them.")
    return chosen, kinds


def _known_labels(columns, labels):
    return [label for name in labels for label in columns.labels if label.name == name]


def _name(table):
    return table.locate(0, 0).rsplit(", row ", 1)[0]


def _fit(table, names, kinds, labels, part):
    """The `Columns` of one pass over the rows of the part, or over those for training."""
    inferred = {**table.kinds([name for name in (*names, *labels) if name not in kinds]), **kinds}
    columns = []
    for name in (*names, *labels):
        kind = inferred[name]
        if kind not in KINDS:
            raise ValueError(f"{_name(table)}: column {name!r} {kind}")
        columns.append(Column(name, kind))
    fit, is_chosen = Fit(columns, len(labels)), rows_of_part(sum(table.sizes), "train" if part[0] else None, part[1])
    first = 0
    for block, size in enumerate(table.sizes):
        rows = None if is_chosen is None else is_chosen[first : first + size]
        fit.add(table.read(block, columns), rows, lambda row, block=block: table.locate(block, row))
        first += size
    fitted = fit.fitted(_name(table))
    return Columns(fitted[: len(names)], fitted[len(names) :])


def _block(table, block, columns, width, unseen):
    """[x, *labels] of a block."""
    arrays = table.read(block, columns)

    def locate(row):
        return table.locate(block, row)

    found = matrix(arrays, columns, locate, unseen=unseen)
    for number, label in enumerate(columns[width:], start=width):
        missing = np.isnan(found[:, number])
        if missing.any():
            raise ValueError(f"{locate(int(np.argmax(missing)))}: label {label.name!r} has no value: leave the row out")
    labels = (found[:, width + n].astype(_label_dtype(label)) for n, label in enumerate(columns[width:]))
    return [np.ascontiguousarray(found[:, :width], "float32"), *labels]


def _label_dtype(label):
    return "float32" if label.kind in ("number", "date") else "int64"


# What holds the rows --------------------------------------------------------------------------------------------------


def open_table(source: Any, form: CsvFormat) -> Any:
    """The source of rows. Raises TypeError for other things than a table."""
    if isinstance(source, str) and any(mark in source for mark in "*?["):
        found = sorted(glob.glob(source))
        if not found:
            raise FileNotFoundError(f"{source} names no file")
        source = found
    if isinstance(source, str | os.PathLike):
        return _open_file(arguments.path("source", source), form)
    if isinstance(source, list | tuple) and source and all(isinstance(each, str | os.PathLike) for each in source):
        return sources.Several([_open_file(path, form) for path in source])
    name = f"the {type(source).__name__}"
    if isinstance(source, Mapping):
        return sources.from_columns([str(key) for key in source], list(source.values()), name)
    is_frame = hasattr(source, "columns") or hasattr(source, "schema")  # and no Series
    if is_frame and (hasattr(source, "iloc") or hasattr(source, "__arrow_c_stream__")):
        return sources.from_frame(source, name)
    if all(hasattr(source, attribute) for attribute in ("shape", "dtype")) and not hasattr(source, "element_spec"):
        return sources.from_matrix(source, name, form.names)
    raise TypeError(
        f"source is {source!r:.60}; expected the path of a table, a DataFrame, {{name: column}}, an array (n, columns) "
        "or a sparse matrix."
    )


def _open_file(path, form):
    path = files.validate_file(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _CSV:
        return CsvFile(path, form)
    if suffix in _PARQUET:
        return ParquetFile(path)
    if suffix in _HDF5:
        return sources.from_hdf5(path)
    if suffix == ".npy":
        return sources.from_matrix(files._mapped(path), str(path), form.names)
    known = ", ".join((*_CSV, *_PARQUET, *_HDF5, ".npy"))
    raise ValueError(f"{path} ends in {suffix or 'nothing'!r}, expected one of {known}, the first three also with .gz")
