"""A pack can be stopped anywhere, and goes on with the same data alone."""

import os
import types

import numpy as np
import pytest
from packed_rows import ROWS, SIZES, batches, pixels

import kvae.data
from kvae.data.packed import format, writer
from kvae.files import PARTIAL


@pytest.fixture
def x():
    return pixels()


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name[0] != "."}


def column(directory, split="train", name="image"):
    return np.concatenate([np.load(path) for path in sorted(directory.glob(f"{split}-{name}-*.npy"))])


@pytest.mark.parametrize("write", ["replace", "source", "unclean"])
def test_a_stopped_pack_goes_on_to_the_same_bytes(write, x, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    writer.write_columns({"train": batches(x), "test": batches(x[:70])}, whole, **SIZES)
    replace, stops = os.replace, iter(range(1, 100))

    def failing(*names):
        number = next(left)
        if number == 0 or (number < 0 and write == "unclean"):
            raise KeyboardInterrupt
        replace(*names)

    for stop in stops:
        left = iter(range(stop, -1000, -1)) if write != "source" else iter([])
        monkeypatch.setattr(os, "replace", failing if write != "source" else replace)
        if write == "unclean":  # as after SIGKILL: no clean-up runs
            monkeypatch.setattr(type(stopped), "unlink", lambda path, missing_ok=False: None)
        try:
            train = batches(x, stop=50 * 4 * stop if write == "source" else None)
            writer.write_columns({"train": train, "test": batches(x[:70], 13)}, stopped, **SIZES)
            break
        except KeyboardInterrupt:
            pass
        monkeypatch.undo()
        left_over = [name for name in os.listdir(stopped) if name.endswith(PARTIAL)]
        assert bool(left_over) == (write == "unclean")
        if (stopped / "manifest.json").exists():
            with pytest.raises(OSError, match="unfinished pack: call `pack` again"):
                kvae.data.load(stopped)
    monkeypatch.undo()
    assert stop > 4 and files(stopped) == files(whole)
    with pytest.raises(FileExistsError, match="holds packed data already"):
        writer.write_columns({"train": batches(x)}, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype("float32"), "<f4"),
        (lambda x: x[:, 1:], r"\(4, 4, 3\)"),
        (lambda x: x[::-1], "other rows in block 0 of train-image-00000.npy, .*doesn't repeat"),
        (lambda x: x[:160], "6 blocks in train-image-00000.npy, expected this stream's 5"),
        (lambda x: x[:192], "rows in train-image-00001.npy, expected none, as"),
    ],
)
def test_an_unfinished_pack_of_other_data_is_refused(change, message, x, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        writer.write_columns({"train": batches(x, stop=400)}, tmp_path, **SIZES)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"unfinished pack of other data: .*{message}") as found:
        writer.write_columns(
            {"train": ({"image": b["image"], "label": b["label"]} for b in batches(change(x)))}, tmp_path, **SIZES
        )
    assert "\n" not in str(found.value) and files(tmp_path) == before
    with pytest.raises(ValueError, match="found the splits"):
        writer.write_columns({"test": batches(x)}, tmp_path, **SIZES)
    next(tmp_path.glob("train-label-00001.npy")).unlink()
    with pytest.raises(OSError, match=r"train-label-00001\.npy is missing"):
        writer.write_columns({"train": batches(x)}, tmp_path, **SIZES)


@pytest.mark.parametrize(
    ("rows", "other", "message"),
    [
        (ROWS, lambda x: x[::-1], "other rows in block 0 of train-image-00000.npy"),
        (ROWS, lambda x: x[:-1], "other rows in block 1 of train-image-00005.npy"),
        (ROWS, lambda x: x[:960], "rows in train-image-00005.npy, expected none"),
        (960, lambda x: x, "no train-image-00005.npy, expected this stream's further rows"),
    ],
)
def test_a_finished_split_of_an_unfinished_pack_is_compared(rows, other, message, x, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        writer.write_columns({"train": batches(x[:rows]), "test": batches(x, stop=400)}, tmp_path, **SIZES)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"unfinished pack of other data: .*{message}"):
        writer.write_columns({"train": batches(other(x)), "test": batches(x)}, tmp_path, **SIZES)
    assert files(tmp_path) == before
    writer.write_columns({"train": batches(x[:rows]), "test": batches(x)}, tmp_path, **SIZES)


def test_the_manifest_is_saved_seldom_and_a_kill_loses_what_came_since(x, tmp_path, monkeypatch):
    now, written, replace = [0.0], [], os.replace
    sizes = {"shard_bytes": 32 * 60, "block_bytes": 32 * 60}

    def timed(old, new):
        if dead_at and now[0] > dead_at:
            raise KeyboardInterrupt
        now[0] += 2 if new.name == "manifest.json" else 1
        written.append(new.name)
        replace(old, new)

    monkeypatch.setattr(format, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(os, "replace", timed)
    dead_at = 0
    writer.write_columns({"train": batches(x)}, tmp_path / "whole", **sizes)
    assert written.count("manifest.json") <= 6 and len(set(written)) == 1 + 2 * 32
    now[0], dead_at = 0, 60
    with pytest.raises(KeyboardInterrupt):
        writer.write_columns({"train": batches(x)}, tmp_path / "killed", **sizes)
    saved = sum(
        len(part["shards"]) for part in format.read_manifest(tmp_path / "killed")["splits"]["train"]["columns"].values()
    )
    dead_at = 0
    written.clear()
    writer.write_columns({"train": batches(x)}, tmp_path / "killed", **sizes)
    assert saved > 60 - 3 * 2 - 20 - 4 and len([name for name in written if name.endswith(".npy")]) == 2 * 32 - saved
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_shards_that_no_manifest_speaks_of_are_taken_away(x, tmp_path, monkeypatch):
    monkeypatch.setattr(format, "SAVE_PAUSE", 1e9)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as dying:
        dying.setattr(format.ManifestSaver, "__exit__", lambda *args: None)
        writer.write_columns({"train": batches(x, stop=850)}, tmp_path, **SIZES)
    assert len(list(tmp_path.glob("train-image-*.npy"))) == 4
    writer.write_columns({"train": batches(x[:300])}, tmp_path, **SIZES)
    np.testing.assert_array_equal(column(tmp_path), x[:300])
