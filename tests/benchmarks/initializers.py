"""he_normal against glorot_uniform in the hidden layers of kvae.networks: held-out squared errors and ELBOs.

python tests/benchmarks/initializers.py [--fashion FOLDER] [--seeds N] [--images N] [--minutes N] [--cases CASE ...]

A case is an autoencoder or a VAE of dense or convolutional networks, trained from both initializers by turns. The data
are scikit-learn's handwritten digits (8x8), sprites (32x32x3) and, from a FOLDER with its .gz files, Fashion-MNIST. The
VAEs of digits and Fashion-MNIST see binary images and have a Bernoulli likelihood. The VAEs of sprites have a Gaussian
one. A convolutional network sees about --images images, in whole epochs, and a dense one four times as many, in batches
of 128 with Adam at 1e-3. Prints each pair, then the table of all. After --minutes it starts no other pair.
"""

import argparse
import gzip
import itertools
import pathlib
import time

import keras
import numpy as np

import kvae

INITIALIZERS = "he_normal", "glorot_uniform"
CASES = "fashion-dense", "digits-dense", "fashion-conv", "digits-conv", "sprites-conv"
LATENT_DIM = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=pathlib.Path, help="folder of Fashion-MNIST's files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--cases", nargs="+", help=f"of {', '.join(CASES)}, each with -ae or -vae; default: all")
    options = parser.parse_args()
    sets = {"digits": digits(), "sprites": sprites()}
    if options.fashion:
        sets["fashion"] = fashion(options.fashion)
    names = [f"{case}-{kind}" for case in CASES if case.split("-")[0] in sets for kind in ("ae", "vae")]
    started, results = time.monotonic(), {}
    for seed, name in itertools.product(range(options.seeds), options.cases or names):
        if time.monotonic() - started > 60 * options.minutes:
            break
        data = sets[name.split("-")[0]]
        pair = [measured(name, *data, initializer, seed, options.images) for initializer in INITIALIZERS]
        results.setdefault(name, []).append(pair)
        print(f"seed {seed}  {name:<20}" + "".join(f"{value:>12.3f}" for value in pair), flush=True)
    print(f"\nmeans over seeds      {''.join(f'{name:>16}' for name in INITIALIZERS)}   difference of each seed")
    for name, pairs in results.items():
        pairs = np.array(pairs)
        change = pairs[:, 0] / pairs[:, 1] - 1 if name.endswith("-ae") else pairs[:, 0] - pairs[:, 1]
        form = "{:+.1%}" if name.endswith("-ae") else "{:+.2f} nats"
        values = "".join(f"{mean:>16.3f}" for mean in pairs.mean(axis=0))
        print(f"{name:<22}{values}   {', '.join(map(form.format, change))}")


def measured(name, train, test, initializer, seed, images):
    """The held-out squared error of an autoencoder, or the ELBO of a VAE."""
    data, layers, kind = name.split("-")
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    make = {"dense": kvae.networks.dense_encoder, "conv": kvae.networks.conv_encoder}[layers]
    encoder = make(train.shape[1:], LATENT_DIM, initializer=initializer)
    make = {"dense": kvae.networks.dense_decoder, "conv": kvae.networks.conv_decoder}[layers]
    decoder = make(train.shape[1:], LATENT_DIM, initializer=initializer)
    if kind == "ae":
        model = kvae.Autoencoder(encoder, decoder)
    else:
        if data != "sprites":
            train, test = (np.where(x > 127, np.uint8(255), np.uint8(0)) for x in (train, test))
        model = kvae.VAE(encoder, decoder, "gaussian" if data == "sprites" else "bernoulli", seed=seed)
    model.compile(kvae.optimizers.Adam(1e-3))
    images = images if layers == "conv" else 4 * images
    model.fit(train, batch_size=128, epochs=max(1, round(images / len(train))), verbose=0)
    if kind == "ae":
        return kvae.evaluation.squared_error(model, test)
    return model.evaluate(test, batch_size=500, verbose=0, return_dict=True)["elbo"]


def digits():
    from sklearn.datasets import load_digits

    images = (load_digits().images[..., None] * (255 / 16)).astype("uint8")
    images = images[np.random.default_rng(0).permutation(len(images))]
    return images[:1_500], images[1_500:]


def sprites():
    train, _, test = kvae.data.load("sprites", batch_size=500, examples=25_000, size=32, shuffle=0)
    return [np.concatenate(list(stream.as_numpy_iterator())) for stream in (train, test)]


def fashion(folder):
    def read(name, count):
        images = np.frombuffer(
            gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
        )
        return images.reshape(-1, 28, 28, 1)[:count]

    return read("train", 20_000), read("t10k", 10_000)


if __name__ == "__main__":
    main()
