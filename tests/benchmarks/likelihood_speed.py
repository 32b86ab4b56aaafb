"""How fast log p(x) is estimated: images a CPU second at k = 5,000, beside the limit that matrix products set.

python tests/benchmarks/likelihood_speed.py [--images 400] [--samples 5000] [--repeats 5] [--data-dir DIR]

The model is the MLP 784-200-200-50 with a Bernoulli likelihood, on one core. Timed is the whole call of
`kvae.evaluation.log_likelihood`, tracing included; by turns with it, so that a machine that is busy for a while slows
all alike, the decoder's matrix products alone, 512 z at a time, and as many operations in products of 2048 x 2048.
Images: Fashion-MNIST's test set, made black and white, where tensorflow-datasets has prepared it, else noise.
"""

import argparse
import pathlib
import sys
import time
from statistics import median

sys.path.insert(0, str(pathlib.Path(__file__).parent / "training_loops"))
from cases import CASES, SHAPE
from worker import hold_to_threads

CASE = CASES["mlp-128"]
FLOPS = 2 * sum(layer.multiplications for layer in CASE.decoder)  # of one z


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--samples", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    options = parser.parse_args()
    hold_to_threads(1)  # before TensorFlow is imported
    import tensorflow as tf

    import kvae

    widths = [layer.kernel[1] for layer in CASE.decoder[:-1]]
    encoder = kvae.networks.dense_encoder(SHAPE, CASE.latent_dim, hidden=widths)
    decoder = kvae.networks.dense_decoder(SHAPE, CASE.latent_dim, hidden=widths)
    vae = kvae.VAE(encoder, decoder, "bernoulli", seed=0)
    x, source = images(options)
    own = [(tf.random.normal((512, layer.kernel[0])), tf.random.normal(layer.kernel)) for layer in CASE.decoder]
    large = [2 * (tf.random.normal((2048, 2048)),)]
    limits = ("the decoder's products", own, 512 * FLOPS), ("large products", large, 2 * 2048**3)
    speeds = {name: [] for name in ("log_likelihood", *(name for name, *_ in limits))}
    for _ in range(options.repeats):
        started = time.process_time()
        kvae.evaluation.log_likelihood(vae, x, options.samples, verbose=0)
        speeds["log_likelihood"].append(len(x) / (time.process_time() - started))
        for name, pairs, flops in limits:
            calls, started = round(4e11 / flops), time.process_time()
            for pair in calls * pairs:
                tf.matmul(*pair)
            speeds[name].append(calls * flops / (time.process_time() - started) / (options.samples * FLOPS))
    print(f"{source}; {len(x)} images, k = {options.samples:,}, {options.repeats} repeats, one core")
    for name, found in speeds.items():
        shares = [ours / limit for ours, limit in zip(speeds["log_likelihood"], found, strict=True)]
        share = "" if name == "log_likelihood" else f"; log_likelihood has {spread(shares, '.2f')} of it"
        print(f"{name}: {spread(found, '.1f')} images a CPU second{share}")


def images(options):
    import numpy as np
    import tensorflow_datasets as tfds

    split = f"test[:{options.images}]"
    try:
        found = tfds.load("fashion_mnist", split=split, data_dir=options.data_dir, download=False, batch_size=-1)
        return np.asarray(found["image"]) > 127, "Fashion-MNIST"
    except Exception as error:  # of many kinds where the set isn't prepared
        noise = np.random.default_rng(0).random((options.images, *SHAPE)) < 0.3
        return noise, f"noise in place of Fashion-MNIST ({type(error).__name__})"


def spread(values, form):
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


if __name__ == "__main__":
    main()
