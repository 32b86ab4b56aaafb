"""Every source has the same parts for training, validation and test."""

import itertools

import h5py
import numpy as np
import pytest
import tensorflow as tf
from breadth import some
from PIL import Image

import kvae.data
from kvae.data import files

ROWS = 203
PARTS = "train", "validation", "test"


def written(kind, folder):
    """The function of a part to the rows' numbers in a source of this kind, in the order of two epochs."""
    x, y = np.arange(ROWS * 6, dtype="uint8").reshape(ROWS, 1, 2, 3), np.arange(ROWS)
    if kind == "npy":
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        return lambda **more: kvae.data.from_npy(folder / "x.npy", 8, labels=folder / "y.npy", **more)
    if kind == "hdf5":
        with h5py.File(folder / "x.h5", "w") as file:
            file["x"], file["y"] = x, y
        return lambda **more: kvae.data.from_hdf5(folder / "x.h5", "x", 8, labels="y", **more)
    if kind == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table({"x": list(x.reshape(ROWS, -1)), "y": y}), folder / "x", row_group_size=20)
        return lambda **more: kvae.data.from_parquet(folder / "x", "x", 8, labels="y", **more)
    if kind == "folder":
        for number, image in enumerate(x):
            Image.fromarray(image).save(folder / f"{number:03}.png")
        return lambda **more: kvae.data.from_folder(folder, 8, labels="path", **more).map(
            lambda x, path: (x, tf.strings.to_number(tf.strings.substr(path, 0, 3)))
        )
    kvae.data.pack((x, y), folder / "packed")

    def load(part=None, shuffle=0, validation=0.1):
        streams = kvae.data.load(folder / "packed", 8, labels="label", shuffle=shuffle, validation=validation)
        return streams[PARTS.index(part)]

    return load


def order(stream, epoch=0, **options):
    return [int(row) for _, rows in stream.epoch(epoch, **options) for row in rows]


@pytest.mark.parametrize("kind", some(["npy", "hdf5", "parquet", "folder", "packed"], "npy", "packed"))
def test_a_part_holds_the_same_rows_whatever_the_source(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 20 * 6)
    read = written(kind, tmp_path)
    rows = [order(read(part=part)) for part in PARTS]
    assert [len(each) for each in rows] == [163, 20, 20] and sorted(itertools.chain(*rows)) == list(range(ROWS))
    expected = np.random.default_rng(0).permutation(ROWS)
    assert rows[1:] == [sorted(expected[:20]), sorted(expected[20:40])] and rows[0] == sorted(expected[40:])
    shuffled = read(part="train", shuffle=50)
    assert sorted(order(shuffled)) == rows[0] and order(shuffled) != order(shuffled, 1)
    assert order(shuffled, 1, skip=3) == order(shuffled, 1)[24:] and shuffled.num_batches == 21


def test_parts_that_are_none_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    for options, message in (
        ({"part": "valid"}, r"part is 'valid', expected one of \('train', 'validation', 'test'\), or None"),
        ({"part": "test"}, r"test would have no rows, of 4 and validation=0\.1"),
        ({"part": "train", "validation": 0.5}, r"validation is 0\.5, expected a share"),
    ):
        with pytest.raises(ValueError, match=message):
            kvae.data.from_npy(tmp_path / "x.npy", **options)
    assert len(next(iter(kvae.data.from_npy(tmp_path / "x.npy", part="train", validation=0)))) == 4
