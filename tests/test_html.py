"""What models, streams and measurements look like in a notebook."""

import base64
import io
import re
from html.parser import HTMLParser

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from hierarchical_models import two_layer
from small_models import dense_vae

import kvae
from kvae import html
from kvae.data import Stream

NASTY = '<script>alert("&")'


class Page(HTMLParser):
    """The tags that were opened, those left open, the text and the pictures (n, height, width, 3)."""

    def __init__(self, thing):
        super().__init__()
        self.tags, self.open, self.text, self.pictures = [], [], [], []
        self.feed(thing._repr_html_())
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            file = dict(attributes)["src"].removeprefix("data:image/png;base64,")
            self.pictures.append(matplotlib.image.imread(io.BytesIO(base64.b64decode(file))))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def vq_vae():
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 2, strides=2)])
    decoder = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2DTranspose(1, 2, strides=2)])
    return kvae.VQVAE(encoder, decoder, codes=16)


def conditional_vae():
    x, z, y = keras.Input((6,)), keras.Input((2,)), keras.Input((3,))
    encoded, decoded = (keras.layers.Concatenate()(pair) for pair in ([x, y], [z, y]))
    outputs = [keras.layers.Dense(2)(encoded), keras.layers.Dense(2)(encoded)]
    return kvae.ConditionalVAE(keras.Model([x, y], outputs), keras.Model([z, y], keras.layers.Dense(6)(decoded)), 3)


def autoencoder():
    return kvae.Autoencoder(kvae.networks.dense_encoder((6,), 2), kvae.networks.dense_decoder((6,), 2))


@pytest.mark.parametrize(
    "make, said",
    [
        (dense_vae, ["x", "6", "encoder", "q(z|x)", "DiagonalNormal", "z", "2", "decoder", "p(x|z)", "StandardNormal"]),
        (conditional_vae, ["x,y", "q(z|x,y)", "p(x|z,y)", "p(z)"]),
        (two_layer, ["2 layers", "3 + 2", "top: StandardNormal"]),
        (vq_vae, ["4 x 4 x 1", "of 16 codes", "p(x|z)"]),
        (autoencoder, ["encoder", "decoder", "its reconstruction"]),
        (lambda: kvae.PCA(2), ["not known yet", "axes", "W (x - mean)", "2"]),
    ],
)
def test_a_models_diagram_names_its_parts(make, said):
    text = Page(make()).text
    assert set(said) <= set(text), text


def test_names_in_a_diagram_are_text():
    class Odd(kvae.GaussianLikelihood):
        pass

    Odd.__name__ = NASTY
    encoder = kvae.networks.dense_encoder((6,), 2)
    vae = kvae.VAE(encoder, kvae.networks.dense_decoder((6,), 2), Odd(), name="<script>")
    page = Page(vae)
    assert set(page.tags) == {"div", "b", "table", "tr", "td", "br"}
    assert page.text.count(NASTY) == 1 and any("<script>" in text for text in page.text)


def stream_of(images, **labels):
    def batches(epoch, skip, shard_index, num_shards):
        data = tf.data.Dataset.from_tensor_slices((np.roll(images, 1, axis=0), labels) if labels else images)
        return data.batch(4).skip(skip)

    return Stream(batches, -(-len(images) // 4))


def test_a_stream_shows_its_next_images_and_stays_where_it_is(rng):
    images = rng.integers(0, 256, (6, 16, 16, 3)).astype("uint8")
    stream = stream_of(images)
    list(stream)
    page = Page(stream)
    assert stream.next_epoch == 1
    assert "2 batches of uint8 (None, 16, 16, 3)" in "".join(page.text)
    tile = page.pictures[0][::4, :64:4] * 255
    np.testing.assert_array_equal(tile.round(), images[0])
    assert page.pictures[0].shape == (64, 4 * 68, 3)


def test_streams_of_other_things_show_what_they_are(rng):
    page = Page(stream_of(rng.random((6, 8, 8, 1)).astype("float32"), **{NASTY: np.arange(6)}))
    assert len(page.pictures) == 1 and NASTY in "".join(page.text) and "script" not in page.tags
    assert not Page(stream_of(rng.random((6, 3)))).pictures


def test_a_stream_that_cannot_be_read_says_why(rng):
    def batches(epoch, skip, shard_index, num_shards):
        def fails(x):
            raise OSError(f"no such file {NASTY}")

        data = tf.data.Dataset.from_tensor_slices(rng.random((4, 8, 8)))
        return data.batch(4).map(lambda x: tf.ensure_shape(tf.py_function(fails, [x], "float64"), (None, 8, 8)))

    assert any(NASTY in text for text in Page(Stream(batches, 1)).text)


def test_measurements_are_tables_of_their_numbers(rng):
    x = rng.random((40, 6)).astype("float32")
    vae, pca = dense_vae(), kvae.PCA(2).fit(x, verbose=0)
    found = kvae.evaluation.elbo_decomposition(vae, x, samples=20, components=10, verbose=0)
    tables = [found, found.likelihood, found.aggregate, kvae.evaluation.active_units(vae, x)]
    tables += [kvae.evaluation.rate_distortion(vae, x, verbose=0), kvae.evaluation.Bracket(x, x[:, 0], x[:, 1])]
    tables += [kvae.evaluation.report(vae, x, samples=20, verbose=0)]
    tables += [kvae.evaluation.simulation_based_calibration(pca, runs=100, num_draws=19, bins=5)]
    pages = [Page(each) for each in tables]
    assert all(page.tags[0] == "table" for page in pages)
    values = [text.split(" +- ")[0] for text in pages[0].text[1::3]]
    reconstruction, information, aggregate, gap = map(float, values[1:])
    np.testing.assert_allclose(reconstruction - information - aggregate + gap, float(values[0]), atol=0.03)
    assert f"{found.likelihood.curve[5]:.2f}" in pages[1].text
    assert f"{np.mean(x[:, 1]):.2f}" in pages[5].text


def test_a_page_is_a_text_of_aligned_tables_and_lists():
    page = html.table([("log p(x)", "1 < 2"), ("k", "5", "draws")]) + html.bullets(["it isn't"])
    assert html.as_text(page) == "log p(x)  1 < 2\nk         5      draws\n\n- it isn't"


def test_a_measurement_is_readable_in_a_python_shell():
    p_values = np.array([0.5, 0.25])
    found = repr(kvae.evaluation.Calibration(np.zeros((4, 2), int), p_values))
    assert found.splitlines()[:2] == ["Calibration", "calibrated  True"]
    assert re.search(r"^z1 +0\.250$", found, re.MULTILINE) and "array(" not in found
