"""Which ways to use a file of rows pass under a cap on memory? On Linux: python under_a_cap.py FILE.npy [MEGABYTES].

Prints a JSON line for each way and number of rows: [way, rows, MB of growth or null, "done" or the error]. The cap
(128 MB without a number) is on what a process takes beyond what it has after the same work on a few rows.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

BATCH = 1000
STREAMS = "PCA", "autoencoder", "VAE"
ARRAYS = "PCA of scikit-learn", "its full SVD"
HOLDING = "cache()", "shuffle(rows)"
COMMITTED = pathlib.Path(__file__).with_suffix(".json")


def measure(path, megabytes=128, names=STREAMS + ARRAYS + HOLDING):
    """The lines for a file of 10,000 rows or more, measured in new processes. Without Linux, another machine's."""
    if sys.platform != "linux":
        print("The cap needs Linux. These are the numbers of a machine that has it.")
        return json.loads(COMMITTED.read_text())[pathlib.Path(path).stem]
    lean = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [
        "sh",
        "-c",
        'ulimit -s 1024; exec "$@"',
        "sh",
        sys.executable,
        __file__,
        str(path),
        str(megabytes),
        *names,
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | lean | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
    if not lines:
        raise RuntimeError(f"nothing was measured: {ended.stderr[-500:]}")
    return lines


def memory(name):
    """Bytes of this process: VmData is what a cap counts, VmRSS what is in use, VmHWM the peak of it."""
    return 1024 * int(re.search(name + r":\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])


def ways(path):
    """{way: a function of a number of rows}."""
    import numpy as np
    import sklearn.decomposition

    import kvae

    shape, models = np.load(path, mmap_mode="r").shape[1:], {}
    for model, arguments in (kvae.Autoencoder, {}), (kvae.VAE, {"likelihood": kvae.GaussianLikelihood()}):
        networks = kvae.networks.dense_encoder(shape, 8, (32,)), kvae.networks.dense_decoder(shape, 8, (32,))
        models[model] = model(*networks, **arguments)
        models[model].compile()

    def stream(rows):
        return kvae.data.from_npy(path, BATCH).take(rows // BATCH)

    def array(rows):
        return np.load(path, mmap_mode="r")[:rows].reshape(rows, -1) / np.float32(255)

    return {
        "PCA": lambda rows: kvae.PCA(8, seed=0, solver="covariance").fit(stream(rows), verbose=0),
        "PCA, randomized": lambda rows: kvae.PCA(8, seed=0, solver="randomized").fit(stream(rows), verbose=0),
        "autoencoder": lambda rows: models[kvae.Autoencoder].fit(stream(rows), verbose=0),
        "VAE": lambda rows: models[kvae.VAE].fit(stream(rows), verbose=0),
        "PCA of scikit-learn": lambda rows: sklearn.decomposition.PCA(8).fit(array(rows)),
        "its full SVD": lambda rows: sklearn.decomposition.PCA(8, svd_solver="full").fit(array(rows)),
        "cache()": lambda rows: sum(len(x) for x in stream(rows).cache()),
        "shuffle(rows)": lambda rows: sum(len(x) for x in stream(rows).unbatch().shuffle(rows).batch(BATCH)),
    }


def under_the_cap(names, path, cap):
    """Run these ways with more and more rows, until they fail, in this process."""
    import resource

    import numpy as np

    uses, total = ways(path), len(np.load(path, mmap_mode="r")) // BATCH * BATCH
    counts = [count for count in (4_000, 8_000, 16_000, 64_000, 512_000) if count < total] + [total]
    for name in names:  # threads and buffers, before anything is measured
        uses[name](min(64_000, total) if name in STREAMS else 2 * BATCH)
    limit = memory("VmData") + cap
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name in names:
        for rows in counts[-3:] if name in STREAMS else counts:
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
            before, outcome = memory("VmRSS"), "done"
            try:
                uses[name](rows)
            except Exception as error:  # TensorFlow's end of memory has many names
                outcome = type(error).__name__
            growth = max(0, memory("VmHWM") - before) / 1e6
            print(json.dumps([name, rows, growth if outcome == "done" else None, outcome]), flush=True)
            if outcome != "done":
                break


if __name__ == "__main__":
    path, cap = sys.argv[1], int(float(sys.argv[2]) * 1e6) if len(sys.argv) > 2 else 128_000_000
    chosen = sys.argv[3:] or STREAMS + ARRAYS + HOLDING
    import kvae  # noqa: F401  once, for all; TensorFlow starts its threads later, in each child

    for names in [name for name in chosen if name in STREAMS], *([name] for name in chosen if name not in STREAMS):
        child = os.fork()
        if not child:
            under_the_cap(names, path, cap)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            print(json.dumps([names[-1], None, None, signal.Signals(os.WTERMSIG(status)).name]), flush=True)
