import base64
import io
import sys

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from small_models import dense_vae

import kvae
from kvae.data import Stream
from kvae.plots.codes import first_examples


@pytest.fixture
def x(rng):
    return rng.random((60, 4, 4)).astype("float32")


def vae(latent_dim=3):
    return dense_vae((4, 4), latent_dim)


def shown(explorer):
    """The image that is shown, as the model gives it: a pixel of each square."""
    pixels = matplotlib.image.imread(io.BytesIO(explorer.image.value))[..., 0]
    step = len(pixels) // 4
    return pixels[::step, ::step]


def decoded(model, z):
    return np.clip(model.inverse_transform(z[None].astype("float32"))[0], 0, 1)


def test_a_slider_moves_its_latent_and_no_other(x):
    model = vae()
    explorer = kvae.widgets.explore(model, x)
    z = explorer.z
    np.testing.assert_allclose(z, model.transform(x[:1])[0], atol=1e-6)
    explorer.sliders[1].value = z[1] = 0.25
    np.testing.assert_allclose(explorer.z, z)
    np.testing.assert_allclose(shown(explorer), decoded(model, z), atol=1 / 255)


def test_a_click_decodes_the_point_it_hits(x):
    model = vae()
    explorer = kvae.widgets.explore(model, x, dims=(2, 0))
    z, clicked = explorer.z, [0.6, 0.3]
    explorer.plane.clicked = clicked
    np.testing.assert_allclose(explorer.plane.point, clicked, atol=1e-9)
    assert explorer.z[1] == z[1]
    # The axes are linear: two more clicks give their scale, and this one lies between.
    corners = []
    for corner in ([0.5, 0.5], [0.7, 0.1]):
        explorer.plane.clicked = corner
        corners.append(explorer.z)
    explorer.plane.clicked = clicked
    np.testing.assert_allclose(explorer.z[[2, 0]], (corners[0] + corners[1])[[2, 0]] / 2)
    assert corners[1][2] > corners[0][2] and corners[1][0] > corners[0][0]  # right is more, and so is up
    assert [explorer.sliders[latent].value for latent in (2, 0)] == pytest.approx(explorer.z[[2, 0]].tolist())
    np.testing.assert_allclose(shown(explorer), decoded(model, explorer.z), atol=1 / 255)


def test_one_image_is_decoded_for_many_sliders(x, monkeypatch):
    model = vae()
    explorer = kvae.widgets.explore(model)
    calls, decode = [], model.inverse_transform
    monkeypatch.setattr(model, "inverse_transform", lambda z: calls.append(z) or decode(z))
    explorer.z = [0.5, -0.5, 1.0]
    assert len(calls) == 1 and [slider.value for slider in explorer.sliders.values()] == [0.5, -0.5, 1.0]
    with pytest.raises(ValueError, match="expected 3 finite numbers"):
        explorer.z = [0.5, np.nan, 1.0]


def test_ranges_are_three_standard_deviations(x):
    by_prior = kvae.widgets.explore(vae())
    assert [(slider.min, slider.max) for slider in by_prior.sliders.values()] == [(-3, 3)] * 3
    model = vae()
    q = model.posterior(x)
    mean, variance = np.asarray(q.mean), np.exp(np.asarray(q.log_var))
    expected = np.sqrt(mean.var(axis=0) + variance.mean(axis=0))  # of the mixture of posteriors
    explorer = kvae.widgets.explore(model, x)
    found = [(explorer.sliders[i].max - explorer.sliders[i].min) / 6 for i in range(3)]
    np.testing.assert_allclose(found, expected, rtol=0.3)
    pca = kvae.PCA(2).fit(x, verbose=0)
    alone, with_data = kvae.widgets.explore(pca), kvae.widgets.explore(pca, x)
    assert alone.sliders[0].max == pytest.approx(with_data.sliders[0].max, rel=1e-3)


def test_few_sliders_are_those_of_the_latents_used_most(x):
    model = vae(5)
    explorer = kvae.widgets.explore(model, x, count=2)
    kl = np.asarray(model.draw(x, index=np.arange(len(x))).kl).mean(axis=0)
    assert list(explorer.sliders) == np.argsort(-kl)[:2].tolist() == explorer.dims


def test_a_reader_without_a_kernel_sees_a_picture(x):
    bundle = kvae.widgets.explore(vae(), x)._repr_mimebundle_()
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert picture.shape[1] > picture.shape[0] and "application/vnd.jupyter.widget-view+json" in bundle


def test_one_latent_has_no_plane(x):
    assert kvae.widgets.explore(vae(1), x).plane is None


def test_what_does_not_fit_is_refused(x, monkeypatch):
    autoencoder = kvae.Autoencoder(kvae.networks.dense_encoder((6,), 2), kvae.networks.dense_decoder((6,), 2))
    with pytest.raises(ValueError, match="give data"):
        kvae.widgets.explore(autoencoder)
    with pytest.raises(ValueError, match="can't be shown as images"):
        kvae.widgets.explore(dense_vae())
    with pytest.raises(TypeError, match="explore takes a VAE"):
        kvae.widgets.explore(x)
    for dims in (0, 0), (0, 3), (0,):
        with pytest.raises(ValueError, match="expected two of the 3 latents"):
            kvae.widgets.explore(vae(), dims=dims)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "kvae.widgets.explorer", raising=False)
    with pytest.raises(ImportError, match="python -m pip install ipywidgets anywidget"):
        kvae.widgets.explore(vae())


def test_a_stream_of_small_batches_gives_as_many_examples_as_an_array(rng):
    x = rng.random((300, 4, 4)).astype("float32")
    stream = Stream(
        lambda epoch, skip, shard_index, num_shards: tf.data.Dataset.from_tensor_slices(x).batch(8).skip(skip), 38
    )
    found, _ = first_examples(stream, 200)
    np.testing.assert_array_equal(found, x[:200])
    assert stream.next_epoch == 0
