"""Packed data behind a web server: the rows of the local folder, in its order, through faults and a cache."""

import builtins
import gc
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from range_server import served

import kvae
from kvae.data.packed import format, stores

ROWS = 1_003
FAILS = """
import sys
import kvae
from kvae.data.packed import stores

stores.PAUSE = 0.05
stream = kvae.data.load(sys.argv[1], 10, validation=0, shuffle=0)[0]
for read in (lambda: list(stream.as_numpy_iterator()), lambda: kvae.PCA(2).fit(stream, verbose=0)):
    try:
        read()
    except OSError:
        print("failed", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of random pixels and labels, in 3 shards of 4 blocks, and a test split."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("packed") / "set"
    splits = {
        name: [{"image": generator.integers(0, 256, (rows, 6, 5, 1), "uint8"), "label": np.arange(rows)}]
        for name, rows in (("train", ROWS), ("test", 100))
    }
    kvae.data.packed.write_columns(splits, folder, progress=0, block_bytes=3_000, shard_bytes=12_000)
    return folder


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(stores, "PAUSE", 0.01)


def rows(stream, epoch=0, skip=0):
    return list(stream.epoch(epoch, skip=skip).as_numpy_iterator())


def load(name, batch_size=32, **arguments):
    return kvae.data.load(name, batch_size, **{"labels": "label", "shuffle": 200, **arguments})


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "arguments",
    [{}, *(pytest.param(each, marks=pytest.mark.thorough) for each in ({"split": "end"}, {"group": "label"}))],
)
def test_a_server_gives_the_rows_of_the_folder_in_their_order(folder, arguments):
    with served(folder.parent) as server:
        for remote, local in zip(load(f"{server.address}/set", **arguments), load(folder, **arguments), strict=True):
            if local is not None:
                assert_equal(rows(remote, 1, skip=2), rows(local, 1, skip=2))
                assert remote.provenance.name == "set"
        kvae.data.verify(f"{server.address}/set")


def test_the_signature_of_an_address_goes_with_each_request_and_into_no_message(folder):
    with served(folder.parent) as server:
        server.query = "sv=1&sig=se%2Bcr%2Fet%3D"  # as clouds write them
        address = f"{server.address}/set?{server.query}"
        stream = load(address)[0]
        assert_equal(rows(stream), rows(load(folder)[0]))
        kvae.data.verify(address)
        assert "se%2B" not in repr(stream.provenance)
        stored = stores.Store(address) / "train-image-00001.npy"
        server.query = "sig=another"
        model = kvae.PCA(1)
        for use in (
            lambda: load(address),
            stored.sha256,
            lambda: load(address.upper().replace("SET", "set")),
            lambda: kvae.data.pack(np.zeros((4, 2)), address),
            lambda: model.fit(np.eye(4)).transform(np.eye(4), directory=address),
            lambda: model.save(f"{address}/model.keras"),
        ):
            with pytest.raises((OSError, ValueError)) as error:
                use()
            assert not re.search(r"se(%2b|\+)cr", str(error.value), re.IGNORECASE)


def test_a_signature_goes_through_a_cache_of_fsspec_and_into_no_message(folder):
    with served(folder.parent) as server:
        server.query = "sig=se%2Bcr%2Fet%3D"
        address = f"simplecache::{server.address}/set"
        with pytest.raises(ConnectionError, match=r"manifest\.json can't be read") as error:
            load(f"{address}?sig=an%2Bother")
        assert "other" not in str(error.value)
        assert_equal(rows(load(f"{address}?{server.query}")[0]), rows(load(folder)[0]))


def test_a_download_that_is_cut_is_tried_again(folder):
    with served(folder.parent) as server:
        expected, train = rows(load(folder)[0]), load(f"{server.address}/set")[0]
        cuts = iter([True, True, False, True])

        def cut(start, content):
            return content[: len(content) // 2] if next(cuts, False) else content

        server.faults["set/train-image-00001.npy"] = cut
        assert_equal(rows(train), expected)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            lambda start, content: content[: len(content) // 2],
            r"the block of row \d+, counted from 0, didn't come in 4 ",
        ),
        pytest.param(
            lambda start, content: None,
            r"the block of row \d+, counted from 0, didn't come in 4 attempts \(\w+",
            marks=pytest.mark.thorough,
        ),
        (lambda start, content: content[::-1], r"is altered: rows \d+ to \d+, counted from 0, haven't their fingerp"),
    ],
)
def test_a_file_that_never_comes_whole_is_named_with_its_block(folder, fault, expected):
    with served(folder.parent) as server:
        train = load(f"{server.address}/set", shuffle=0)[0]
        server.faults["set/train-image-00001.npy"] = fault
        with pytest.raises(OSError, match=rf"{server.address}/set/train-image-00001.npy .*{expected}") as error:
            list(train)
        assert "\n" not in str(error.value)


def test_what_is_missing_or_cut_on_the_server_is_told_at_once(folder, tmp_path):
    with served(tmp_path) as server:
        with pytest.raises(
            FileNotFoundError, match=f"{server.address}/set/manifest.json is missing: expected a folder"
        ):
            load(f"{server.address}/set")
        (tmp_path / "set").symlink_to(folder)
        server.faults["set/train-image-00001.npy"] = lambda start, content: content[:10]
        with pytest.raises(OSError, match=r"train-image-00001.npy can't be read: its header didn't come in 4 attempts"):
            load(f"{server.address}/set")
    with pytest.raises(OSError, match=r"can't be read: the file didn't come in 4 attempts .*check the connection"):
        load("http://localhost:1/set")


@pytest.mark.thorough
def test_damaged_blocks_of_a_server_are_left_out_if_asked_for(folder):
    with served(folder.parent) as server:
        server.faults["set/train-label-00001.npy"] = lambda start, content: bytes(len(content)) if start else content
        with pytest.warns(UserWarning, match="400 of 1103 rows are left out"):
            train = load(f"{server.address}/set", damaged="skip", validation=0)[0]
        assert sum(len(x) for x, _ in rows(train)) == 603
        server.faults["set/train-label-00001.npy"] = lambda start, content: None if start else content
        with pytest.raises(ConnectionError, match="didn't come in 4 attempts"):  # these rows aren't lost
            load(f"{server.address}/set", damaged="skip", validation=0)


def test_a_server_that_sends_whole_files_is_told():
    file = stores.StoredFile(stores.Store("memory://set"), "x.npy")
    found = stores.Range(file, 0, 9, "its header").checked(bytes(100))
    assert isinstance(found, FileNotFoundError)  # which isn't requested again
    expected = (
        "can't be read in parts: its header came as 100 bytes instead of 9; the server must answer requests for ranges"
    )
    assert str(found).endswith(expected)


def test_the_whole_of_a_stored_file_is_verified_through_cuts(folder):
    with served(folder.parent) as server:
        cuts = iter([True, False, True])
        server.faults["set/train-image-00001.npy"] = lambda start, content: None if next(cuts, False) else content
        kvae.data.verify(f"{server.address}/set")
        server.faults["set/train-image-00001.npy"] = lambda start, content: content[::-1] if not start else content
        with pytest.raises(OSError, match="is altered"):
            kvae.data.verify(f"{server.address}/set")


def test_a_cache_may_be_deleted_at_any_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_RECOUNT", 2)
    with served(folder.parent) as server:
        train = load(f"{server.address}/set", validation=0, labels=None, cache_dir=tmp_path / "cache")[0]
        expected = rows(train)
        shutil.rmtree(tmp_path / "cache")
        assert_equal(rows(train), expected)
        assert any((tmp_path / "cache").iterdir())
    with pytest.raises(ValueError, match="cache_dir is '', expected a folder"):
        load("memory://set", cache_dir="")


def test_a_stream_that_failed_can_be_read_again(folder):
    """Nothing waits for itself while an iterator that failed is destroyed."""
    with served(folder.parent) as server:
        train = load(f"{server.address}/set", validation=0, shuffle=0, labels=None)[0]
        server.faults["set/train-image-00001.npy"] = lambda start, content: None
        for _ in range(3):
            with pytest.raises((OSError, tf.errors.OpError), match="come in 4 attempts"):
                rows(train)
            gc.collect()


@pytest.mark.processes
def test_a_process_ends_after_downloads_that_failed(tmp_path):
    """Iterators that only the collector finds are destroyed while their reads can still come to an end."""
    kvae.data.pack(np.ones((300, 35_000), "float32"), tmp_path / "set", progress=False)
    script = tmp_path / "script.py"
    script.write_text(FAILS)
    with served(tmp_path) as server:
        for name in os.listdir(tmp_path / "set"):
            if name.endswith(".npy"):
                server.faults[f"set/{name}"] = lambda start, content: None if 0 < start < 40_000_000 else content
        done = subprocess.run(
            [sys.executable, script, f"{server.address}/set"], capture_output=True, text=True, timeout=120
        )
    assert done.stdout.split() == ["failed", "failed"] and done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_shards_without_rows_at_the_end(folder):
    for part in range(4):
        tests = (load(name, batch_size=16, shuffle=0, labels=None)[2] for name in (f"file://{folder}", folder))
        found, expected = (
            list(test.batches(tf.constant(0, tf.int64), 0, part, 4).as_numpy_iterator()) for test in tests
        )
        assert_equal(found, expected)


def test_a_cache_keeps_blocks_up_to_its_size_and_saves_the_server_as_much(folder, tmp_path):
    image_bytes = ROWS * 30
    with served(folder.parent) as server:
        expected = rows(load(folder, validation=0)[0])
        for most, requested in ((10**6, 0), (image_bytes // 2, image_bytes // 2), (1, image_bytes)):
            cache = tmp_path / str(most)
            train = load(f"{server.address}/set", validation=0, cache_dir=cache, cache_bytes=most, labels=None)[0]
            assert_equal(rows(train), [x for x, _ in expected])
            assert sum(path.stat().st_size for path in cache.iterdir()) <= most
            before = server.sent
            assert_equal(rows(train), [x for x, _ in expected])
            assert abs(server.sent - before - requested) <= 3_000
        again = load(f"{server.address}/set", validation=0, cache_dir=tmp_path / "1000000", labels=None)[0]
        for path in (tmp_path / "1000000").iterdir():
            path.write_bytes(path.read_bytes()[::-1])
        assert_equal(rows(again), [x for x, _ in expected])
        before = server.sent
        assert_equal(rows(again), [x for x, _ in expected])
        assert server.sent == before


def test_neighboring_blocks_come_in_one_request(folder):
    with served(folder.parent) as server:
        train = load(f"{server.address}/set", validation=0, shuffle=0, labels=None)[0]
        server.requests.clear()
        rows(train)
        assert server.requests["set/train-image-00000.npy"] == 1


def test_arguments_that_do_not_go_with_an_address_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is a local folder, and cache_dir is for addresses"):
        load(folder, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="cache_dir is for packed data at an address alone"):
        kvae.data.load("mnist", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="fsspec can't read nowhere://x: "):
        load("nowhere://x")
    with pytest.raises(ValueError, match=r"cache_bytes is 0; expected an integer of at least 1"):
        load("memory://x", cache_dir=tmp_path, cache_bytes=0)
    real = builtins.__import__
    without = lambda name, *rest: exec("raise ImportError(name)") if name == "fsspec" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'keras-vae\[stores\]' for https://"):
        stores.Store("https://somewhere/x")


def test_file_systems_of_fsspec_without_asynchronous_ranges_are_read_as_well(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/set", recursive=True)
    assert_equal(rows(load("memory://bucket/set")[0]), rows(load(folder)[0]))
    assert format.is_packed("memory://bucket/set")
    memory.rm("/bucket/set", recursive=True)
