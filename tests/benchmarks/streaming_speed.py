"""How fast `fit` reads packed shards, shuffled: against the same images as an array in memory, in one process.

python tests/benchmarks/streaming_speed.py [--cases mlp-128 mlp-512 conv] [--rounds 8] [--epochs 3] [--data-dir DIR]

Two models that start alike take turns, one from the array, one from the shards; a round is a fit of each. Counted are
the seconds of the CPU (the whole process, held to one core) of the epochs after a fit's first, and, apart, those of
either stream's epochs that nothing is trained on. The speeds' ratio is that of the medians over all epochs, its
interval from rounds drawn anew (bootstrap).

Images: Fashion-MNIST where tensorflow-datasets has prepared it, else noise of the same shape: the speed is the same.
"""

import argparse
import pathlib
import sys
import tempfile
import warnings

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent / "training_loops"))
from cases import CASES, SHAPE
from worker import cpu_seconds, hold_to_threads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3, help="of a fit, after its first")
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    options = parser.parse_args()
    hold_to_threads(1)
    warnings.filterwarnings("ignore")  # kvae's on grey images under a Bernoulli likelihood
    images = fashion_mnist(options.data_dir)
    print("| case | CPU s an epoch, in memory | packed | that stream alone | this one | packed / memory [95 %] |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.cases:
        print(row(name, CASES[name], images, options), flush=True)


def fashion_mnist(data_dir):
    import tensorflow_datasets as tfds

    try:
        return np.asarray(
            tfds.load("fashion_mnist", split="train", data_dir=data_dir, download=False, batch_size=-1)["image"]
        )
    except Exception:
        return np.random.default_rng(0).integers(0, 256, (60_000, *SHAPE), "uint8")


def row(name, case, images, options):
    import kvae_fit

    import kvae

    images = images[: case.images]
    array, packed = kvae_fit.model(case), kvae_fit.model(case)
    array.compile(kvae_fit.optimizer())
    packed.compile(kvae_fit.optimizer())
    with tempfile.TemporaryDirectory() as folder:
        kvae.data.pack(images, f"{folder}/packed")
        stream = kvae.data.load(f"{folder}/packed", case.batch_size, validation=0)[0]
        turns = [
            lambda: epochs_of(array, options.epochs, images, batch_size=case.batch_size),
            lambda: epochs_of(packed, options.epochs, stream),
        ]
        seconds = [[], []]
        for number in range(options.rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                seconds[which].append(turns[which]())
        alone = [read(kvae.data.arrays.from_arrays((images,), case.batch_size)), read(stream)]
    memory, shards = (np.array(rounds[1:]) for rounds in seconds)
    ratio = speed(memory, shards)
    generator = np.random.default_rng(0)
    drawn = [
        speed(memory[rounds], shards[rounds]) for rounds in generator.integers(0, len(memory), (2000, len(memory)))
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return (
        f"| {name} | {np.median(memory):.3f} | {np.median(shards):.3f} | {alone[0]:.3f} | {alone[1]:.3f} | "
        f"{ratio:.3f} [{low:.3f}, {high:.3f}] |"
    )


def speed(memory, shards):
    return np.median(memory) / np.median(shards)


def epochs_of(model, epochs, x, **arguments):
    """Seconds of the CPU that each epoch of this fit takes, its first left out."""
    from keras_example import Tick

    ticks = []
    tick = Tick(lambda loss: ticks.append(cpu_seconds()))
    model.fit(x, epochs=epochs + 1, initial_epoch=0, verbose=0, callbacks=[tick], **arguments)
    return np.diff(ticks)


def read(stream, epochs=10):
    """Seconds of the CPU that an epoch takes without a model, of one iterator as `fit` has it, its first left out."""

    def seconds(epochs):
        start = cpu_seconds()
        stream.from_batch(0).take(epochs * stream.num_batches).reduce(0, lambda batches, _: batches + 1).numpy()
        return cpu_seconds() - start

    seconds(1)
    return (seconds(epochs + 1) - seconds(1)) / epochs


if __name__ == "__main__":
    main()
