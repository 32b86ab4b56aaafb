"""Two processes on the loopback do what one does, and go on where they were when one is killed."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from replicated import images, in_files, regularised, shuffled
from worker import EPOCHS, LAST_EPOCH

import kvae
from kvae import __main__ as job

HERE = pathlib.Path(__file__).parent
SECONDS = 240


def run(folder, phase):
    """The exit codes of two workers and what they wrote."""
    command = [sys.executable, str(HERE / "worker.py"), str(folder), phase]
    processes = [
        subprocess.Popen(command, env={**each, "PYTHONPATH": str(HERE.parent)}, stderr=subprocess.PIPE, text=True)
        for each in job._environments(2)
    ]
    try:
        errors = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], errors


def test_two_processes_one_killed_and_resumed_train_to_the_weights_of_one(tmp_path):
    codes, errors = run(tmp_path, "interrupted")
    assert codes[1] == -9 and codes[0] not in (0, -9), errors
    assert "UnavailableError" in errors[0]
    interrupted = [np.load(tmp_path / f"interrupted{worker}.npz") for worker in range(2)]

    model = regularised(kvae.VAE)
    model.compile()
    expected = model.evaluate(in_files(tmp_path / "here"), verbose=0)
    draw = model.sampling([np.zeros((9, 2), "float32")] * 2)
    for found in interrupted:
        np.testing.assert_allclose(found["evaluated"], expected, rtol=1e-6)
    np.testing.assert_array_equal(interrupted[0]["draw"], draw)
    assert np.abs(interrupted[1]["draw"] - draw).min() > 0

    codes, errors = run(tmp_path, "resumed")
    assert codes == [0, 0], errors
    model = regularised()
    model.compile(kvae.optimizers.Adam(1e-2), metrics=["mse"])
    history = model.fit(shuffled(images()), epochs=EPOCHS, validation_data=shuffled(images(61), 30), verbose=0).history
    for worker in range(2):
        found = np.load(tmp_path / f"resumed{worker}.npz")
        for number, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(found[f"arr_{number}"], weight, atol=1e-5)
        for name, numbers in history.items():
            np.testing.assert_allclose(found[name], numbers[LAST_EPOCH:], rtol=1e-5)


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
