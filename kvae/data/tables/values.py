"""The values of a table's columns as numbers: floats, codes of categories, days."""

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvae.columns import Column

MOSTLY = 0.9  # the share of numbers above which a text among them is taken for a fault
_DAY = 86_400 * 10**6  # microseconds
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.'\u2019\u00a0\u202f])\d{3}(\1\d{3})*([,.]\d+)?")  # 1,234,567.8
_ZONE = re.compile(r".*:.*(Z|[+-]\d\d:?\d\d)")


class CellError(ValueError):
    """A value that can't be read, with the position of its row."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


def arrow(values: Any) -> Any:
    """A column as an array of pyarrow, with nulls for None, NaN, NaT and masked values."""
    pa: Any = importlib.import_module("pyarrow")
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = pa.array(values, from_pandas=True)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def kind_of(values: Any) -> str:
    """The kind of a column, by the type of its values: "number", "category" or "date"."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return "number"
    types: Any = importlib.import_module("pyarrow").types
    kind = arrow(values).type
    if _is_numeric(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date"
    if "string" in str(kind) or types.is_boolean(kind) or types.is_time(kind):
        return "category"
    raise ValueError(f"holds values of the type {kind}, expected numbers, texts or dates: leave it out with columns=")


def is_categorical(values: Any) -> bool:
    """Whether a column of pandas, or of pyarrow, is one of categories by its type, whatever they are."""
    types: Any = importlib.import_module("pyarrow").types
    kind = getattr(values, "type", None)
    return str(getattr(values, "dtype", "")) == "category" or (kind is not None and types.is_dictionary(kind))


def numbers(values: Any, column: Column) -> np.ndarray:
    """The values of a column that is no category, float64 (n,), NaN for missing ones. Raises CellError."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        found = values.astype("float64")
    else:
        values = arrow(values)
        found = _days(values) if column.kind == "date" else _floats(values, column)
    with np.errstate(over="ignore"):
        wrong = np.isinf(found.astype("float32"))
    _refuse(wrong, found, lambda value: "is infinite, or beyond float32: leave the row out, or its cell empty")
    if column.kind == "count":
        wrong = (found < 0) | (found != np.rint(found)) & ~np.isnan(found)
        _refuse(wrong, found, lambda value: "was said to be a count, 0, 1, 2, ...")
    return found


def _refuse(wrong, values, reason):
    if wrong.any():
        row = int(np.argmax(wrong))
        raise CellError(row, f"holds {values[row]:g}, which {reason(values[row])}")


def _floats(values, column):
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    if pa.types.is_boolean(values.type):
        values = values.cast("uint8")
    if "string" in str(values.type):
        values = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(values, ""), None, values)
    elif not _is_numeric(values.type):
        raise CellError(0, f"holds values of the type {values.type}, expected numbers{_advice(values.type)}")
    try:
        values = values.cast("float64", safe=not pa.types.is_integer(values.type))
    except pa.ArrowInvalid:
        row = next(row for row, text in enumerate(values.to_pylist()) if text is not None and not is_number(text))
        raise CellError(row, not_a_number(values[row].as_py(), column)) from None
    return values.to_numpy(zero_copy_only=False)


def _is_numeric(kind):
    types: Any = importlib.import_module("pyarrow").types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)


def _advice(kind):
    return ': columns={name: "date"} reads dates' if "date" in str(kind) or "timestamp" in str(kind) else ""


def is_number(text: str) -> bool:
    """Whether a text is a number, as Python reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_numbers(texts: Sequence[str | None], column: Column, decimal: str) -> None:
    """Raise CellError if a column's texts are numbers that aren't read as such, or almost all are numbers."""
    present = [(row, text) for row, text in enumerate(texts) if text]
    others = [(row, text) for row, text in present if not _is_plain(text, decimal)]
    if not others:
        return
    row, text = others[0]
    if all(_GROUPED.fullmatch(text.strip()) for _, text in others):
        raise CellError(
            row,
            f"holds {text!r}, a number with separators of thousands, or with another decimal mark: write it without "
            f"them, give decimal= if it is the mark, or columns={{{column.name!r}: 'category'}}",
        )
    if decimal == "." and all(is_number(text.replace(",", ".")) for _, text in others):
        category = f"columns={{{column.name!r}: 'category'}}"
        raise CellError(row, f"{not_a_number(text, column)}, or say that it is a category with {category}")
    if len(others) < (1 - MOSTLY) * len(present):
        raise CellError(row, not_a_number(text, column, decimal))


def _is_plain(text, decimal):
    return is_number(text) if decimal == "." else "." not in text and is_number(text.replace(",", "."))


def not_a_number(text: str, column: Column, decimal: str = ".") -> str:
    """The message about a text in a column of numbers."""
    other = "," if decimal == "." else "."
    if other in text and is_number(text.replace(other, ".")) and text.count(other) == 1:
        return f"holds {text!r}, expected a number with a decimal {decimal!r}: give decimal={other!r}"
    return (
        f"holds {text!r}, expected a number: give columns={{{column.name!r}: 'category'}}, or na_values=[{text!r}] if "
        "it means a missing value"
    )


def cell_fault(text: str, column: Column, decimal: str) -> str | None:
    """The message about a cell that isn't what its column holds, or None."""
    if column.kind == "category":
        return None
    if column.kind == "date":
        if _ZONE.fullmatch(text.strip()):
            return f"holds {text!r}, a time with its zone, expected one without: write all of them in one zone"
        try:
            np.datetime64(text.strip().removesuffix("Z"))
        except ValueError:
            return f"holds {text!r}, expected a date such as 2024-02-29"
        return None
    try:
        float(text.replace(",", ".") if decimal == "," and "." not in text else text)
        is_number = decimal == "." or "." not in text
    except ValueError:
        is_number = False
    return None if is_number and "_" not in text else not_a_number(text, column, decimal)


def _days(values):
    pa: Any = importlib.import_module("pyarrow")
    if not (pa.types.is_date(values.type) or pa.types.is_timestamp(values.type) or pa.types.is_null(values.type)):
        texts = values.to_pylist()
        try:
            values = values.cast("timestamp[us]")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            for row, text in enumerate(texts):
                try:
                    np.datetime64(text if text is not None else "NaT")
                except (ValueError, TypeError):
                    raise CellError(row, f"holds {text!r}, expected a date such as 2024-02-29") from None
            raise CellError(0, f"holds values of the type {values.type}, expected dates") from None
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    micros = values.cast("timestamp[us]", safe=False).cast("int64")
    found = micros.to_numpy(zero_copy_only=False) / _DAY
    return found.astype("float64")


def codes(values: Any, column: Column, unseen: str) -> np.ndarray:
    """The codes of a category, float64 (n,), NaN for missing ones. Raises CellError for a value without a code.

    unseen: "error", or "missing" to read such values as missing.
    """
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    values, known = categories(values), pa.array(column.categories)
    is_spelled = pa.types.is_boolean(known.type) and pa.types.is_string(values.type)
    if is_spelled:
        known = known.cast("string")  # "false" and "true"
    elif values.type != known.type:
        if {str(values.type), str(known.type)} == {"double", "int64"}:
            values, known = values.cast("double"), known.cast("double")
        elif pa.types.is_null(values.type):
            return np.full(len(values), np.nan)
        else:
            raise CellError(
                0, f"has the type {values.type}, but {known.type} in the training rows: give values of that type"
            )
    found = pc.index_in(pc.utf8_lower(values) if is_spelled else values, value_set=known)
    if found.null_count > values.null_count and unseen == "error":
        is_new = pc.and_(found.is_null(), values.is_valid()).to_numpy(zero_copy_only=False)
        row = int(np.argmax(is_new))
        raise CellError(
            row,
            f"holds {values[row].as_py()!r}, a category that the training rows lack: leave the row out, or read it as "
            'missing with unseen="missing"',
        )
    return found.cast("float64").to_numpy(zero_copy_only=False)


def categories(values: Any) -> Any:
    """A column of categories as an array of pyarrow: texts without spaces around them, int64, double or bool.

    An empty text is missing. Raises CellError for what can't be a category.
    """
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    values = arrow(values)
    if pa.types.is_integer(values.type):
        try:
            return values.cast("int64")
        except pa.ArrowInvalid:
            row, value = next((row, value) for row, value in enumerate(values.to_pylist()) if (value or 0) >= 2**63)
            raise CellError(row, f"holds {value}, and numbers of 2^63 and more are no categories: give texts") from None
    if pa.types.is_floating(values.type):
        return values.cast("double")
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return values
    try:
        values = pc.utf8_trim_whitespace(values.cast("string"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise CellError(0, f"holds values of the type {values.type}, which are no categories: give texts") from None
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, "string"), values)


def without_texts(values: Any, texts: Sequence[str]) -> Any:
    """A column of pyarrow with nulls in place of these texts; of other types as it is."""
    pa: Any = importlib.import_module("pyarrow")
    pc: Any = importlib.import_module("pyarrow.compute")
    values = arrow(values)
    if not pa.types.is_string(values.type):
        return values
    return pc.if_else(pc.is_in(values, value_set=pa.array(list(texts), "string")), pa.scalar(None, "string"), values)


def matrix(
    arrays: Any, columns: list[Column], locate: Callable, chosen: list[int] | None = None, unseen: str = "error"
) -> np.ndarray:
    """The chosen columns of a block, float64 (n, chosen). Raises ValueError with file, row and column.

    arrays: an array (n, columns) of numbers, or a list of columns.
    """
    wanted = list(range(len(columns))) if chosen is None else chosen
    is_matrix = isinstance(arrays, np.ndarray)
    if is_matrix and all(columns[number].kind in ("number", "integer") for number in wanted):
        found = np.asarray(arrays[:, wanted], "float64")
        with np.errstate(over="ignore"):
            if not np.isinf(found.astype("float32")).any():
                return found
    rows = len(arrays) if is_matrix else len(arrays[0])
    found = np.empty((rows, len(wanted)), order="F")
    for place, number in enumerate(wanted):
        values, column = arrays[:, number] if is_matrix else arrays[number], columns[number]
        try:
            found[:, place] = codes(values, column, unseen) if column.kind == "category" else numbers(values, column)
        except CellError as error:
            raise ValueError(f"{locate(error.row)}: column {column.name!r} {error}") from None
    return found
