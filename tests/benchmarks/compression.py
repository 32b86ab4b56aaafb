"""Files as long as the ELBO, beside gzip, bz2, xz, PNG and WebP.

    python tests/benchmarks/compression.py [--cases CASE ...] [--epochs N] [--images N] [--data-dir DIR]

Trains a VAE (784-200-200-50 and back for images of 28x28) on the training images of a case, compresses --images test
images, and restores them. Prints bits per dimension, the file against the ELBO, and images a CPU second each way. The
other programs get the same images: as bytes or packed to bits, whichever is smaller, in one stream; PNG and WebP as one
picture, a mosaic. Fashion-MNIST has to be prepared by tensorflow-datasets; the other cases are drawn by kvae.
"""

import argparse
import bz2
import gzip
import io
import lzma
import pathlib
import tempfile
import time
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

import kvae


class Case(NamedTuple):
    """data: of `kvae.data.load`. binary: whether pixels become 0 or 1. epochs: of training."""

    data: str
    arguments: dict
    binary: bool
    epochs: int


CASES = {
    "fashion_mnist": Case("fashion_mnist", {}, True, 60),
    "drawn_digits": Case("drawn_digits", {"examples": 60_000}, True, 30),
    "drawn_digits_grey": Case("drawn_digits", {"examples": 60_000}, False, 30),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[1:])
    parser.add_argument("--epochs", type=int, help="for all cases")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    options = parser.parse_args()
    for name in options.cases:
        run(name, CASES[name], options)


def run(name, case, options):
    train, _, test = kvae.data.load(case.data, 128, data_dir=options.data_dir, **case.arguments)
    if case.binary:
        train, test = kvae.data.binarize(train), kvae.data.binarize(test, anew=False)
    x = np.concatenate(list(test.as_numpy_iterator()))[: options.images]
    keras.utils.set_random_seed(0)
    shape, epochs = x.shape[1:], options.epochs or case.epochs
    likelihood = kvae.BernoulliLikelihood() if case.binary else kvae.DiscretizedLogisticLikelihood(3)
    encoder = kvae.networks.dense_encoder(shape, 50, (200, 200))
    decoder = kvae.networks.dense_decoder(likelihood.decoder_shape(shape), 50, (200, 200))
    model = kvae.VAE(encoder, decoder, likelihood, seed=0)
    model.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, epochs * len(train))))
    model.fit(train, epochs=epochs, verbose=0)
    bound = -model.evaluate(x, verbose=0, return_dict=True)["elbo"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.kvae"
        started = time.process_time()
        compressed = kvae.compression.compress(model, x, path, verbose=0)
        middle = time.process_time()
        restored = kvae.compression.decompress(path, model)
        end = time.process_time()
    assert restored.tobytes() == x.tobytes()
    print(f"{name}: {len(x):,} images, {compressed.size:,} bytes; {epochs} epochs", flush=True)
    print(f"  {compressed.nats:.3f} nats per image against a bound of {bound:.3f}: {compressed.nats / bound:.4f}")
    print(f"  images a CPU second: {len(x) / (middle - started):,.0f} compressing, {len(x) / (end - middle):,.0f} back")
    sizes = {"kvae": compressed.size, **others(x, case.binary)}
    for program, size in sizes.items():
        print(f"  {program:<6} {size * 8 / x.size:.3f} bits per dimension", flush=True)


def others(x, binary):
    """{program: bytes} for images (n, height, width, channels)."""
    x = (x * (255 if binary else 1)).astype("uint8")
    forms = [x.tobytes()] + ([np.packbits(x > 127).tobytes()] if binary else [])
    programs = {
        "gzip": lambda data: gzip.compress(data, 9),
        "bz2": bz2.compress,
        "xz": lambda d: lzma.compress(d, preset=9),
    }
    sizes = {program: min(len(compress(form)) for form in forms) for program, compress in programs.items()}
    for program, save in {"PNG": {"optimize": True}, "WebP": {"lossless": True, "quality": 100, "method": 6}}.items():
        sizes[program] = sum(picture_size(part, program, save, binary) for part in mosaics(x))
    return sizes


def mosaics(x, most=16_000):
    """Pictures of 100 images a row, no side longer than formats take."""
    columns, rows = 100, most // x.shape[1]
    for start in range(0, len(x), columns * rows):
        part = x[start : start + columns * rows]
        part = part[: len(part) // columns * columns] if len(part) > columns else part
        wide = part.reshape(-1, min(columns, len(part)), *x.shape[1:])
        yield wide.transpose(0, 2, 1, 3, 4).reshape(wide.shape[0] * x.shape[1], -1, x.shape[-1])


def picture_size(picture, program, save, binary):
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    if program == "PNG" and binary:
        image = image.convert("1")
    file = io.BytesIO()
    image.save(file, program.lower(), **save)
    return file.tell()


if __name__ == "__main__":
    main()
