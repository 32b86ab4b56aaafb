"""A table gives the same rows whatever holds it, and its Stream is one of the others."""

import gzip
import sys

import h5py
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from breadth import some

import kvae
from kvae.data import errors, from_table
from kvae.data.tables import parquet, seekable, sources

NAN = float("nan")

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ROWS, BATCH = 200, 32
CHOSEN = ["age", "job", "weight", "born", "visits"]


@pytest.fixture
def columns(rng):
    weight = rng.normal(70, 10, ROWS).round(3)
    weight[3] = np.nan
    jobs = rng.choice(["cook", "nurse", 'smith, "the"\nold'], ROWS).tolist()
    jobs[5] = None
    return {
        "age": rng.integers(18, 80, ROWS),
        "job": jobs,
        "weight": weight,
        "born": rng.integers(0, 20_000, ROWS).astype("datetime64[D]"),
        "visits": rng.poisson(2, ROWS),
        "happy": rng.choice(["no", "yes"], ROWS).tolist(),
    }


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(seekable, "BLOCK_BYTES", 700)
    monkeypatch.setattr(seekable, "CHECKPOINT_BYTES", 1_500)
    monkeypatch.setattr(seekable, "PACKED_BYTES", 300)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 16 * 6 * 30)
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 0)  # 1,024 rows


def csv_text(columns, delimiter=",", end="\n", decimal="."):
    def cell(value):
        if value is None or value != value:
            return ""
        text = str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        return (
            f'"{text}"'.replace('""', '"')
            if text == ""
            else '"' + text.replace('"', '""') + '"'
            if (any(mark in text for mark in f'{delimiter}"\n'))
            else text
        )

    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(cell, row)) for row in zip(*columns.values(), strict=True)]
    return end.join(lines) + end


def written(kind, tmp_path, columns):
    """What `from_table` reads, and the arguments beside it."""
    path = tmp_path / f"rows.{kind}"
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    if kind in ("csv", "txt"):
        path.write_text(csv_text(columns, end="\r\n" if kind == "txt" else "\n"), newline="")
    elif kind == "tsv":
        path.write_text(csv_text(columns, "\t", decimal=","))
        return path, {"decimal": ","}
    elif kind == "csv.gz":
        halves = csv_text(columns).encode()[:3000], csv_text(columns).encode()[3000:]
        path.write_bytes(b"".join(map(gzip.compress, halves)))  # two members, as `cat` leaves them
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=30)
    elif kind == "several":
        paths = [tmp_path / f"rows-{part}.csv" for part in range(3)]
        for part, some in zip(paths, np.array_split(np.arange(ROWS), 3), strict=True):
            part.write_text(csv_text({name: [values[row] for row in some] for name, values in columns.items()}))
        return str(tmp_path / "rows-*.csv"), {}
    elif kind == "table":
        return table, {}
    elif kind == "dict":
        return columns, {}
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                if name in ("job", "happy"):
                    file.create_dataset(name, data=[v or "" for v in values], dtype=h5py.string_dtype())
                else:
                    file[name] = values.astype("int64") if name == "born" else values
        return path, {}
    return path, {}


def rows(stream, **options):
    with errors.clear_errors():
        batches = list(stream.epoch(options.pop("epoch", 0), **options).as_numpy_iterator())
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


KINDS = ["csv", "txt", "tsv", "csv.gz", "several", "parquet", "table", "dict", "hdf5"]


@pytest.mark.parametrize("kind", some(KINDS, "csv.gz", "parquet", "dict"))
def test_a_table_gives_its_rows_and_columns(kind, tmp_path, columns, small_blocks):
    source, options = written(kind, tmp_path, columns)
    stream = from_table(source, CHOSEN, "happy", BATCH, **options)
    assert isinstance(stream, kvae.data.Stream) and stream.cardinality() == 7
    x, y = rows(stream)
    assert x.dtype == np.float32 and y.dtype == np.int64 and stream.class_names == ("no", "yes")
    assert stream.columns.names == tuple(CHOSEN)
    decoded = stream.columns.decode(x)
    assert decoded["age"].tolist() == columns["age"].tolist() and decoded["job"].tolist() == columns["job"]
    np.testing.assert_array_equal(x[:, 2], columns["weight"].astype("float32"))
    np.testing.assert_array_equal(x[:, 3], columns["born"].astype(int))
    assert [("no", "yes")[code] for code in y] == columns["happy"]
    age, job, weight, *_ = stream.columns
    assert (age.kind, job.kind, weight.kind) == ("integer", "category", "number")
    assert job.categories == ("cook", "nurse", 'smith, "the"\nold') and job.missing == pytest.approx(1 / ROWS)
    assert weight.mean == pytest.approx(np.nanmean(columns["weight"]), rel=1e-12)
    assert weight.scale == pytest.approx(np.nanstd(columns["weight"]), rel=1e-10)
    if kind != "hdf5":  # it has no dates
        assert (decoded["born"] == columns["born"]).all()


@pytest.mark.parametrize("kind", some(["csv", "csv.gz", "parquet"], "csv.gz"))
def test_epochs_parts_and_positions(kind, tmp_path, columns, small_blocks):
    source, _ = written(kind, tmp_path, columns)
    options = {"columns": {"visits": "count", "age": "number"}, "labels": ["age"], "batch_size": 16, "shuffle": 50}
    with pytest.raises(ValueError, match="'age' is among columns and labels"):
        from_table(source, **options)
    options |= {"columns": {"visits": "count", "weight": "number"}, "labels": ["age", "happy"]}
    streams = {part: from_table(source, part=part, seed=3, **options) for part in ("train", "validation", "test")}
    assert {part: stream.num_batches for part, stream in streams.items()} == {"train": 10, "validation": 2, "test": 2}
    train = streams["train"]
    epochs = [list(train.epoch(number).as_numpy_iterator()) for number in range(2)]
    rest = list(train.epoch(1, skip=4).as_numpy_iterator())
    for (x, y), (later_x, later_y) in zip(epochs[1][4:], rest, strict=True):
        np.testing.assert_array_equal(x, later_x)
        assert y.keys() == {"age", "happy"} and (y["age"] == later_y["age"]).all()
    first, second = (np.concatenate([y["age"] for _, y in epoch]) for epoch in epochs)
    assert sorted(first) == sorted(second) and list(first) != list(second)
    found = sorted(
        np.concatenate([y["age"] for stream in streams.values() for _, y in stream.epoch(0).as_numpy_iterator()])
    )
    assert found == sorted(columns["age"])
    whole = kvae.data.from_npy  # the rows of a part are those that the other files give
    np.save(tmp_path / "age.npy", columns["age"][:, None])
    same = np.concatenate(list(whole(tmp_path / "age.npy", part="train").as_numpy_iterator()))[:, 0]
    unshuffled = from_table(source, part="train", **{**options, "shuffle": 0})
    assert list(same) == list(np.concatenate([y["age"] for _, y in unshuffled.epoch(0).as_numpy_iterator()]))


def test_columns_read_other_tables_alike(tmp_path, columns):
    train = from_table(columns, ["job", "age"], "happy")
    other = {"happy": ["yes"], "age": [30], "weight": [1.5], "job": ["nurse"]}
    x, y = rows(from_table(other, train.columns, "happy"))
    assert x.tolist() == [[1, 30]] and y.tolist() == [1]
    assert rows(from_table({**other, "job": [None]}, train.columns).map(lambda x: (x,)))[0][0, 0] != 1
    unseen = {**other, "job": ["pilot"]}
    with pytest.raises(ValueError, match=r"the dict, row 1: column 'job' holds 'pilot', a category that the training"):
        rows(from_table(unseen, train.columns, "happy"))
    assert np.isnan(rows(from_table(unseen, train.columns, "happy", unseen="missing"))[0][0, 0])
    with pytest.raises(KeyError, match="fitted with the labels"):
        from_table(other, from_table(columns, ["job"]).columns, "happy")


def test_packed_rows_keep_their_columns(tmp_path, columns):
    train = from_table(columns, CHOSEN, "happy", part="train")
    validation = from_table(columns, CHOSEN, "happy", part="validation")  # fitted to the training rows as well
    kvae.data.pack({"train": train, "validation": validation}, tmp_path / "packed", progress=False)
    stored, held_out, _ = kvae.data.load(tmp_path / "packed", labels="happy", shuffle=0, validation=0)
    assert stored.columns == held_out.columns == train.columns and stored.class_names == ("no", "yes")
    for found, expected in zip(rows(stored), rows(train), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert kvae.data.load(tmp_path / "packed")[0].columns == train.columns
    with pytest.raises(ValueError, match="validation was read with other columns than train"):
        other = from_table(columns, CHOSEN, "happy", part="validation", validation=0.3)
        kvae.data.pack({"train": train, "validation": other}, tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()


def test_columns_survive_their_configuration(columns):
    import json

    fitted = from_table(columns, CHOSEN, "happy").columns
    assert kvae.data.Columns.from_config(json.loads(json.dumps(fitted.get_config()))) == fitted
    assert hash(fitted) == hash(kvae.data.Columns.from_config(fitted.get_config()))
    with pytest.raises(ValueError, match=r"x has the shape \(3, 2\); expected \(n, 5\)"):
        fitted.decode(np.zeros((3, 2)))


def test_arrays_and_sparse_matrices(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 8 * 30 * 7)
    counts = scipy.sparse.random(50, 30, 0.2, random_state=0, format="csc", data_rvs=lambda n: rng.poisson(3, n) + 1.0)
    stream = from_table(counts, {str(column): "count" for column in range(30)}, batch_size=50)
    np.testing.assert_array_equal(next(iter(stream)), counts.toarray())
    assert stream.columns[4].kind == "count"
    np.save(tmp_path / "x.npy", counts.toarray())
    names = [f"gene {column}" for column in range(30)]
    for source in tmp_path / "x.npy", np.load(tmp_path / "x.npy", mmap_mode="r"), counts.tocsr():
        x = next(iter(from_table(source, ["gene 7", "gene 2"], names=names, batch_size=50)))
        np.testing.assert_array_equal(x, counts.toarray()[:, [7, 2]])
    with pytest.raises(ValueError, match="names has 2 names, but the ndarray has 30 columns"):
        from_table(counts.toarray(), names=["a", "b"])
    records = np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")])
    assert next(iter(from_table(records))).numpy().tolist() == [[1, 2.5], [3, 4.5]]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = counts.toarray()
    stream = from_table(tmp_path / "x.h5", ["x[3]", "x[0]"], batch_size=50)
    np.testing.assert_array_equal(next(iter(stream)), counts.toarray()[:, [3, 0]])


def test_a_dataframe_gives_what_its_columns_give(columns):
    pd = pytest.importorskip("pandas", reason="pandas isn't installed")
    frame = pd.DataFrame(columns)
    frame["job"] = frame["job"].astype("category")
    expected = rows(from_table(columns, CHOSEN, "happy", part="train", shuffle=40))
    stream = from_table(frame, CHOSEN, "happy", part="train", shuffle=40)
    for found, other in zip(rows(stream), expected, strict=True):
        np.testing.assert_array_equal(found, other)
    back = pd.DataFrame(stream.columns.decode(rows(from_table(frame, stream.columns, "happy"))[0]))
    assert (back["age"] == frame["age"]).all() and (back["born"] == frame["born"]).all()
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="has two columns named 'a'"):
        from_table(twice)


def test_pandas_own_types_are_read():
    pd = pytest.importorskip("pandas", reason="pandas isn't installed")
    times = pd.to_datetime(["2024-01-01 12:00", None, "1970-01-02 00:00"])
    cases = {
        "Int64": (pd.array([1, None, 3], "Int64"), "integer", [1, NAN, 3]),
        "Float64": (pd.array([0.5, None, 2], "Float64"), "number", [0.5, NAN, 2]),
        "boolean": (pd.array([True, None, False], "boolean"), "category", [1, NAN, 0]),
        "string": (pd.array(["x", None, "a"], "string"), "category", [1, NAN, 0]),
        "NA": (np.array([pd.NA, 2, 1], object), "integer", [NAN, 2, 1]),
        "categories": (pd.Categorical(["lo", "hi", None], ["lo", "mid", "hi"], ordered=True), "category", [1, 0, NAN]),
        "numbered": (pd.Categorical([30, 10, 30]), "category", [1, 0, 1]),
        "sparse": (pd.arrays.SparseArray([0.0, 0.0, 1.5]), "number", [0, 0, 1.5]),
        "arrow": (pd.array([1, None, 2], "int64[pyarrow]"), "integer", [1, NAN, 2]),
        "times": (times, "date", [19723.5, NAN, 1]),
        "zone": (times.tz_localize("Asia/Tokyo"), "date", [19723.125, NAN, 0.625]),
    }
    frame = pd.DataFrame({name: values for name, (values, *_) in cases.items()}, index=[9, 9, 1])
    stream = from_table(frame)
    assert [column.kind for column in stream.columns] == [kind for _, kind, _ in cases.values()]
    np.testing.assert_array_equal(next(iter(stream)), np.array([x for *_, x in cases.values()], "float32").T)
    assert stream.columns[6].categories == (10, 30)
    for values, message in (
        ([1, "x", 2.5], "the DataFrame: column 'a' holds values of several types.*make them texts"),
        (pd.to_timedelta([1, 2, 3], unit="h"), "the DataFrame: column 'a' holds values of the type duration"),
        (pd.period_range("2024", periods=3, freq="M"), "the DataFrame: column 'a' holds values of the type extension"),
    ):
        with pytest.raises(ValueError, match=message):
            from_table(pd.DataFrame({"a": values}))
    with pytest.raises(ValueError, match=r"the DataFrame: column 'a' holds values of several types.*make them texts"):
        from_table(pd.DataFrame({"a": [1, "x"]}), {"a": "category"})
    with pytest.raises(ValueError, match=r"the Series has the shape \(2,\).*expected rows of columns"):
        from_table(pd.Series([1.0, 2.0]))


def test_a_frame_of_nullable_numbers_is_an_array_with_nan(rng):
    pd = pytest.importorskip("pandas", reason="pandas isn't installed")
    x = np.where(rng.random((60, 4)) < 0.2, np.nan, rng.normal(size=(60, 4)))
    frame = pd.DataFrame(x).convert_dtypes()
    assert str(frame.dtypes[0]) == "Float64"
    found, expected = (kvae.PCA(2, missing=True, seed=0).fit(rows, verbose=0).transform(rows) for rows in (frame, x))
    np.testing.assert_allclose(found, expected, atol=1e-10)


class Frame:
    """What `from_table` uses of a DataFrame of pandas."""

    def __init__(self, columns):
        self.columns, self._values = list(columns), list(columns.values())
        self.iloc = self

    def __getitem__(self, place):
        rows, number = place
        return Series(self._values[number][rows])


class Series:
    def __init__(self, values):
        self.values, self.dtype, self.iloc = values, values.dtype, values

    def __len__(self):
        return len(self.values)

    def __array__(self, *args, **kwargs):
        return self.values


def test_a_dataframe_is_known_by_what_it_does():
    frame = Frame({"a": np.arange(5), "b": np.arange(5) / 2})
    x = next(iter(from_table(frame)))
    np.testing.assert_array_equal(x, np.stack([np.arange(5), np.arange(5) / 2], 1))
    assert "pandas" not in sys.modules or sys.modules["pandas"] is not None


def test_a_large_row_group_is_read_in_parts_in_order_and_as_a_whole_when_shuffled(tmp_path, small_blocks):
    pq.write_table(pa.table({"a": np.arange(3_000), "b": np.zeros(3_000)}), tmp_path / "x.parquet")
    read = parquet.ParquetFile(tmp_path / "x.parquet", in_order=True)
    assert read.sizes == [1024, 1024, 952] and parquet.ParquetFile(tmp_path / "x.parquet", False).sizes == [3000]
    column = [kvae.data.Column("a")]
    assert [read.read(block, column)[0][0].as_py() for block in (0, 1, 2, 1, 0, 2)] == [0, 1024, 2048, 1024, 0, 2048]
    assert read.locate(2, 5) == f"{tmp_path / 'x.parquet'}, row 2054"


def test_missing_values_are_refused_by_the_default_models(columns):
    stream = from_table(columns, ["age", "weight"])
    with pytest.raises(ValueError, match="x has NaN or infinite values"):
        kvae.PCA(1).fit(stream, verbose=0)
    assert stream.map(tf.identity).columns == stream.columns


def test_spaces_around_a_mark_of_a_missing_value_do_not_count(tmp_path):
    path = tmp_path / "spaces.csv"
    path.write_text("a,b\n1, NA\n NA ,2\n  - , 3\n4,  -  \n")
    table = kvae.data.from_table(path, na_values=["-", "NA"])
    x = np.concatenate([np.asarray(batch) for batch in table.as_numpy_iterator()])
    np.testing.assert_array_equal(x, [[1, np.nan], [np.nan, 2], [np.nan, 3], [4, np.nan]])
