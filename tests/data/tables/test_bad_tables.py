"""Every bad table has a stated treatment, or is refused in one sentence with file, row and column before any work."""

import gzip
import warnings

import numpy as np
import pytest

import kvae
from kvae.data import errors, from_table
from kvae.data.tables import seekable

pytest.importorskip("pyarrow")
MANY = "a,b\n" + "1,2\n2,1\n" * 6_000
N = float("nan")

REFUSED = {  # name: (content, arguments, what the message says)
    "an empty file": ("", {}, "t.csv is empty, expected a header and rows"),
    "blank lines alone": ("\n\n\n", {}, "t.csv is empty, expected a header and rows"),
    "a header alone": ("a,b\n", {}, "t.csv holds no rows below its header"),
    "a header without its newline": ("a,b", {}, "t.csv holds no rows below its header"),
    "another delimiter": ("a;b\n1;2\n", {}, "t.csv has one column, 'a;b': give delimiter=';'"),
    "tabs in a .csv": ("a\tb\n1\t2\n", {}, r"one column, 'a\\tb': give delimiter='\\t'"),
    "decimal commas": ("a;b\n1,5;2\n3;4\n", {"delimiter": ";"}, "row 1: column 'a' holds '1,5'.*give decimal=','"),
    "a decimal comma far below": (
        (MANY + "1,2\n3,4\n").replace(",", ";") + "1,5;3\n",
        {"delimiter": ";"},
        "row 12003: column 'a' holds '1,5', expected a number with a decimal '.': give decimal=','",
    ),
    "separators of thousands": (
        'a,b\n"1,234",5\n12,6\n',
        {},
        "row 1: column 'a' holds '1,234', a number with sep.*decimal=",
    ),
    "separators of thousands and decimals": (
        'a,b\n1,5\n"1,234,567.8",6\n',
        {},
        "row 2: column 'a' holds '1,234,567.8', a n",
    ),
    "points of thousands": (
        "a;b\n1.234,5;2\n3,5;4\n",
        {"delimiter": ";", "decimal": ","},
        "row 1: column 'a' holds '1.234,5', a number with separators of thousands",
    ),
    "times with their zone": (
        "d\n2024-02-29T10:00:00Z\n2024-03-01T10:00:00+02:00\n",
        {},
        "row 1: column 'd' holds '2024-02-29T10:00:00Z', a time with its zone, expected one without",
    ),
    "a short row": ("a,b\n1,2\n3\n", {}, "t.csv, row 2 has 1 cells, expected 2 as the header has: '3'"),
    "a long row": ("a,b\n1,2\n3,4,5\n", {}, "row 2 has 3 cells, expected 2"),
    "a ragged row far below": (MANY + "3\n", {}, "row 12001 has 1 cells"),
    "commas at the ends of rows": ("a,b\n1,2,\n", {}, "row 1 has 3 cells"),
    "a text among numbers": (
        MANY + "oops,3\n",
        {},
        r"row 12001: column 'a' holds 'oops', expected a number: give columns={'a': 'category'}, or na_values=",
    ),
    "a text among the first numbers": ("a\n" + "1\n" * 30 + "x\n", {}, "row 31: column 'a' holds 'x', expected a num"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), {}, "is written in UTF-16, expected UTF-8"),
    "Latin-1 in a header": ("caf\xe9,b\n1,2\n".encode("latin-1"), {}, "bytes that aren't utf-8: give its encoding"),
    "Latin-1 in a cell": ("a,b\nx,1\ncaf\xe9,2\n".encode("latin-1"), {}, "row 2: column 'a' holds .*isn't utf-8"),
    "an open quote": ('a,b\n"x,1\ny,2\n', {}, "has a quote that is never closed"),
    "a name twice": ("a,b,a\n1,2,3\n", {}, "has two columns named 'a'"),
    "no header": ("5.1,3.5,x\n1,2,y\n", {}, "has the number 5.1 among the names of its first row: give names="),
    "no header above whole numbers": (
        "5,3\n1,2\n",
        {},
        "has the number 5 among the names of its first row: give names=",
    ),
    "a label that float64 doesn't hold": (
        "a,y\n1,9007199254740993\n2,3\n",
        {"labels": "y"},
        "label 'y' holds whole numbers of 2",
    ),
    "a column without a name": (",a\n0,3\n1,4\n", {}, "column 1 of the header has no name: choose with columns="),
    "an infinite number": ("a,b\n1,inf\n2,3\n", {}, "row 1: column 'b' holds inf, which is infinite"),
    "a number beyond float32": ("a,b\n1,2\n2,1e300\n", {}, r"row 2: column 'b' holds 1e\+300, which is infinite"),
    "a column without a value": ("a,b\n1,\n2,\n", {}, "column 'b' has no value in the 2 training rows: leave it out"),
    "no date": ("d\n2024-02-29\nsoon\n", {"columns": {"d": "date"}}, "row 2: column 'd' holds 'soon', expected a date"),
    "a negative count": ("n\n2\n-1\n", {"columns": {"n": "count"}}, "row 2: column 'n' holds -1, which was said"),
    "a broken count": ("n\n2\n1.5\n", {"columns": {"n": "count"}}, "row 2: column 'n' holds 1.5"),
    "as many categories as rows": ("i\n" + "".join(f"u{k}\n" for k in range(1_001)), {}, "more than 1,000 categories"),
    "a missing label": ("a,y\n1,no\n2,\n", {"labels": "y"}, "row 2: label 'y' has no value: leave the row out"),
    "a column that isn't there": ("a,b\n1,2\n", {"columns": ["c"]}, r"t.csv holds no column 'c': found \['a', 'b'\]"),
    "an unknown kind": ("a\n1\n2\n", {"columns": {"a": "text"}}, "says that 'a' is 'text'; expected one of 'number'"),
    "Excel": (b"PK\3\4", {"name": "t.xlsx"}, "t.xlsx ends in '.xlsx', expected one of .csv"),
    "no Parquet": (b"PAR1 or not", {"name": "t.parquet"}, "can't be read as a Parquet file"),
    "no HDF5": (b"junk", {"name": "t.h5"}, "can't be read as an HDF5 file"),
    "half a gzip file": (gzip.compress(MANY.encode())[:-40], {"name": "t.csv.gz"}, "t.csv.gz is cut"),
    "an altered gzip file": (
        gzip.compress(MANY.encode())[:-6] + b"\1\2\3\4\5\6",
        {"name": "t.csv.gz"},
        "t.csv.gz is altered",
    ),
}

READ = {  # name: (content, arguments, the rows)
    "a byte order mark": ("\ufeffa,b\n1,2\n2,4\n", {}, [[1, 2], [2, 4]]),
    "three kinds of line ends": ("a,b\r\n1,2\n3,4\r5,6", {}, [[1, 2], [3, 4], [5, 6]]),
    "blank lines": ("a,b\n\n1,2\n\n\r\n3,4\n\n", {}, [[1, 2], [3, 4]]),
    "a quoted newline": ('a,b\n"x\ny",1\n"p ""q"", r",2\n', {}, [[1, 1], [0, 2]]),
    "empty cells, NA and null": ("a,b\n1,NA\n2,\n,null\n3,4\n0,5", {}, [[1, N], [2, N], [N, N], [3, 4], [0, 5]]),
    "NA, a country": ("a,c\n1,NA\n2,US\n3,", {}, [[1, 0], [2, 1], [3, N]]),
    "another text for missing": ("a,c\n1,?\n?,US\n2,DE", {"na_values": ["?"]}, [[1, N], [N, 1], [2, 0]]),
    "a mark and the encoding with one": ("\ufeffa,b\n1,2\n2,4\n", {"encoding": "utf-8-sig"}, [[1, 2], [2, 4]]),
    "names that count": ("0,1\n5,3\n1,2\n", {}, [[5, 3], [1, 2]]),
    "decimal commas that were said": ("a;b\n1,5;2\n3;4\n", {"delimiter": ";", "decimal": ","}, [[1.5, 2], [3, 4]]),
    "Latin-1 that was said": ("a\nz\ncaf\xe9\n".encode("latin-1"), {"encoding": "latin-1"}, [[1], [0]]),
    "a header that was said": ("5,x\n6,y\n", {"names": ["a", "b"]}, [[5, 0], [6, 1]]),
    "dates": ("d\n2024-02-29\n\n1970-01-02\n", {}, [[19782], [1]]),
    "times": ("d\n2024-02-29 12:00:00\n1970-01-02 00:00:00\n", {}, [[19782.5], [1]]),
    "true and false": ("a\ntrue\nfalse\n", {}, [[1], [0]]),
    "true and false, spelled otherwise": ('a\nTrue\nfalse\n TRUE\n"FALSE "\n', {}, [[1], [0], [1], [0]]),
    "spaces around texts": ('a,b\ncook, x\n cook ,y\n"nurse "," "\n', {}, [[0, 0], [0, 1], [1, N]]),
    "texts that differ in their case": ("a\nYes\nyes\nno\n", {}, [[0], [2], [1]]),
    "empty lines in one column": ("a\n1\n\n3\r\n\r\n4\n\n\n", {}, [[1], [3], [4]]),
    "a value that is missing in one column": ('a\n1\n""\n3\n\n', {}, [[1], [N], [3]]),
    "spaces around numbers": ("a,b\n 1 , 2\n3,  4 \n", {}, [[1, 2], [3, 4]]),
    "a constant column": ("a,b\n1,5\n2,5\n", {}, [[1, 5], [2, 5]]),
    "a text among numbers that is a category": ("a\n1\nx\n", {"columns": {"a": "category"}}, [[0], [1]]),
    "gzip that isn't": ("a\n1\n2\n", {"name": "t.csv.gz"}, [[1], [2]]),
    "an index that is left out": (",a\n0,3\n1,4\n", {"columns": ["a"]}, [[3], [4]]),
}


BLANK = ' has one column and empty lines, which are no rows: write "" for a value that is missing.'
TOLD = {  # name: the warning
    "a constant column": "column 'b' holds one value in all training rows and tells nothing of a row: leave it out "
    "with columns=.",
    "names that count": "its first row, 0, 1, is taken for the names of the columns. Give names= if it is a row of "
    "values.",
    "texts that differ in their case": "column 'a' has the categories 'Yes' and 'yes', which differ in their case "
    "alone: write them alike if they are one.",
    "empty lines in one column": BLANK,
    "dates": BLANK,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(seekable, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(seekable, "CHECKPOINT_BYTES", 10_000)


def written(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_table_is_refused_in_a_sentence(case, tmp_path):
    content, arguments, message = REFUSED[case]
    arguments = dict(arguments)
    path = written(tmp_path, content, arguments.pop("name", "t.csv"))
    with pytest.raises((ValueError, KeyError, OSError), match=message) as found:
        kvae.data.pack(from_table(path, **arguments), tmp_path / "packed", progress=False)
    assert len(str(found.value)) < 400 and "\n" not in str(found.value)
    assert not (tmp_path / "packed").exists(), "half-written"


@pytest.mark.parametrize("case", READ)
def test_an_odd_table_is_read(case, tmp_path):
    content, arguments, expected = READ[case]
    arguments = dict(arguments)
    path = written(tmp_path, content, arguments.pop("name", "t.csv"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        stream = from_table(path, **arguments)
    with errors.clear_errors():
        np.testing.assert_array_equal(next(iter(stream)), np.array(expected, "float32"))
    told = [str(each.message).removeprefix(str(path)).removeprefix(": ") for each in caught]
    assert told == ([TOLD[case]] if case in TOLD else [])


def test_files_of_one_table_have_its_columns(tmp_path):
    paths = [written(tmp_path, "a,b\n1,2\n", "1.csv"), written(tmp_path, "a,c\n1,2\n", "2.csv")]
    with pytest.raises(ValueError, match=r"2.csv and .*1.csv have other columns: 'b' is in one of them alone"):
        from_table(paths)
    written(tmp_path, "b,a\n1,2\n5\n", "2.csv")
    with pytest.raises(ValueError, match=r"2.csv, row 2 has 1 cells"):
        from_table(str(tmp_path / "*.csv"))
    with pytest.raises(FileNotFoundError, match=r"none-\*.csv names no file"):
        from_table("none-*.csv")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"a": [1, 2], "b": [1]}, "the dict has columns of several lengths"),
        ({"a": [1, "x"]}, "column 'a' holds values of several types"),
        ({"a": [[1], [2, 3]]}, "column 'a' holds values of the type list"),
        (np.zeros((0, 3)), "the ndarray holds no rows"),
        (np.zeros(3), r"the ndarray has the shape \(3,\)"),
        (np.ones((3, 2), complex), "the dtype complex128, expected rows of columns"),
        (np.array([[1.0, np.inf]]), "the ndarray, row 1: column '1' holds inf"),
        (5, "source is 5; expected the path of a table"),
        (
            ({"a": np.array([5, 2**63 + 1], "uint64")}, {"a": "category"}),
            r"the dict, row 2: column 'a' holds 9223372036854775809, and numbers of 2\^63 and more are no categories",
        ),
        (({"a": [[1], [2]]}, {"a": "category"}), "column 'a' holds values of the type list.*are no categories"),
    ],
    ids=str,
)
def test_other_tables_are_refused_in_a_sentence(source, message):
    with pytest.raises((ValueError, TypeError), match=message):
        from_table(*(source if isinstance(source, tuple) else (source,)))


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        (
            {"a": [123_456_789, 123_456_791, 5]},
            {},
            "column 'a' holds 123456789, which x, of float32, holds as 123456792",
        ),
        ({"a": np.array([2**53 + 3, 5])}, {}, "holds 90071992547"),
        (
            {"a": [16_777_217.0, 5.0]},
            {"columns": {"a": "count"}},
            "holds 16777217, which x, of float32, holds as 16777216",
        ),
        (
            {"a": np.array(["2024-02-29T10:11:12", "2024-03-01"], "datetime64[s]")},
            {},
            "column 'a' holds times, which x, days of float32, rounds, here by 53 s",
        ),
        ({"a": [1e9 + 0.5, 16_777_216.0, 7.0]}, {}, None),
        ({"a": [1, 2], "y": [123_456_789, 123_456_791]}, {"labels": "y"}, None),
    ],
)
def test_values_that_float32_makes_alike_are_told(table, arguments, message):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        stream = from_table(table, **arguments)
    told = [str(each.message) for each in caught]
    assert len(told) == (message is not None) and (message or "") in "".join(told)
    if "labels" in arguments:
        assert next(iter(stream))[1].numpy().tolist() == table["y"]


def test_masked_values_are_missing():
    masked = np.ma.masked_array([[7, 1], [2, 7], [3, 4]], mask=[[1, 0], [0, 1], [0, 0]])
    texts = np.ma.masked_array(["x", "y", "z"], mask=[0, 0, 1])
    for table in (masked, masked.astype("float32"), {"a": masked[:, 0], "b": masked[:, 1]}):
        np.testing.assert_array_equal(next(iter(from_table(table))), [[N, 1], [2, N], [3, 4]])
    stream = from_table({"c": texts, "a": [1, 2, 3]})
    np.testing.assert_array_equal(next(iter(stream))[:, 0], [0, 1, N])
    assert stream.columns[0].categories == ("x", "y")


def test_true_and_false_are_bools_from_whichever_file(tmp_path):
    stream = from_table(written(tmp_path, "a\nTRUE\nFalse\ntrue\n"))
    assert stream.columns[0].categories == (False, True)
    assert stream.columns.decode(next(iter(stream)))["a"].tolist() == [True, False, True]
    for source in ({"a": [False, True, None]}, written(tmp_path, 'a\nfalse\nTrue\n""\n', "new.csv")):
        np.testing.assert_array_equal(next(iter(from_table(source, stream.columns))), [[0], [1], [N]])
    unknown = pytest.raises(
        ValueError, match="row 1: column 'a' holds 'perhaps', a category that the training rows lack"
    )
    with unknown, errors.clear_errors():
        next(iter(from_table({"a": ["perhaps"]}, stream.columns)))
