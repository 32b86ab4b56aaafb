"""Two processes on the loopback do what one does, and go on where they were when one is killed."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import worker_chain
from replicated import images, in_files, regularised, rows
from worker import EPOCHS, compiled, of_unknown_length, packed

import kvae
from kvae import __main__ as job
from kvae.data.arrays import from_arrays
from kvae.training import checkpoint_files

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 1800  # on a machine that is busy with others
REFUSED = [
    "the data are shuffled by tf.data without a seed",
    "several workers can't share validation_split",
    "the workers don't find the same checkpoints in",
]


def run(folder, phase):
    """The exit codes of two workers and what they wrote."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "worker.py"), str(folder), phase]
    processes = [
        subprocess.Popen(command, env={**each, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
        for each in job._environments(2)
    ]
    try:
        errors = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], errors


@pytest.mark.processes
def test_two_processes_one_killed_and_resumed_train_to_the_weights_of_one(tmp_path):
    worker_chain.pack(tmp_path / "packed")
    codes, errors = run(tmp_path, "interrupted")
    assert codes[1] == -9 and codes[0] not in (0, -9), errors
    assert "UnavailableError" in errors[0]
    interrupted = [np.load(tmp_path / f"interrupted{worker}.npz") for worker in range(2)]

    model = regularised(kvae.VAE)
    model.compile(loss=kvae.IWAE(samples=3))
    expected = {
        "evaluated": model.evaluate(in_files(tmp_path / "here"), verbose=0),
        "of_array": model.evaluate(images(61), verbose=0),
        "of_packed": model.evaluate(packed(tmp_path), verbose=0),
        "of_unknown_length": model.evaluate(of_unknown_length(), verbose=0),
    }
    draw = model.sampling([np.zeros((18, 2), "float32")] * 2)
    for found in interrupted:
        for name, numbers in expected.items():
            np.testing.assert_allclose(found[name], numbers, rtol=1e-6)
    for worker in range(2):
        np.testing.assert_array_equal(interrupted[worker]["draw"], draw[9 * worker : 9 * (worker + 1)])

    np.save(tmp_path / "x.npy", images(101))
    assert checkpoint_files.CheckpointFolder(tmp_path / "run").latest()[0]["place"][:2] == [1, 2]
    codes, errors = run(tmp_path, "resumed")
    assert codes == [0, 0], errors
    model = compiled()
    order = from_arrays(tuple(rows(101).values()), 25)
    history = model.fit(order, epochs=EPOCHS, validation_data=tuple(rows(61).values()), verbose=0).history
    model.fit(order, verbose=0)
    for worker in range(2):
        found = np.load(tmp_path / f"resumed{worker}.npz")
        for number, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(found[f"arr_{number}"], weight, atol=1e-5)
        for name, numbers in history.items():
            np.testing.assert_allclose(found[name], numbers, rtol=1e-5)
        for said, expected in zip(found["refusals"], REFUSED, strict=True):
            assert said.startswith(expected)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the packed rows and, for each kind of data, of the weights of one process."""
    folder = tmp_path_factory.mktemp("chains")
    worker_chain.pack(folder / "rows")

    @functools.cache
    def weights(kind):
        assert worker_chain.run(folder / kind, kind, [{}]) == [0]
        return np.load(folder / kind / "weights.npz")

    return folder, weights


@pytest.mark.slow
def test_a_run_whose_workers_change_ends_with_the_weights_of_one_process(chain, alone):
    """Killed at three random moments, it goes on with 1, 2, 1 and 4 workers. `--chains=20` runs as many."""
    generator, kind = np.random.default_rng(chain), ("packed", "arrays")[chain % 2]
    folder, expected = alone[0] / f"chain{chain}", alone[1](kind)
    last = (worker_chain.EPOCHS - 2) * worker_chain.STEPS  # the rest takes longer than any death waits
    steps = np.sort(generator.choice(last, len(worker_chain.WORKERS) - 1, replace=False))
    for part, workers in enumerate(worker_chain.WORKERS):
        deaths = None
        if part < len(steps):  # each worker at a moment of its own, of which the first ends the others
            deaths = [(int(steps[part]), generator.uniform(0, worker_chain.LATEST)) for _ in range(workers)]
        environments = job._environments(workers) if workers > 1 else [{}]
        codes = worker_chain.run(folder, kind, environments, part, deaths)
        assert -9 in codes if deaths else not any(codes), codes
    assert [sorted(rows) for rows in worker_chain.seen(folder)] == [
        list(range(worker_chain.ROWS))
    ] * worker_chain.EPOCHS
    found = np.load(folder / "weights.npz")
    for name in expected.files:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_the_job_starts_its_workers_and_fails_where_one_does(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$TF_CONFIG" > {tmp_path}/$$.json\ntest "$4" = well\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    job._start_workers(3, ["--workers=3", "well"])
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(config["task"]["index"] for config in configs) == [0, 1, 2]
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    with pytest.raises(SystemExit):
        job._start_workers(2, ["--workers=2", "badly"])


def test_the_guides_script_tells_each_worker_of_all(tmp_path):
    guide = (ROOT / "notebooks" / "guides" / "several_machines.md").read_text()
    script = guide.split("```bash\n")[1].split("```")[0].replace("python train.py", 'echo "$TF_CONFIG"')
    environment = {**os.environ, "HOSTS": "10.0.0.1 vae-1.vae", "INDEX": "1"}
    found = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    cluster = {"worker": ["10.0.0.1:29500", "vae-1.vae:29500"]}
    assert json.loads(found) == {"cluster": cluster, "task": {"type": "worker", "index": 1}}


@pytest.mark.slow
def test_the_job_runs_in_two_processes(tmp_path):
    options = ["--workers=2", "--examples=400", "--size=16", "--epochs=1", "--batch-size=32", "--components=5"]
    command = [sys.executable, "-m", "kvae", *options, "--data-dir", tmp_path / "data", "--output", tmp_path / "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("On held-out images") == 1
    for name in ("pca", "autoencoder", "vae"):
        assert kvae.load(tmp_path / "run" / f"{name}.keras").latent_dim == 10


def test_sets_are_loaded_where_there_are_several_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    _, *others = kvae.data.load("sprites", 10, data_dir=tmp_path, size=8, examples=20)
    assert [len(batch) for batch in others[0].epoch(0, shard_index=1, num_shards=2)] == [1]
    with pytest.raises(ValueError, match="seed is None"):
        kvae.data.load("sprites", 10, data_dir=tmp_path, size=8, examples=20, seed=None)
    np.save(tmp_path / "x.npy", images(20))
    kvae.data.from_npy(tmp_path / "x.npy", seed=None)
