"""One variant in this process: python worker.py VARIANT CASE --images FILE --epochs N --warm-up N --threads N

Prints a line of JSON: seconds of the CPU and of the wall from the end of the last epoch of warm-up, the images trained
on in them, the last epoch's loss, the versions of what was used; or {"skipped": why}.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
import warnings

from cases import CASES, Unavailable

MODULES = {
    "keras": "keras_example",
    "kvae": "kvae_fit",
    "kvae-bf16": "kvae_fit",
    "kvae-packed": "kvae_fit",
    "tensorflow": "tensorflow_loop",
    "jax": "jax_loop",
    "torch": "torch_loop",
    "pythae": "pythae_trainer",
    "peak": "peak",
}
PEERS = ("jax", "torch", "pythae")
PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "jax", "torch", "pythae", "numpy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=MODULES)
    parser.add_argument("case")
    parser.add_argument("--images", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    hold_to_threads(options.threads)
    warnings.filterwarnings("ignore")  # such as kvae's on grey images under a Bernoulli likelihood
    try:
        print(json.dumps(measured(options)))
    except (ImportError, Unavailable) as error:
        print(json.dumps({"skipped": f"{type(error).__name__}: {error}"}))


def hold_to_threads(threads):
    """As many cores as threads, and as many threads in every library that is imported after this."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    for name in "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS":
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def measured(options):
    module = importlib.import_module(MODULES[options.variant])
    case = CASES[options.case]
    if options.variant == "peak":
        return module.measure(case)
    import numpy as np

    images = np.load(options.images)[: case.images]
    ticks = []

    def tick(loss):
        """To be called after each epoch with its mean loss."""
        loss = float(loss)
        ticks.append((cpu_seconds(), time.perf_counter(), loss))

    module.train(options.variant, case, images, options.warm_up + options.epochs, tick)
    first, last = ticks[options.warm_up - 1], ticks[-1]
    return {
        "cpu_seconds": last[0] - first[0],
        "wall_seconds": last[1] - first[1],
        "images": options.epochs * len(images),
        "loss": last[2],
        "versions": versions(),
    }


def cpu_seconds():
    """Of this process so far, the system's for it included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def versions():
    names = {name: name.removesuffix("-cpu") for name in PACKAGES}
    found = {}
    for package, module in names.items():
        if module in sys.modules:
            try:
                found.setdefault(module, importlib.metadata.version(package))
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


if __name__ == "__main__":
    main()
