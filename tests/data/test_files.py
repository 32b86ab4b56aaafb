"""Streams from files hold what the files hold, row by row, in the order that they say."""

import functools
import re
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvae.data
from kvae.data import errors, files

ROWS, BATCH = 50, 8


@pytest.fixture
def arrays(rng):
    return rng.integers(0, 256, (ROWS, 5, 4, 3), np.uint8), np.arange(ROWS)


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 7 * 60)


def written(kind, tmp_path, x, y):
    """The function of further arguments that reads the arrays back from a file of this kind."""
    path = tmp_path / f"rows.{kind}"
    if kind == "npy":
        np.save(path, x)
        np.save(tmp_path / "y.npy", y)
        return lambda labels=False, **more: kvae.data.from_npy(
            path, labels=tmp_path / "y.npy" if labels else None, **more
        )
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("group/x", data=x, chunks=(3, 5, 4, 3), compression="gzip")
            file["y"] = y
        return lambda labels=False, **more: kvae.data.from_hdf5(path, "group/x", labels="y" if labels else None, **more)
    pa = pytest.importorskip("pyarrow")
    lists = pa.array(x.reshape(-1))
    for size in x.shape[:0:-1]:
        lists = pa.FixedSizeListArray.from_arrays(lists, size)
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": lists, "y": y}), path, row_group_size=7)
    return lambda labels=False, **more: kvae.data.from_parquet(path, "x", labels="y" if labels else None, **more)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "parquet"])
def test_rows_are_the_files(kind, tmp_path, arrays, blocks):
    read = written(kind, tmp_path, *arrays)
    stream = read(batch_size=BATCH)
    assert isinstance(stream, kvae.data.Stream) and stream.cardinality() == 7
    assert kvae.data.image_shape(stream) == (5, 4, 3) and stream.element_spec.dtype == tf.uint8
    batches = list(stream.as_numpy_iterator())
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(batches), arrays[0])

    labelled = read(labels=True, batch_size=BATCH, shuffle=20, seed=3)
    orders = []
    for epoch in 0, 1:
        tf.random.set_seed(epoch)
        x, y = (np.concatenate(part) for part in zip(*labelled.epoch(epoch), strict=True))
        np.testing.assert_array_equal(x, arrays[0][y])
        assert sorted(y) == list(range(ROWS))
        orders.append(list(y))
    assert orders[0] != orders[1] and sum(abs(np.diff(orders[0])) == 1) < 20
    again = read(labels=True, batch_size=BATCH, shuffle=20, seed=3)
    rest = np.concatenate([y for _, y in again.epoch(1, skip=3)])
    shares = [np.concatenate([y for _, y in again.epoch(1, shard_index=i, num_shards=2)]) for i in range(2)]
    assert list(rest) == orders[1][24:]
    stretches = np.split(np.array(orders[1][:48]), 12)  # half batches, then a last batch of 2
    assert list(shares[0]) == [*np.concatenate(stretches[::2]), orders[1][48]]
    assert list(shares[1]) == [*np.concatenate(stretches[1::2]), orders[1][49]]
    thirds = [
        [y.tolist() for _, y in again.epoch(1, shard_index=i, num_shards=3).as_numpy_iterator()] for i in range(3)
    ]
    assert [row for batch in zip(*thirds, strict=True) for part in batch for row in part] == orders[1]


def test_other_dtypes_and_orders_of_a_npy(tmp_path, rng):
    for x in rng.random((9, 4)).astype(">f4"), np.asfortranarray(rng.random((9, 4))), rng.random((9, 4)) > 0.5:
        np.save(tmp_path / "x.npy", x)
        found = np.concatenate(list(kvae.data.from_npy(tmp_path / "x.npy", 4)))
        np.testing.assert_array_equal(found, x)
        assert found.dtype == x.dtype.newbyteorder("=")


@pytest.fixture
def folder(tmp_path, arrays):
    for i, image in enumerate(arrays[0][:12]):
        place = tmp_path / "images" / ("even", "odd")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:02}.png")
    return tmp_path / "images"


def test_a_folder_of_images(folder, arrays):
    in_order = np.concatenate([arrays[0][0:12:2], arrays[0][1:12:2]])
    stream = kvae.data.from_folder(folder, 5, labels=True)
    x, y = (np.concatenate(part) for part in zip(*stream, strict=True))
    np.testing.assert_array_equal(x, in_order)
    assert x.dtype == np.uint8 and y.tolist() == [0] * 6 + [1] * 6 and stream.cardinality() == 3
    shuffled = kvae.data.from_folder(folder, 5, shuffle=100)
    first, second = (np.concatenate(list(shuffled.epoch(i))) for i in range(2))
    assert not np.array_equal(first, second)
    for one in first, second:
        np.testing.assert_array_equal(np.sort(one.reshape(12, -1), 0), np.sort(in_order.reshape(12, -1), 0))
    np.testing.assert_array_equal(np.concatenate(list(shuffled.epoch(1, skip=1))), second[5:])
    expected = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(3, 2), shuffle=False, verbose=0, batch_size=12
    )
    resized = next(iter(kvae.data.from_folder(folder, 12, size=(3, 2))))
    assert resized.shape == next(iter(expected)).shape and resized.dtype == tf.uint8
    grey = next(iter(kvae.data.from_folder(folder, 12, channels=1)))
    np.testing.assert_allclose(grey[..., 0], in_order @ [0.299, 0.587, 0.114], atol=1.5)


def test_images_of_several_shapes_are_refused_by_name(folder):
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(folder / "odd" / "07.png")
    message = r"odd/07.png has the shape \(6, 4, 3\), expected \(5, 4, 3\) as the first has: give size="
    with pytest.raises(ValueError, match=message) as found, errors.clear_errors():
        list(kvae.data.from_folder(folder, 5))
    assert "\n" not in str(found.value)
    assert len(list(kvae.data.from_folder(folder, 5, size=(5, 4)))) == 3


def cut(path, size=100):
    path.write_bytes(path.read_bytes()[:size])


def rows_of_other_lengths(path):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": pa.array([[1, 2]] * 4 + [[1, 2, 3]] * 4)})
    pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=4)


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("a.png", cut, OSError, r"b\.png can't be decoded: it is missing, cut or altered"),
        ("a.jpg", cut, OSError, r"b\.jpg can't be decoded"),
        ("a.png", lambda path: path.unlink(), OSError, r"b\.png can't be decoded: it is missing"),
        ("x.npy", lambda path: cut(path, 1000), ValueError, r"x\.npy can't be read as a \.npy file, it is cut"),
        ("x.hdf5", lambda path: cut(path, 1000), OSError, "truncated file"),
        (
            "x.parquet",
            rows_of_other_lengths,
            ValueError,
            r"column 'x' has rows of shape \(3,\), expected \(2,\) as",
        ),
    ],
)
def test_what_happens_to_a_file_later_is_said_in_a_sentence(name, change, error, message, tmp_path, rng):
    path = tmp_path / name
    if path.suffix in (".png", ".jpg"):
        for letter in "abc":
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{letter}{path.suffix}")
        stream, path = kvae.data.from_folder(tmp_path, 2), tmp_path / f"b{path.suffix}"
    elif path.suffix == ".npy":
        np.save(path, rng.random((100, 6)))
        stream = kvae.data.from_npy(path, 10)
    elif path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            file["x"] = rng.random((100, 6))
        stream = kvae.data.from_hdf5(path, "x", 10)
    else:
        change(path)
        stream = kvae.data.from_parquet(path, "x", 2)
    change(path)
    with pytest.raises(error, match=message) as found, errors.clear_errors():
        list(stream)
    assert "\n" not in str(found.value)


def test_images_in_a_parquet_column(tmp_path, folder, arrays):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = [file.read_bytes() for file in sorted(folder.rglob("*.png"), key=lambda file: file.name)]
    structs = pa.array([{"bytes": file, "path": "x"} for file in files])
    parquet.write_table(pa.table({"image": structs, "raw": files, "y": range(12)}), tmp_path / "i.parquet")
    for column in "image", "raw":
        x, y = next(iter(kvae.data.from_parquet(tmp_path / "i.parquet", column, labels="y", batch_size=12)))
        np.testing.assert_array_equal(x, arrays[0][y])


def refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    np.save(tmp_path / "names.npy", np.array(["a", "b"]))
    (tmp_path / "text.npy").write_text("not an array")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["data/x"] = np.zeros((4, 2))
    yield kvae.data.from_npy, ["none.npy"], OSError, "none.npy"
    yield kvae.data.from_npy, ["text.npy"], ValueError, "text.npy can't be read as a .npy file"
    yield kvae.data.from_npy, ["names.npy"], ValueError, "dtype <U1, expected rows of numbers"
    yield kvae.data.from_hdf5, ["none.hdf5", "x"], OSError, "none.hdf5"
    yield kvae.data.from_hdf5, ["x.hdf5", "x"], KeyError, r"no dataset 'x': found \['data/x'\]"
    yield kvae.data.from_folder, ["none"], OSError, "none is not a folder"
    yield kvae.data.from_folder, ["."], ValueError, "holds no images"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    yield kvae.data.from_folder, ["images"], OSError, r"images/a\.png can't be decoded"
    for function, name in (kvae.data.from_npy, "x.npy"), (kvae.data.from_folder, "images"):
        yield functools.partial(function, shuffle=True), [name], TypeError, "shuffle is True, expected the number"
        yield functools.partial(function, shuffle=-1), [name], ValueError, "shuffle is -1, expected the number"
        yield functools.partial(function, batch_size=0), [name], ValueError, "batch_size is 0, expected an integer"


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path):
    for function, (name, *more), error, message in refused(tmp_path):
        with pytest.raises(error, match=message) as found:
            function(tmp_path / name, *more)
        assert "\n" not in str(found.value)
    np.save(tmp_path / "y.npy", np.zeros(5))
    with pytest.raises(ValueError, match=r"\[4, 5\] rows"):
        kvae.data.from_npy(tmp_path / "x.npy", labels=tmp_path / "y.npy")


def test_bad_parquet_columns(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    columns = {"ragged": [[1], [2, 3]], "gaps": [1, None], "inner": [[1, None], [2, 3]], "words": ["a", "b"]}
    parquet.write_table(pa.table(columns), path)
    for column, error, message in [
        ("x", KeyError, "no column 'x': found ['ragged', 'gaps', 'inner', 'words']"),
        ("ragged", ValueError, "lists of several lengths: from 1 to 2"),
        ("gaps", ValueError, "1 missing values"),
        ("inner", ValueError, "1 missing values"),
        ("words", ValueError, "has the type string"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            kvae.data.from_parquet(path, column)
    parquet.write_table(pa.table(columns).slice(0, 0), path)
    with pytest.raises(ValueError, match="holds no rows"):
        kvae.data.from_parquet(path, "gaps")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="python -m pip install pyarrow"):
        kvae.data.from_parquet(path, "x")
