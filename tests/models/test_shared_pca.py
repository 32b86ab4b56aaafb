"""Two processes that each read half of the data find the axes, codes and scores of one process."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pca_worker
import pytest

import kvae
from kvae import __main__ as job
from kvae.data.shares import Share

ROOT = pathlib.Path(__file__).parents[2]


def run(folder, environments):
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "pca_worker.py"), str(folder)]
    processes = [
        subprocess.Popen(command, env={**each, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
        for each in environments
    ]
    try:
        errors = [process.communicate(timeout=480)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), errors


@pytest.mark.processes
def test_two_workers_find_the_axes_codes_and_scores_of_one_and_read_half_each(tmp_path):
    images = pca_worker.images()
    kvae.data.packed.write_columns({"train": [{"image": images}]}, tmp_path / "packed", block_bytes=300, progress=0)
    run(tmp_path, [dict(os.environ)])
    run(tmp_path, job._environments(2))
    expected = np.load(tmp_path / "1-0.npz")
    workers = [np.load(tmp_path / f"2-{number}.npz") for number in range(2)]
    names = "packed", "covariance", "randomized", "weighted", "one batch", "missing", "bootstraps"
    for found in workers:
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(found[name], workers[0][name])
        for name in ("codes", "shuffled codes", "codes of an array", "scores", "errors of scores"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)
        assert "shuffled by tf.data without a seed" in str(found["refusal"])
    for name in ("rows of covariance", "rows of codes"):
        read = [int(found[name]) for found in workers]
        assert max(read) <= len(images) // 2 + 2 * pca_worker.BATCH_SIZE, read
        assert sum(read) >= len(images)
    one, two = int(expected["rows of randomized"]), sum(int(found["rows of randomized"]) for found in workers)
    assert one - 1_000 <= two <= one + 1_000
    read = [int(found["bytes of packed"]) for found in workers]
    assert max(read) <= 0.5 * int(expected["bytes of packed"]) + 80_000, read
    assert "couldn't write its share" in str(workers[0]["error"]) and "worker 1 breaks" in str(workers[1]["error"])
    for name in ("codes", "scores of codes"):
        both, alone = tmp_path / name, tmp_path / f"{name} of one"
        labels = "label" if name == "codes" else "standard_error"
        found, expected_rows = (
            [np.concatenate(part) for part in zip(*load(folder, labels), strict=True)] for folder in (both, alone)
        )
        for column, values in zip(found, expected_rows, strict=True):
            np.testing.assert_allclose(column, values, rtol=1e-6, atol=1e-6)
        kvae.data.verify(both)
        assert (
            not list(both.glob(".*")) and len(list(both.glob("train-code-*" if name == "codes" else "*score-*"))) == 2
        )


def load(folder, labels):
    stream = kvae.data.load(folder, 1_000, validation=0, shuffle=0, labels=labels)[0]
    return list(stream.as_numpy_iterator())


@pytest.mark.parametrize(("count", "together", "workers"), [(10, 1, 3), (7, 4, 2), (1, 1, 4), (100, 8, 5)])
def test_the_stretches_of_all_workers_are_the_batches_in_order(count, together, workers):
    share, batches = Share(), []
    share.workers = workers
    for share.number in range(workers):
        start, stop = share.stretch(count, together)
        assert start % together == 0 or start >= count
        batches += range(start, stop)
    assert batches == list(range(count))
