"""What a page on a billion images counts with: packing, reading, decoding, training and the exchange of gradients.

python tests/benchmarks/a_billion_images.py [--data-dir DIR] [--only pack exchange ...]

On one core (two, one for each of two workers, for the exchange), in seconds of the CPU, medians of five with the
smallest and the largest.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent / "training_loops"))
from streaming_speed import read as seconds_of_an_epoch
from worker import cpu_seconds, hold_to_threads

SHAPES = {(28, 28, 1): 300_000, (64, 64, 3): 20_000}
PARAMETERS = {"nothing": 1, "1.7 MB": 425_000, "17 MB": 4_250_000}
PORTS = 23_456, 23_457
REPEATS = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="of tensorflow-datasets, for Fashion-MNIST's PNGs")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return worker(options.worker)
    print("| what | median | smallest to largest |\n| --- | --- | --- |")
    if "exchange" in options.only:
        print_rows(exchange())
    hold_to_threads(1)
    for name in options.only:
        if name != "exchange":
            print_rows(MEASURED[name](options.data_dir))


def print_rows(rows):
    for what, values in rows:
        print(f"| {what} | {np.median(values):.3g} | {min(values):.3g} to {max(values):.3g} |", flush=True)


def seconds(function):
    """Of the CPU, of each of the repeats after a first."""
    taken = []
    for _ in range(REPEATS + 1):
        start = cpu_seconds()
        function()
        taken.append(cpu_seconds() - start)
    return np.array(taken[1:])


def images(shape):
    return np.random.default_rng(0).integers(0, 256, (SHAPES[shape], *shape), "uint8")


def pack(data_dir):
    import kvae

    for shape in SHAPES:
        x = images(shape)
        with tempfile.TemporaryDirectory() as folder:
            taken = seconds(lambda x=x, folder=folder: kvae.data.pack(x, tempfile.mkdtemp(dir=folder)))
        yield f"packing {shape}, MB a CPU second", x.nbytes / 1e6 / taken


def read(data_dir):
    import kvae

    for shape, count in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            kvae.data.pack(images(shape), f"{folder}/packed")
            stream = kvae.data.load(f"{folder}/packed", 128, validation=0)[0]
            taken = np.array([seconds_of_an_epoch(stream, 2) for _ in range(REPEATS)])
        yield f"reading {shape} packed, shuffled, images a CPU second", count / taken


def decode(data_dir):
    import kvae

    try:
        stream = kvae.data.load("fashion_mnist", 128, data_dir=data_dir)[0]
    except OSError as error:
        print(f"PNGs are left out: {error}", file=sys.stderr)
        return
    taken = seconds(lambda: passed(stream))
    yield "decoding a PNG of 28x28 of tfds, us of the CPU", taken / 54_000 * 1e6


def train(data_dir):
    import kvae

    shape, count = (64, 64, 3), 2_560
    networks = kvae.networks.conv_encoder(shape, 10), kvae.networks.conv_decoder(shape, 10)
    vae = kvae.VAE(*networks)
    vae.compile()
    x = images(shape)[:count]
    taken = seconds(lambda: vae.fit(x, batch_size=128, verbose=0))
    yield "training the convolutional networks on (64, 64, 3), images a CPU second", count / taken


def passed(dataset):
    return dataset.reduce(0, lambda batches, _: batches + 1).numpy()


def exchange():
    """Milliseconds of the CPU, both workers', of a sum over two processes on loopback."""
    addresses = [f"localhost:{port}" for port in PORTS]
    processes = []
    for index in range(2):
        config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        environment = os.environ | {"TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--worker", str(index)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        )
    found = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in processes]
    for name in PARAMETERS:
        yield f"exchange of {name}, ms of the CPU a worker", np.mean([each[name] for each in found], axis=0)


def worker(index, times=100):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index % os.cpu_count()]})
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    found = {}
    for name, size in PARAMETERS.items():
        values = tf.ones(size)

        @tf.function
        def step(values=values):
            return strategy.reduce("sum", strategy.run(lambda: values * 2.0), axis=None)[0]

        def steps(step=step):
            for _ in range(times):
                step()

        found[name] = (seconds(steps) / times * 1e3).tolist()
    print(json.dumps(found))


MEASURED = {"pack": pack, "read": read, "decode": decode, "train": train, "exchange": None}

if __name__ == "__main__":
    main()
