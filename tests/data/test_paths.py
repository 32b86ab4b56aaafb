"""Files stay the ones that were opened, and files of the wrong kind are told in a sentence."""

import os
import re

import h5py
import numpy as np
import pytest
from PIL import Image

import kvae
from kvae.evaluation.partial_results import PartialResults


def written(folder, value):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x = np.full((10, 6), value, "float32")
    (folder / "images").mkdir(parents=True)
    np.save(folder / "x.npy", x)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = x
    parquet.write_table(pa.table({"x": list(x)}), folder / "x.parquet")
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(folder / "images" / "0.png")
    kvae.data.pack(x, folder / "packed")


SOURCES = {
    "npy": lambda: kvae.data.from_npy("x.npy"),
    "hdf5": lambda: kvae.data.from_hdf5("x.h5", "x"),
    "parquet": lambda: kvae.data.from_parquet("x.parquet", "x"),
    "folder": lambda: kvae.data.from_folder("images"),
    "packed": lambda: kvae.data.load("packed", validation=0)[0],
    "packed, damaged": lambda: kvae.data.load("packed", validation=0, damaged="skip")[0],
}


def test_another_working_folder_changes_nothing_of_an_open_source(tmp_path, monkeypatch):
    for name, value in (("a", 1), ("b", 7)):
        written(tmp_path / name, value)
    monkeypatch.chdir(tmp_path / "a")
    streams = {name: make() for name, make in SOURCES.items()}
    model = kvae.PCA(1).fit(np.random.default_rng(0).normal(size=(9, 6)), verbose=0)
    checkpoint = kvae.callbacks.Checkpoint("run").folder
    results = PartialResults("results.npz", model)
    monkeypatch.chdir(tmp_path / "b")
    before = sorted(os.listdir(tmp_path / "b"))
    for name, stream in streams.items():
        assert {float(np.max(x)) for x in stream} == {1.0}, name
    checkpoint.save({}, [])
    with results:
        results.add(np.zeros((2, 6)), np.zeros(2))
    assert sorted(os.listdir(tmp_path / "b")) == before
    assert (tmp_path / "a" / "run").is_dir() and (tmp_path / "a" / "results.npz").is_file()


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("wrong")
    np.savez(folder / "x.npz", a=np.ones((3, 2)))
    os.link(folder / "x.npz", folder / "zip.npy")
    np.save(folder / "x.npy", np.ones((3, 2)))
    np.save(folder / "scalar.npy", np.float32(1))
    np.save(folder / "complex.npy", np.ones((3, 2), "complex64"))
    np.save(folder / "dates.npy", np.array(["2020-01-01"], "datetime64[D]"))
    np.save(folder / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    for name in ("t.parquet", "t.h5", "t.npy", "t.npz"):
        (folder / name).write_text("hello")
    for name in ("e.parquet", "e.h5", "e.npy"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe.npy")
    (folder / "folder.npy").mkdir()
    columns = {
        "dates": pa.array([1, 2], pa.date32()),
        "times": pa.array([1, 2], pa.timestamp("ns")),
        "empty": pa.array([[], []], pa.list_(pa.float32())),
        "decimals": pa.array([1, 2]).cast(pa.decimal128(22, 2)),
        "pairs": pa.array([{"a": 1}, {"a": 2}]),
        "date lists": pa.array([[1], [2]], pa.list_(pa.date32())),
        "x": [1.0, 2.0],
    }
    parquet.write_table(pa.table(columns), folder / "d.parquet")
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"], file["text"] = np.ones((3, 2)), ["a", "b"]
    return folder


def npy(name, **more):
    return lambda folder: kvae.data.from_npy(folder / name, **more)


def parquet(name, column="x", **more):
    return lambda folder: kvae.data.from_parquet(folder / name, column, **more)


def hdf5(name, column="x", **more):
    return lambda folder: kvae.data.from_hdf5(folder / name, column, **more)


def resume(name):
    def read(folder):
        model = kvae.PCA(1).fit(np.random.default_rng(0).normal(size=(9, 6)), verbose=0)
        kvae.evaluation.log_likelihood(model, np.zeros((3, 6)), 2, resume=folder / name)

    return read


CASES = [
    (npy("x.npz"), ValueError, "x.npz can't be read as a .npy file: found a .npz file with the arrays ['a'], expected"),
    (npy("zip.npy"), ValueError, "zip.npy can't be read as a .npy file: found a .npz file"),
    (npy("t.npy"), ValueError, "t.npy can't be read as a .npy file"),
    (npy("e.npy"), ValueError, "e.npy can't be read as a .npy file"),
    (npy("t.npz"), ValueError, "t.npz can't be read as a .npy file"),
    (npy("d.parquet"), ValueError, "d.parquet can't be read as a .npy file"),
    (npy("x.npy", labels="none.npy"), OSError, "none.npy"),
    (npy("scalar.npy"), ValueError, "scalar.npy has the shape () and the dtype float32, expected rows of numbers"),
    (npy("complex.npy"), ValueError, "complex.npy has the shape (3, 2) and the dtype complex64"),
    (npy("dates.npy"), ValueError, "dates.npy has the shape (1,) and the dtype datetime64[D]"),
    (npy("objects.npy"), ValueError, "objects.npy can't be read as a .npy file"),
    (npy("pipe.npy"), ValueError, "pipe.npy is a pipe, expected a file"),
    (npy("folder.npy"), ValueError, "folder.npy is a folder, expected a file"),
    (parquet("t.parquet"), ValueError, "t.parquet can't be read as a Parquet file"),
    (parquet("e.parquet"), ValueError, "e.parquet can't be read as a Parquet file"),
    (parquet("x.npy"), ValueError, "x.npy can't be read as a Parquet file"),
    (parquet("none.parquet"), OSError, "none.parquet"),
    (parquet("folder.npy"), ValueError, "folder.npy is a folder, expected a file"),
    (parquet("pipe.npy"), ValueError, "pipe.npy is a pipe, expected a file"),
    (
        parquet("d.parquet", "dates"),
        ValueError,
        "d.parquet's column 'dates' has the type date32[day], expected numbers",
    ),
    (parquet("d.parquet", "times"), ValueError, "column 'times' has the type timestamp[ns], expected numbers"),
    (
        parquet("d.parquet", "decimals"),
        ValueError,
        "column 'decimals' has the type decimal128(22, 2), expected numbers",
    ),
    (parquet("d.parquet", "pairs"), ValueError, "column 'pairs' has the type struct<a: int64>, expected numbers"),
    (parquet("d.parquet", "date lists"), ValueError, "column 'date lists' has the type date32[day], expected numbers"),
    (parquet("d.parquet", "empty"), ValueError, "column 'empty' has empty lists, expected at least one number in each"),
    (parquet("d.parquet", "x", labels="dates"), ValueError, "column 'dates' has the type date32[day]"),
    (parquet("d.parquet", None), TypeError, "column is None, expected a name in the file, a text"),
    (parquet("d.parquet", 0), TypeError, "column is 0, expected a name in the file"),
    (parquet("d.parquet", "x", labels=["x"]), TypeError, "labels is ['x'], expected a name in the file"),
    (hdf5("t.h5"), OSError, "t.h5 can't be read as an HDF5 file"),
    (hdf5("e.h5"), OSError, "e.h5 can't be read as an HDF5 file"),
    (hdf5("none.h5"), OSError, "none.h5"),
    (hdf5("folder.npy"), ValueError, "folder.npy is a folder, expected a file"),
    (hdf5("pipe.npy"), ValueError, "pipe.npy is a pipe, expected a file"),
    (hdf5("x.h5", None), TypeError, "dataset is None, expected a name in the file, a text"),
    (hdf5("x.h5", "x", labels=3), TypeError, "labels is 3, expected a name in the file, a text"),
    (
        hdf5("x.h5", "text"),
        ValueError,
        "x.h5['text'] has the shape (2,) and the dtype object, expected rows of numbers",
    ),
    (resume("x.npy"), ValueError, "x.npy holds no unfinished measurement"),
    (resume("x.npz"), ValueError, "x.npz holds no unfinished measurement"),
    (resume("t.h5"), ValueError, "t.h5 holds no unfinished measurement"),
    (resume("e.npy"), ValueError, "e.npy holds no unfinished measurement"),
    (resume("folder.npy"), ValueError, "folder.npy holds no unfinished measurement"),
    (resume("pipe.npy"), ValueError, "pipe.npy holds no unfinished measurement"),
]


@pytest.mark.parametrize(("read", "error", "message"), CASES, ids=[case[2][:40] for case in CASES])
def test_files_of_the_wrong_kind_are_told_in_a_sentence(wrong, monkeypatch, read, error, message):
    monkeypatch.chdir(wrong)
    with pytest.raises(error, match=re.escape(message)) as told:
        read(wrong)
    assert "\n" not in str(told.value)
