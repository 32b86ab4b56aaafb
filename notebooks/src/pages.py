"""Makes the pages without a kernel that the guides show, in notebooks/pages: python notebooks/src/pages.py."""

import pathlib

import keras
import numpy as np
import scipy.ndimage
from sklearn.datasets import load_digits

import kvae

PAGES = pathlib.Path(__file__).parents[1] / "pages"


def sprites():
    """A convolutional VAE of sprites, 32x32 pixels in color."""
    train, _, test = kvae.data.load("sprites", 128, size=32, examples=20_000)
    keras.utils.set_random_seed(0)
    networks = kvae.networks.conv_encoder((32, 32, 3), 8), kvae.networks.conv_decoder((32, 32, 3), 8)
    vae = kvae.VAE(*networks, kvae.GaussianLikelihood(), seed=0)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 12 * train.num_batches)))
    vae.fit(train, epochs=12, verbose=2)
    return vae, test


def digits():
    """A dense VAE of scikit-learn's digits in black and white, 28x28 pixels with a margin, as MNIST has."""
    grey = scipy.ndimage.zoom(load_digits().images / 16, (1, 2.5, 2.5), order=3)
    x = np.pad(grey > 0.5, [(0, 0), (4, 4), (4, 4)])[..., None].astype("float32")
    x = x[np.random.default_rng(0).permutation(len(x))]
    keras.utils.set_random_seed(0)
    networks = (
        kvae.networks.dense_encoder((28, 28, 1), 8, (192, 96)),
        kvae.networks.dense_decoder((28, 28, 1), 8, (96, 192)),
    )
    vae = kvae.VAE(*networks, "bernoulli", seed=0)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 40 * 25)))
    vae.fit(x[:1600], epochs=40, batch_size=64, verbose=2)
    return vae, x[1600:]


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    vae, images = digits()
    kvae.widgets.sketch(vae, images, count=10).save(PAGES / "digits.html", overwrite=True)
    vae, images = sprites()
    kvae.widgets.explore(vae, images).save(PAGES / "sprites.html", overwrite=True)
    for path in sorted(PAGES.glob("*.html")):
        print(f"{path}: {path.stat().st_size // 1000} kB")
