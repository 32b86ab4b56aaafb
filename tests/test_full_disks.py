"""On a full disk an error names the file, the room and what to do; what was there stays, and nothing else is left."""

import contextlib
import errno
import os
import resource

import numpy as np
import pytest

import kvae
from kvae import files

LIMIT = 20_000  # bytes of a file: a limit fails as a full disk does


@contextlib.contextmanager
def full_disk(limit=LIMIT):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def model():
    return kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 600)), verbose=0)


WRITES = {
    "pack": lambda model, path: kvae.data.pack(np.zeros((600, 8, 8, 3), np.uint8), path),
    "codes": lambda model, path: model.transform(np.zeros((9000, 600)), directory=path),
    "save": lambda model, path: model.save(path.with_suffix(".keras")),
    "set": lambda model, path: kvae.data.load("sprites", 10, examples=300, data_dir=path),
    "checkpoint": lambda model, path: kvae.callbacks.Checkpoint(path).folder.save({}, [np.zeros(9000)]),
}


@pytest.mark.parametrize("write", WRITES)
def test_the_error_says_what_needs_room_and_nothing_is_left(model, tmp_path, write):
    path = tmp_path / "there"
    with full_disk(), pytest.raises(OSError, match=r"make room") as told:
        WRITES[write](model, path)
    message = str(told.value)
    assert str(tmp_path) in message and "\n" not in message
    assert ("File too large" if write == "set" else "a limit on the size of files") in message
    left = [file for *_, names in os.walk(tmp_path) for file in names if file != "metadata.json"]  # tfds' own, 1 kB
    assert not left


def test_a_pack_on_a_full_disk_goes_on_once_there_is_room(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 255, (600, 8, 8, 3)).astype("uint8")
    write = kvae.data.packed.writer.write_columns
    batches = [{"image": x[i : i + 50]} for i in range(0, 600, 50)]
    sizes = {"shard_bytes": 8_000, "block_bytes": 2_000}
    with monkeypatch.context() as patched, pytest.raises(OSError, match="goes on behind the whole shards"):
        replace, written = os.replace, []

        def full(source, target):
            written.append(target)
            if len(written) > 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        patched.setattr(os, "replace", full)
        write({"train": iter(batches)}, tmp_path / "p", progress=0, **sizes)
    write({"train": iter(batches)}, tmp_path / "p", progress=0, **sizes)
    (found,) = kvae.data.load(tmp_path / "p", 600, validation=0, shuffle=0)[0]
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("number", sorted(files.FULL))
def test_the_room_is_told(tmp_path, number):
    with (
        pytest.raises(OSError, match=r"a\.npy needs at least 1,000 bytes, and .* has .*: make room") as told,
        files.explain_errors(tmp_path / "none" / "a.npy", lambda: 1000),
    ):
        raise OSError(number, "full")
    assert told.value.errno == number and (number != errno.ENOSPC or "bytes free" in str(told.value))


def test_errors_of_other_files_stay_as_they_are(tmp_path):
    (tmp_path / "locked").mkdir()
    for error in (FileNotFoundError(errno.ENOENT, "gone", "/elsewhere"), PermissionError(errno.EACCES, "no", "/else")):
        with pytest.raises(type(error)) as told, files.explain_errors(tmp_path / "locked" / "a"):
            raise error
        assert told.value is error
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "locked" / ".x"))
    message = r"a can't be written, permission denied: give a folder that can be written to"
    with pytest.raises(PermissionError, match=message), files.explain_errors(tmp_path / "locked" / "a"):
        raise refused
