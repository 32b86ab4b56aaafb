import keras
import numpy as np
import pytest
from keras import ops

import kvae
from kvae import networks


def test_dense_pairs_fit_each_other():
    z_mean, z_log_var = networks.dense_encoder((24, 40, 1), 4)(np.zeros((2, 24, 40, 1), "float32"))
    assert z_mean.shape == z_log_var.shape == (2, 4)
    assert networks.dense_decoder((24, 40, 1), 4)(z_mean).shape == (2, 24, 40, 1)


@pytest.mark.parametrize(
    "shape, smallest, parameters",
    [
        # As in 0.1.0: saved weights and the notebooks rest on these.
        ((28, 28, 1), (7, 7, 64), 841_588),
        ((32, 32, 3), (4, 4, 64), 367_540),
        ((64, 64, 3), (4, 4, 64), 433_140),
        ((24, 40, 1), (6, 10, 64), 1_021_812),
        # 0.1.0 refused odd sides, and let sides with few factors of two have up to 128 million parameters.
        ((45, 45, 1), (6, 6, 64), 694_196),
        ((90, 90, 1), (6, 6, 64), 759_796),
        ((218, 178, 3), (7, 6, 64), 924_724),
        ((250, 250, 3), (4, 4, 64), 564_340),
        ((7, 9, 2), (4, 5, 32), 170_292),
        ((1, 5, 1), (1, 3, 32), 30_516),
    ],
)
def test_convolutional_pairs_fit_images_of_any_size(shape, smallest, parameters):
    encoder, decoder = networks.conv_encoder(shape, 10), networks.conv_decoder(shape, 10)
    assert encoder.count_params() == parameters
    last = [layer.output.shape[1:] for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)][-1]
    assert last == smallest
    z_mean, z_log_var = encoder(np.zeros((2, *shape), "float32"))
    assert z_mean.shape == z_log_var.shape == (2, 10)
    assert decoder(z_mean).shape == (2, *shape)
    assert 0.9 < decoder.count_params() / parameters < 1.1


def test_filters_reach_sides_of_one_pixel():
    encoder, decoder = networks.conv_encoder((9, 5, 1), 2, (4,) * 4), networks.conv_decoder((9, 5, 1), 2, (4,) * 4)
    assert encoder.layers[-4].output.shape == (None, 4)  # flattened
    assert decoder.output.shape == (None, 9, 5, 1)


def test_a_cropped_decoder_uses_the_middle_of_its_outputs():
    decoder = networks.conv_decoder((9, 14, 1), 2, filters=(4, 4), outputs=2)
    whole = keras.Model(decoder.input, [layer.input for layer in decoder.layers if "cropping" in layer.name])
    z = np.ones((1, 2))
    for output, larger in zip(decoder(z), whole(z), strict=True):
        assert larger.shape == (1, 12, 16, 1)
        np.testing.assert_array_equal(output, larger[:, 1:10, 1:15])


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_second_output_is_asked_for(kind):
    mean, log_var = getattr(networks, f"{kind}_decoder")((8, 8, 1), 3, outputs=2)(np.zeros((2, 3)))
    assert mean.shape == log_var.shape == (2, 8, 8, 1)


def test_without_hidden_layers_dense_networks_are_linear(rng):
    encoder = networks.dense_encoder((6,), 2, hidden=())
    a, b = rng.normal(size=(2, 1, 6)).astype("float32")
    np.testing.assert_allclose(encoder(a + b)[0], encoder(a)[0] + encoder(b)[0], atol=1e-5)


@pytest.mark.parametrize(
    "shape, filters, message",
    [
        ((1, 1, 1), None, r"1x1 can be halved 0 time\(s\), and 1 filter\(s\) are asked for: use kvae.networks.dense"),
        ((28, 28, 1), (8,) * 6, r"28x28 can be halved 5 time\(s\), and 6 .* give 1 to 5 filters, or use"),
        ((28, 28, 1), (), r"and 0 filter\(s\) are asked for"),
        ((784,), None, r"expects \(height, width, channels\)"),
    ],
)
def test_shapes_that_cannot_be_halved_are_refused(shape, filters, message):
    for make in (networks.conv_encoder, networks.conv_decoder):
        with pytest.raises(ValueError, match=message):
            make(shape, 2, filters=filters)


@pytest.mark.parametrize("latent_dim", [0, -1, 1.5, "2", True])
def test_a_latent_size_that_makes_no_sense_is_refused(latent_dim):
    for make in (networks.dense_encoder, networks.conv_encoder, networks.dense_decoder, networks.conv_decoder):
        with pytest.raises(ValueError, match="expected an integer of at least 1"):
            make((8, 8, 1), latent_dim)


KINDS = {"dense": {"hidden": (16,)}, "conv": {"filters": (4,), "units": 16}}


def pair(kind, shape=(6, 6, 1), **options):
    """Small networks and their options that only an encoder has."""
    to_encoder = {name: options.pop(name) for name in ("preprocessing",) if name in options}
    encoder = getattr(networks, f"{kind}_encoder")(shape, 2, **KINDS[kind], **to_encoder, **options)
    return encoder, getattr(networks, f"{kind}_decoder")(shape, 2, **KINDS[kind], **options)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_with_labels_make_a_conditional_model(kind, rng):
    model = kvae.ConditionalVAE(*pair(kind, label_dim=3), label_dim=3)
    x, y = rng.random((4, 6, 6, 1)).astype("float32"), np.arange(4) % 3
    assert model.sample(4, y=2).shape == x.shape
    means, others = model.encode((x, y)), model.encode((x, (y + 1) % 3))
    assert not np.any(np.isclose(means, others, rtol=1e-3).all(axis=1))  # q(z|x,y) depends on y
    assert not np.allclose(model.decode((means, y)), model.decode((means, (y + 1) % 3)), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_start_at_a_small_kl_with_their_logarithms_and_the_model_loads(kind, rng, tmp_path):
    x = rng.poisson(np.exp(rng.normal(5, 1, (50, 6, 6, 1)))).astype("float32")
    kl = {}
    for preprocessing in (None, "log1p"):
        model = kvae.VAE(*pair(kind, preprocessing=preprocessing), likelihood="poisson")
        kl[preprocessing] = float(np.mean(model.posterior(x).kl_divergence(model.prior_distribution(1))))
    assert kl["log1p"] < 100 and kl[None] > 10_000
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(kvae.load(tmp_path / "model.keras").encode(x), model.encode(x))


def test_preprocessing_may_be_a_layer_or_a_function():
    x = np.full((1, 6), 2.0, "float32")
    for preprocessing in (keras.layers.Rescaling(0.5), ops.sqrt):
        encoder = networks.dense_encoder((6,), 2, hidden=(), preprocessing=preprocessing)
        again = keras.Model.from_config(encoder.get_config())
        again.set_weights(encoder.get_weights())
        plain = networks.dense_encoder((6,), 2, hidden=())
        plain.set_weights(encoder.get_weights())
        np.testing.assert_allclose(again(x)[0], plain(np.asarray(preprocessing(x)))[0], rtol=1e-6)
    with pytest.raises(ValueError, match="preprocessing is 'log'; expected 'log1p', a Keras layer or a function"):
        networks.dense_encoder((6,), 2, preprocessing="log")


@pytest.mark.parametrize("kind", KINDS)
def test_an_initializer_is_that_of_all_layers_but_the_heads(kind):
    for network in pair(kind, initializer="zeros"):
        kernels = [layer.kernel for layer in network.layers if hasattr(layer, "kernel")]
        heads = [layer.kernel for layer in network.layers if "z_" in layer.name] or kernels[-1:]
        is_zero = [not np.any(kernel) for kernel in kernels]
        assert is_zero == [True] * (len(kernels) - len(heads)) + [False] * len(heads)
