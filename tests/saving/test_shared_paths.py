"""Saving to a path that others use: another process, a link, a name as long as there are."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kvae
from kvae import files
from kvae.saving import model_card

ROOT = pathlib.Path(kvae.__file__).parents[1]
SAVES = """
import sys, time, numpy as np, kvae
path, number = sys.argv[1], float(sys.argv[2])
model = kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 6)), verbose=0)
model.noise_variance.assign(number)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8):
    model.save(path, overwrite=True)
print("saved", flush=True)
"""


@pytest.fixture(scope="module")
def model():
    return kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 6)), verbose=0)


def with_noise(model, number):
    model.noise_variance.assign(number)
    return model


def noise(path):
    return float(kvae.load(path).noise_variance)


@pytest.mark.processes
def test_of_two_processes_that_save_to_one_path_one_wins_and_every_reader_gets_a_whole_file(model, tmp_path):
    path = tmp_path / "m.keras"
    with_noise(model, 3.0).save(path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", SAVES, str(path), str(number)], env=environment, **pipes)
        for number in (1, 2)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    read = set()
    while any(process.poll() is None for process in processes):
        read.add(noise(path))
    assert [process.communicate()[0] for process in processes] == ["saved\n"] * 2
    assert read <= {1.0, 2.0, 3.0} and noise(path) in (1.0, 2.0)
    assert sorted(os.listdir(tmp_path)) == ["m.card.json", "m.card.md", "m.keras"]


def test_what_a_killed_process_left_is_deleted_by_the_next_save_to_the_same_path_alone(model, tmp_path):
    path, other = tmp_path / "m.keras", tmp_path / "n.keras"
    for each in (path, other):
        with pytest.raises(KeyboardInterrupt), files.atomic_path(each, ".keras") as temporary:
            left = {**locals().get("left", {}), each: temporary}
            raise KeyboardInterrupt
        left[each].write_bytes(b"half")
    model.save(path)
    assert not left[path].exists() and left[other].exists()


def test_of_a_link_the_file_that_it_points_to_is_replaced(model, tmp_path):
    target, link = tmp_path / "store" / "v1.keras", tmp_path / "m.keras"
    target.parent.mkdir()
    with_noise(model, 1.0).save(target)
    link.symlink_to(target)
    with pytest.raises(FileExistsError, match=r"m\.keras exists"):
        model.save(link)
    with_noise(model, 2.0).save(link, overwrite=True)
    assert link.is_symlink() and noise(link) == noise(target) == 2.0
    card = model_card.card_paths(link)[0]
    card.unlink()
    card.symlink_to(model_card.card_paths(target)[0])  # as a store of files by their hashes has it
    with_noise(model, 3.0).save(link, overwrite=True)
    assert card.is_symlink() and link.is_symlink() and noise(link) == noise(target) == 3.0


def test_a_link_to_nowhere_is_written_through_or_told(model, tmp_path):
    (tmp_path / "m.keras").symlink_to(tmp_path / "later.keras")
    model.save(tmp_path / "m.keras", overwrite=True)
    assert kvae.load(tmp_path / "later.keras").latent_dim == kvae.load(tmp_path / "m.keras").latent_dim == 2
    (tmp_path / "n.keras").symlink_to(tmp_path / "none" / "n.keras")
    with pytest.raises(FileNotFoundError, match=r"it is a link to .*, and there is no folder for that"):
        model.save(tmp_path / "n.keras", overwrite=True)


def packed(path):
    kvae.data.pack(np.zeros((9, 4, 4, 1), "float32"), path)


def codes(path):
    model = kvae.PCA(1).fit(np.random.default_rng(0).normal(size=(50, 6)), verbose=0)
    model.transform(np.zeros((9, 6)), directory=path)


def checkpointed(path):
    with kvae.callbacks.Checkpoint(path).folder.lock():
        pass


@pytest.mark.parametrize("write", [packed, codes, checkpointed])
def test_a_folder_whose_name_is_taken_is_told(write, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "none")
    (tmp_path / "file").write_text("mine")
    for name, reason in (
        ("link", "is a link to .*none, which isn't there: make that folder, or give another one"),
        ("link/run", "link is a link to .*none, which isn't there"),
        ("file", "is a file, expected a folder"),
        ("file/run", "file is a file, expected a folder"),
    ):
        with pytest.raises(OSError, match=reason):
            write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_names_may_be_as_long_as_their_cards_let_them(model, tmp_path):
    longest = 255 - len(".card.json")
    model.save(tmp_path / f"{longest * 'x'}.keras")
    assert kvae.load(tmp_path / f"{longest * 'x'}.keras").latent_dim == 2
    with pytest.raises(
        OSError, match=r"name too long: its card x+\.card\.json would have 256 bytes; give a short"
    ) as told:
        model.save(tmp_path / f"{(longest + 1) * 'x'}.keras")
    assert told.value.errno == errno.ENAMETOOLONG and len(os.listdir(tmp_path)) == 3


def test_a_folder_that_cannot_be_synced_is_written_to_all_the_same(model, tmp_path, monkeypatch):
    """As on Windows, where no folder can be opened."""
    opened, open_file = [], os.open

    def open_on_windows(path, *arguments, **options):
        if os.path.isdir(path) and not options:  # rmtree gives options
            opened.append(path)
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_on_windows)
    model.save(tmp_path / "m.keras")
    packed(tmp_path / "packed")
    folder = kvae.callbacks.Checkpoint(tmp_path / "run").folder
    with folder.lock():
        folder.save({}, [np.zeros(3)])
    assert opened and kvae.load(tmp_path / "m.keras").latent_dim == 2 and folder.latest()[0] == {}
    assert kvae.data.load(tmp_path / "packed", 9, validation=0)[0].num_batches == 1


def test_save_runs_no_command_of_the_working_folders_repository(model, tmp_path, monkeypatch):
    repository, mark = tmp_path / "repository", tmp_path / "mark"
    repository.mkdir()
    monkeypatch.chdir(repository)

    def git(*arguments):
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    (repository / "data.txt").write_text("x\n")
    (repository / ".gitattributes").write_text("*.txt filter=f diff=f\n")
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "x")
    for name in ("filter.f.clean", "filter.f.process", "filter.f.smudge", "diff.f.textconv", "core.fsmonitor"):
        git("config", name, f"touch {mark}; cat")
    (repository / "data.txt").write_text("y\n")
    model.save(tmp_path / "m.keras")
    assert json.loads((tmp_path / "m.card.json").read_text())["git"] == {"commit": git("rev-parse", "HEAD")}
    assert not mark.exists()
    subprocess.run(["git", "status"], capture_output=True)
    assert mark.exists()  # the trap is live


@pytest.mark.parametrize("overwrite", ["no", 1, None])
def test_overwrite_is_true_or_false(model, tmp_path, overwrite):
    with pytest.raises(TypeError, match=r"overwrite is .*; expected True or False"):
        model.save(tmp_path / "m.keras", overwrite=overwrite)
