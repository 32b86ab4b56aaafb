"""Memory doesn't grow with the data: under a cap, packed data pass that are many times the memory left below it."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.processes

HEADROOM = 64e6  # bytes above what a process has that did the same with a few batches
FEATURES, LATENT_DIM, BATCH_SIZE = 256, 32, 1024
POOL = 4096  # rows, 4 MB, of which a few are in memory at a time
FEW, ALL = 40, 960  # batches; float32: 1.0 GB of rows, 126 MB of codes
STREAMING = ["fit", "evaluate", "transform to disk", "PCA, covariance", "PCA, randomized"]
MAPPED = ["a memory map"]
HOLDING = ["transform in memory", "cache", "shuffle"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{a use of the data under the cap: "done", the error's name or the signal's}, and what was printed."""
    # Else the C library keeps as many heaps of freed memory as there are threads, by chance some 50 MB.
    environment = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # The limit counts the stack that a thread may use, 8 MB, and TensorFlow makes threads as it reads.
    command = ["sh", "-c", 'ulimit -s 1024; exec "$@"', "sh", sys.executable, __file__]
    command.append(str(tmp_path_factory.mktemp("packed")))
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("[")]
    return dict(json.loads(line) for line in lines), ended.stderr[-2000:]


@pytest.mark.parametrize("use", ["pack", *STREAMING, *MAPPED])
def test_data_of_fifteen_times_the_headroom_pass(outcomes, use):
    assert 4 * FEATURES * BATCH_SIZE * ALL > 15 * HEADROOM
    assert outcomes[0].get(use) == "done", outcomes[1]


@pytest.mark.parametrize("use", HOLDING)
def test_what_holds_the_data_fails_under_the_same_cap(outcomes, use):
    assert outcomes[0].get(use, "done") != "done", outcomes[1]  # TensorFlow's end of memory has many names


def main(folder):
    import kvae  # noqa: F401  once, for all; TensorFlow starts its threads later, in each child

    for names in ["pack"], STREAMING, MAPPED, *([name] for name in HOLDING):
        child = os.fork()
        if not child:
            under_the_cap(names, folder)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            print(json.dumps([names[-1], signal.Signals(os.WTERMSIG(status)).name]), flush=True)


def under_the_cap(names, folder):
    uses = uses_of_packed_data(folder)
    for name in names:
        uses[name](FEW)
    most = data_bytes() + int(HEADROOM)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for name in names:
        try:
            uses[name](ALL)
            outcome = "done"
        except Exception as error:
            outcome = type(error).__name__
        print(json.dumps([name, outcome]), flush=True)


def uses_of_packed_data(folder):
    """{name: function of a number of batches}."""
    import kvae

    vae = kvae.VAE(
        kvae.networks.dense_encoder((FEATURES,), LATENT_DIM, hidden=()),
        kvae.networks.dense_decoder((FEATURES,), LATENT_DIM, hidden=()),
    )
    vae.compile()

    def load(batches):
        return kvae.data.load(folder / str(batches), BATCH_SIZE, validation=0, shuffle=POOL)[0]

    def fit_pca(batches, **arguments):
        kvae.PCA(4, seed=0, **arguments).fit(load(batches), verbose=0)

    def read(data):
        for _ in data:
            pass

    def pass_a_map(batches):
        shape = batches * BATCH_SIZE, FEATURES
        x = np.lib.format.open_memmap(folder / f"{batches}.npy", "w+", "float32", shape)
        # The order of shuffled rows is held, and grows with their number.
        vae.fit(x, batch_size=BATCH_SIZE, shuffle=False, validation_data=x, verbose=0)
        vae.evaluate(x, batch_size=BATCH_SIZE, verbose=0)
        vae.predict(x, batch_size=BATCH_SIZE, steps=2, verbose=0)  # whose reconstructions are held

    return {
        "pack": lambda batches: kvae.data.pack(rows(batches), folder / str(batches)),
        "fit": lambda batches: vae.fit(load(batches), verbose=0),
        "evaluate": lambda batches: vae.evaluate(load(batches), verbose=0),
        "transform to disk": lambda batches: vae.transform(load(batches), directory=folder / f"codes{batches}"),
        "PCA, covariance": lambda batches: fit_pca(batches, solver="covariance"),
        "PCA, randomized": lambda batches: fit_pca(batches, solver="randomized", tolerance=0.99),
        "a memory map": pass_a_map,
        "transform in memory": lambda batches: vae.transform(load(batches)),
        "cache": lambda batches: read(load(batches).cache()),
        "shuffle": lambda batches: read(load(batches).shuffle(batches)),
    }


def rows(batches):
    """A stream of batches of rows that are made as they are read, each its own."""
    import tensorflow as tf

    rows = tf.random.stateless_normal((BATCH_SIZE, 4), (0, 0)) @ tf.random.stateless_normal((4, FEATURES), (0, 1))
    rows += tf.random.stateless_uniform((BATCH_SIZE, FEATURES), (0, 2))
    return tf.data.Dataset.range(batches).map(lambda number: rows + tf.cast(number, "float32") / ALL)


def data_bytes():
    """What RLIMIT_DATA counts, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData"):
            return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
