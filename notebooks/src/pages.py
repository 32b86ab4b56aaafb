"""Makes the pages in notebooks/pages, which run without a kernel: python notebooks/src/pages.py [NAME ...].

Without names nothing is trained: the pages get the present scripts and styles, and keep their models.
"""

import html
import pathlib
import re
import sys

import keras
import tensorflow as tf

import kvae
from kvae.widgets import pages

FOLDER = pathlib.Path(__file__).parents[1] / "pages"


def sprites():
    """A convolutional VAE of sprites, 32x32 pixels in color."""
    train, _, test = kvae.data.load("sprites", 128, size=32, examples=20_000)
    keras.utils.set_random_seed(0)
    networks = (
        kvae.networks.conv_encoder((32, 32, 3), 8, units=64),
        kvae.networks.conv_decoder((32, 32, 3), 8, units=64),
    )
    vae = kvae.VAE(*networks, kvae.GaussianLikelihood(), seed=0)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 12 * train.num_batches)))
    vae.fit(train, epochs=12, verbose=2)
    return vae, test


def digits():
    """A dense VAE of digits in black and white, 28x28 pixels."""

    def binary(stream):
        return stream.apply(lambda images: images.map(lambda x: tf.cast(x > 127, tf.float32)))

    train, _, test = map(binary, kvae.data.load("drawn_digits", 128, examples=20_000))
    keras.utils.set_random_seed(0)
    encoder = kvae.networks.dense_encoder((28, 28, 1), 8, (128, 64))
    decoder = kvae.networks.dense_decoder((28, 28, 1), 8, (64, 128))
    vae = kvae.VAE(encoder, decoder, "bernoulli", seed=0)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 20 * train.num_batches)))
    vae.fit(train, epochs=20, verbose=2)
    return vae, test


def renewed(text):
    """A page with the scripts and styles of today, and its own model."""
    title, model, weights = (
        re.search(f"<{tag}>([^<]*)<", text)[1]
        for tag in ("title", 'script type="application/json" id="model"', 'script type="text/plain" id="weights"')
    )
    template = "sketch" if '"examples"' in model else "explorer"
    return pages.render(template, html.unescape(title), model, weights)


PAGES = {"sprites": (sprites, kvae.widgets.explore, {}), "digits": (digits, kvae.widgets.sketch, {"count": 10})}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        train, show, options = PAGES[name]
        show(*train(), **options).save(FOLDER / f"{name}.html", overwrite=True)
    for path in FOLDER.glob("*.html"):
        path.write_text(renewed(path.read_text()))
        print(f"{path}: {path.stat().st_size // 1000} kB")
