"""Gigabytes of images through compress and decompress: peak memory, and the same bytes back.

    python tests/benchmarks/compression_memory.py [--gigabytes 10] [--directory DIR]

The images are kvae's drawn digits, black and white, 28x28 as float32, each with 1 % of its pixels turned over at
random, so that no two are equal. A VAE is trained on 120,000 of them. Prints the peak of the process after the first
20,000 images and at the end, and the SHA-256 of what went in and of what came back. DIR needs room for the images: they
come back to a packed folder there.
"""

import argparse
import hashlib
import pathlib
import resource
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import kvae

BATCH = 1_000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--directory", help="for the file and the folder; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        run(options.gigabytes, pathlib.Path(folder))


def run(gigabytes, folder):
    digits = kvae.data.load("drawn_digits", BATCH, examples=60_000)[0]
    digits = kvae.data.binarize(digits, anew=False)
    images = np.concatenate(list(digits.take(20).as_numpy_iterator())).astype("bool")
    batches = round(gigabytes * 1e9 / (BATCH * 784 * 4))
    keras.utils.set_random_seed(0)
    networks = [make((28, 28, 1), 20, (64,)) for make in (kvae.networks.dense_encoder, kvae.networks.dense_decoder)]
    model = kvae.VAE(*networks, "bernoulli", seed=0)
    model.compile(kvae.optimizers.Adam(1e-3))
    model.fit(stream(images, 120), verbose=0)
    report("trained")
    kvae.compression.compress(model, stream(images, 20), folder / "first.kvae", verbose=0)
    kvae.compression.decompress(folder / "first.kvae", model, directory=folder / "first")
    report("20,000 images there and back")
    there, started = [], time.process_time()
    compressed = kvae.compression.compress(model, stream(images, batches, there), folder / "x.kvae", verbose=0)
    report(f"{compressed}; {compressed.examples * 3136 / 1e9:.2f} GB in {time.process_time() - started:.0f} CPU s")
    started = time.process_time()
    kvae.compression.decompress(folder / "x.kvae", model, directory=folder / "x")
    report(f"decompressed in {time.process_time() - started:.0f} CPU s")
    back = hashlib.sha256()
    for batch in kvae.data.load(folder / "x", BATCH, shuffle=0, validation=0)[0].as_numpy_iterator():
        back.update(np.ascontiguousarray(batch).tobytes())
    report(f"SHA-256 there {there[-1]}, back {back.hexdigest()}")
    assert there[-1] == back.hexdigest()


def stream(images, batches, digests=None):
    """Images with pixels turned over, a generator of `batches` batches. digests: a list, for the SHA-256 of a pass."""

    def generate():
        digest = hashlib.sha256()
        for number in range(batches):
            rng = np.random.default_rng(number)
            x = images[rng.integers(0, len(images), BATCH)] ^ (rng.integers(0, 100, (BATCH, 28, 28, 1), "uint8") == 0)
            x = x.astype("float32")
            digest.update(x.tobytes())
            yield x
        if digests is not None:
            digests.append(digest.hexdigest())

    signature = tf.TensorSpec((BATCH, 28, 28, 1), "float32")
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def report(what):
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6.0f} MB at most: {what}", flush=True)


if __name__ == "__main__":
    main()
