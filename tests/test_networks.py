import numpy as np
import pytest

from kvae import networks


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3), (24, 40, 1)])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_pairs_fit_each_other(shape, kind):
    encoder = getattr(networks, f"{kind}_encoder")(shape, 4)
    decoder = getattr(networks, f"{kind}_decoder")(shape, 4)
    z_mean, z_log_var = encoder(np.zeros((2, *shape), "float32"))
    assert z_mean.shape == z_log_var.shape == (2, 4)
    assert decoder(z_mean).shape == (2, *shape)


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
        ((27, 27, 1), None, r"27x27 can be halved 0 time\(s\) and 1 is asked for"),
        ((28, 28, 1), (8, 8, 8), r"28x28 can be halved 2 time\(s\) and 3 is asked for"),
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
