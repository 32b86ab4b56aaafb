"""What lies beside a model or data under a name that kvae reads may be a device, a pipe or a folder."""

import os
import signal

import numpy as np
import pytest

import kvae
from kvae.data.packed import format
from kvae.evaluation.partial_results import PartialResults
from kvae.training.checkpoint_files import CheckpointFolder

KINDS = {
    "a device": lambda path: os.symlink("/dev/zero", path),
    "a pipe": os.mkfifo,
    "a link to a pipe": lambda path: (os.mkfifo(f"{path}.pipe"), os.symlink(f"{path}.pipe", path)),
    "a folder": os.mkdir,
    "a huge file": lambda path: (open(path, "wb").close(), os.truncate(path, 2**40)),
}


@pytest.fixture(scope="module")
def model():
    return kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 6)), verbose=0)


@pytest.fixture(autouse=True)
def in_time():
    def late(*_):
        raise TimeoutError("a pipe or a device was waited for")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)


def replaced(path, make):
    path.unlink()
    make(path)


def card(folder, model, make):
    model.save(folder / "m.keras")
    replaced(folder / "m.card.json", make)
    kvae.load(folder / "m.keras")


def model_itself(folder, model, make):
    model.save(folder / "m.keras")
    replaced(folder / "m.keras", make)
    kvae.load(folder / "m.keras")


def manifest(folder, model, make):
    kvae.data.pack(np.zeros((9, 4, 4, 1), "float32"), folder / "packed")
    replaced(folder / "packed" / "manifest.json", make)
    kvae.data.load(folder / "packed")


def shard(folder, model, make):
    kvae.data.pack(np.zeros((9, 4, 4, 1), "float32"), folder / "packed")
    path = format.shard_path(folder / "packed", "train", "image", 0)
    replaced(path, make)
    kvae.data.load(folder / "packed")


def checkpoint(folder, model, make):
    run = CheckpointFolder(folder / "run")
    replaced(run.save({}, [np.zeros(3)]), make)
    with pytest.warns(UserWarning, match=r"checkpoint-000000\.kvae is"):
        run.latest()


def results(folder, model, make):
    make(folder / "results.npz")
    PartialResults(folder / "results.npz", model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("read", "message"),
    [
        (card, r"card m\.card\.json is damaged: restore both, or delete the card"),
        (model_itself, r"m\.keras is damaged"),
        (manifest, r"manifest\.json is"),
        (shard, r"train-image-00000\.npy is"),
        (checkpoint, "holds 1 checkpoints, none of which is whole"),
        (results, r"results\.npz holds no unfinished measurement"),
    ],
)
def test_it_is_refused_at_once(model, tmp_path, kind, read, message):
    with pytest.raises((OSError, ValueError), match=message) as told:
        read(tmp_path, model, KINDS[kind])
    assert "\n" not in str(told.value)
