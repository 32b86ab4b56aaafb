"""What `pack` writes."""

import json
import os
import types

import IPython
import IPython.display
import numpy as np
import pytest
import tensorflow as tf
from packed_rows import ROWS, SIZES, batches, pixels

import kvae.data
from kvae import files
from kvae.data.packed import format, writer
from kvae.data.stream import Stream


@pytest.fixture
def x():
    return pixels()


def column(directory, split="train", name="image"):
    return np.concatenate([np.load(path) for path in sorted(directory.glob(f"{split}-{name}-*.npy"))])


def test_shards_are_npy_of_equal_rows_with_fingerprints_behind_them(x, tmp_path):
    writer.write_columns({"train": batches(x)}, tmp_path, **SIZES)
    paths = sorted(tmp_path.glob("train-image-*.npy"))
    assert [len(np.load(path, mmap_mode="r")) for path in paths] == [192] * 5 + [43]
    np.testing.assert_array_equal(column(tmp_path), x)
    np.testing.assert_array_equal(column(tmp_path, name="label"), np.arange(ROWS))
    with open(paths[-1], "rb") as file:
        rows, fingerprints = np.load(file), np.load(file)
        assert not file.read()
    hashes = [tf.strings.to_hash_bucket_fast(part.tobytes(), 2**63 - 1) for part in (rows[:32], rows[32:])]
    np.testing.assert_array_equal(fingerprints % np.uint64(2**63 - 1), hashes)
    kvae.data.verify(tmp_path)


def stream(*arrays, batch=64):
    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays).batch(batch)


@pytest.mark.parametrize(
    ("make", "columns"),
    [
        (lambda x, y: x, ["image"]),
        (lambda x, y: (x, y), ["image", "label"]),
        (lambda x, y: stream(x), ["image"]),
        (lambda x, y: stream(x, y), ["image", "label"]),
        (lambda x, y: stream(x, {"hue": y}), ["image", "hue"]),
        (lambda x, y: {"image": x, "label": y}, ["image", "label"]),
        (lambda x, y: stream({"id": y, "image": x, "label": y}), ["image", "id", "label"]),
        (lambda x, y: (stream(x, y), None, stream(x[:9], y[:9])), ["image", "label"]),
        (lambda x, y: [stream(x, y), None, stream(x[:9], y[:9])], ["image", "label"]),
        (lambda x, y: {"train": (x, y), "test": stream(x[:9], y[:9])}, ["image", "label"]),
    ],
)
def test_what_can_be_packed(make, columns, x, tmp_path):
    y = np.arange(ROWS, dtype="int16")
    kvae.data.pack(make(x, y), tmp_path)
    packed = format.read_manifest(tmp_path)["splits"]
    assert list(packed["train"]["columns"]) == columns
    np.testing.assert_array_equal(column(tmp_path), x)
    for name in columns[1:]:
        np.testing.assert_array_equal(column(tmp_path, name=name), y, strict=True)
    if "test" in packed:
        np.testing.assert_array_equal(column(tmp_path, "test"), x[:9])


def test_a_streams_first_epoch_is_packed(x, tmp_path):
    made = Stream(
        lambda epoch, skip, shard_index, num_shards: stream(x).map(lambda b: b + tf.cast(epoch, "uint8")),
        -(-ROWS // 64),
    )
    made.next_epoch = 3
    kvae.data.pack(made, tmp_path)
    np.testing.assert_array_equal(column(tmp_path), x)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16", "float32", "float64", "int32", ">f4"])
def test_dtypes_stay_but_float64_becomes_float32(dtype, rng, tmp_path):
    x = (rng.random((70, 3)) * 200 - (0 if dtype in ("uint8", "bool") else 100) * (dtype != "bool")).astype(dtype)
    writer.write_columns({"train": [{"code": x}]}, tmp_path / "codes", block_bytes=100)
    codes = np.concatenate(list(kvae.data.load(tmp_path / "codes", 16, shuffle=0, validation=0)[0]))
    np.testing.assert_array_equal(codes, x)
    assert codes.dtype == np.dtype(dtype).newbyteorder("=")
    if dtype == ">f4":
        return
    kvae.data.pack(x, tmp_path / "packed")
    images = np.concatenate(list(kvae.data.load(tmp_path / "packed", 16, shuffle=0, validation=0)[0]))
    np.testing.assert_array_equal(images, x.astype(images.dtype))
    assert images.dtype == ("float32" if dtype == "float64" else dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: stream(x).unbatch(), ValueError, r"call \.batch"),
        (lambda x: stream(x).repeat(), ValueError, "train is an endless stream"),
        (lambda x: stream(x).take(0), ValueError, "train is empty"),
        (lambda x: {"train": x, "test": x[:0]}, ValueError, "test is empty"),
        (lambda x: stream(x // 128), ValueError, "give it as bool or float"),
        (lambda x: stream(x, x, x), ValueError, "sample weights: give them as a column"),
        (lambda x: stream({"image": x, "name": x.astype(str)}), TypeError, "name of train is string"),
        (lambda x: stream({"image": x, "boxes": {"x": x}}), TypeError, "boxes of train is dict"),
        (lambda x: stream({"image": x, "a/b": x}), ValueError, "a column is named 'a/b'"),
        (
            lambda x: {"train": x, "val": stream(x)},
            ValueError,
            r"splits \['train', 'val'\], .*\"validation\" and \"test\"",
        ),
        (lambda x: {"training": x}, ValueError, r"splits \['training'\], expected \"train\" and"),
        (lambda x: (None, stream(x), None), ValueError, r"splits \['validation'\], expected \"train\" and"),
        (lambda x: np.where(x > 99, 1e300, 1.5), ValueError, r"image of train holds the value 1e\+300, beyond float32"),
        (lambda x: iter(x), TypeError, "expected a tf.data.Dataset or numpy arrays"),
        (
            lambda x: (x, {"image": x[:, 0]}),
            ValueError,
            r"labels named \['image'\], as a column beside them is",
        ),
        (lambda x: stream({"image": x, "label": x}, x), ValueError, r"labels named \['label'\]"),
        (lambda x: (stream(x), stream(x)), ValueError, r"found 2 streams, expected \(train, validation, test\)"),
        (lambda x: [stream(x), stream(x)], ValueError, r"found 2 streams, expected \(train, validation, test\)"),
    ],
)
def test_pack_refuses(make, error, message, x, tmp_path):
    with pytest.raises(error, match=message) as found:
        kvae.data.pack(make(x), tmp_path)
    assert "\n" not in str(found.value) and not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["movie.mp4.partial", "train-image-00000.npy", "train-image-00000.npy.partial"])
def test_files_that_are_not_a_packs_stay(name, x, tmp_path):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=f"holds {name}, and no pack: give a new or an empty folder"):
        kvae.data.pack(x, tmp_path)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"mine"
    folder = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        writer.write_columns({"train": batches(x, stop=400)}, folder, **SIZES)
    for each in "movie.mp4.partial", "train-image-00003.npy.partial", ".DS_Store":
        (folder / each).write_bytes(b"mine")
    writer.write_columns({"train": batches(x)}, folder, **SIZES)
    assert {path.name for path in folder.iterdir() if path.suffix != ".npy"} == {
        "manifest.json",
        "movie.mp4.partial",
        ".DS_Store",
    }


def test_what_fails_before_its_first_shard_leaves_nothing_and_a_killed_pack_its_manifest(x, tmp_path, monkeypatch):
    """So a shard in a folder without a manifest is nobody's leftover."""
    with pytest.raises(KeyboardInterrupt):
        writer.write_columns({"train": batches(x, stop=100)}, tmp_path, **SIZES)
    assert not os.listdir(tmp_path)
    replaced, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (replaced.append(new.name), replace(old, new)))
    writer.write_columns({"train": batches(x)}, tmp_path, **SIZES)
    assert replaced[:2] == ["manifest.json", "train-image-00000.npy"]


def test_batches_unlike_the_first_are_refused(x, tmp_path):
    for other in {"image": x[:5, 1:]}, {"image": x[:5], "label": x[:4]}, {"picture": x[:5]}, {"image": x[:5] > 9}:
        with pytest.raises(ValueError, match="as in the first"):
            writer.write_columns({"train": [{"image": x}, other]}, tmp_path)


def test_the_manifest_says_where_the_data_come_from(x, tmp_path):
    licence = types.SimpleNamespace(license="CC0")
    said = {"version": "2.0.0", "homepage": "https://example.org", "citation": "A, 2020"}
    info = types.SimpleNamespace(full_name="shapes/2.0.0", redistribution_info=licence, **said)
    kvae.data.pack(x, tmp_path / "a", source=types.SimpleNamespace(info=info))
    content = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert content["source"] == {"name": "shapes", **said}
    assert content["licence"] == "CC0" and content["splits"]["train"]["rows"] == ROWS and content["complete"]
    kvae.data.pack(x, tmp_path / "b", source="my camera", license="mine")
    content = format.read_manifest(tmp_path / "b")
    assert (content["source"], content["licence"]) == ("my camera", "mine")


def test_the_old_name_of_license_warns(x, tmp_path):
    with pytest.warns(DeprecationWarning, match="licence= is now license="):
        kvae.data.pack(x, tmp_path / "a", licence="mine")
    assert format.read_manifest(tmp_path / "a")["licence"] == "mine"
    with pytest.raises(TypeError, match="licence and license are both given"):
        kvae.data.pack(x, tmp_path / "b", license="mine", licence="mine")


def test_a_bar_shows_where_asked(x, tmp_path, capsys):
    kvae.data.pack(stream(x), tmp_path / "a")
    assert capsys.readouterr().out == ""
    kvae.data.pack(stream(x), tmp_path / "b", progress=True)
    assert "16/16" in capsys.readouterr().out


def test_in_a_notebook_a_bar_shows_that_ends_the_same_each_time(x, tmp_path, capsys, monkeypatch):
    places = []

    def display(line, display_id):
        places.append([line.data])
        return types.SimpleNamespace(update=lambda line: places[-1].append(line.data))

    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setattr(IPython.display, "display", display)
    kvae.data.pack({"train": stream(x), "test": x[:9]}, tmp_path / "a")
    kvae.data.pack(x, tmp_path / "b", progress=False)
    (first, *_, last), (*_, test) = places
    assert first.startswith("batch of train 1/16 ━") and first.endswith(" left")
    assert (last, test) == (f"batch of train 16/16 {20 * '━'}", f"batch of test 1/1 {20 * '━'}")
    assert capsys.readouterr() == ("", "")


def test_one_process_packs_at_a_time(x, tmp_path):
    with files.lock(tmp_path, "locked"), pytest.raises(FileExistsError, match="another process is packing"):
        kvae.data.pack(x, tmp_path)
    kvae.data.pack(x, tmp_path)
