import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from small_models import dense_vae

import kvae
from kvae import plots

NOISE, WEIGHTS, BIAS = 0.3, np.diag([1.5, 0.7]), np.array([0.4, -1.0])
X = np.array([[1.0, 0.5], [0.2, 0.1]], "float32")


def linear_vae(shift=0.0):
    """x = W z + b + noise of 2 latents; every q(z|x) is the p(z|x) of X[1], its means moved by `shift` deviations."""
    networks, sizes = kvae.networks, ((2,), 2, ())
    vae = kvae.VAE(networks.dense_encoder(*sizes), networks.dense_decoder(*sizes), kvae.GaussianLikelihood(NOISE))
    variance = 1 / (1 + np.diag(WEIGHTS) ** 2 / NOISE)
    mean = variance * ((X[1] - BIAS) @ WEIGHTS) / NOISE + shift * np.sqrt(variance)
    for name, bias in ("z_mean", mean), ("z_log_var", np.log(variance)):
        vae.encoder.get_layer(name).set_weights([np.zeros((2, 2)), bias])
    vae.decoder.layers[1].set_weights([WEIGHTS.T, BIAS])
    return vae, multivariate_normal(mean - shift * np.sqrt(variance), np.diag(variance))


def filled(ax):
    """(points, densities) of the filled picture, its peak at 1."""
    mesh = ax.collections[0]
    corners = mesh.get_coordinates()
    return (corners[1:, 1:] + corners[:-1, :-1]) / 2, mesh.get_array() ** 2


def radii(ax):
    """Of the lines, from their centre, the larger first."""
    paths = [path.vertices for path in ax.collections[1].get_paths()]
    return sorted((np.abs(path - path.mean(axis=0)).max(axis=0).mean() for path in paths), reverse=True)


def test_the_posterior_is_the_exact_one_and_its_kl_the_closed_form():
    vae, exact = linear_vae()
    ax = plots.posterior(vae, X, index=1)
    points, density = filled(ax)
    np.testing.assert_allclose(density, exact.pdf(points) / exact.pdf(points).max(), atol=1e-3)
    assert ax.get_title().endswith("= 0.00 nats")
    vae, exact = linear_vae(shift=0.5)
    ax = plots.posterior(vae, X, index=1)
    points, density = filled(ax)
    np.testing.assert_allclose(density, exact.pdf(points) / exact.pdf(points).max(), atol=1e-3)
    assert ax.get_title().endswith("= 0.25 nats"), "1/2 of 0.5^2 for each of two latents"


def test_the_aggregate_posterior_is_filled_and_the_priors_lines_hold_their_shares():
    vae, exact = linear_vae()
    ax = plots.aggregate_posterior(vae, X)
    points, density = filled(ax)
    np.testing.assert_allclose(density / density.sum(), exact.pdf(points) / exact.pdf(points).sum(), atol=5e-4)
    wanted = [np.sqrt(5.99146), np.sqrt(1.38629)]  # chi^2 with 2 degrees of freedom: 95 % and 50 %
    np.testing.assert_allclose(radii(ax), wanted, rtol=0.03)


def test_the_aggregate_posterior_is_the_mean_over_images():
    vae = dense_vae((2,), posterior_family=kvae.posteriors.FullNormal(), prior=kvae.VampPrior(3, bounds=None))
    points, density = filled(plots.aggregate_posterior(vae, X, size=30))
    each = np.exp(np.stack([vae.posterior(X).pairwise_log_prob(row) for row in points.astype("float32")]))
    mean = each.mean(axis=-1)
    np.testing.assert_allclose(density / density.sum(), mean / mean.sum(), atol=1e-3)


def test_they_draw_in_the_axes_given():
    vae, _ = linear_vae()
    figure, grid = plt.subplots(1, 2)
    assert plots.posterior(vae, X, ax=grid[0]) is grid[0] and plots.aggregate_posterior(vae, X, ax=grid[1]) is grid[1]
    assert plt.get_fignums()[-1] == figure.number and all(ax.get_title() and ax.get_legend() for ax in grid)


def test_errors_say_what_came():
    vae, _ = linear_vae()
    planar = dense_vae((2,), posterior_family=kvae.posteriors.FlowPosterior(kvae.flows.Planar(2)))
    for message, call in {
        "VAE has latent_dim 3; densities are drawn": lambda: plots.aggregate_posterior(dense_vae((2,), 3), X),
        "This FlowPosterior scores only the z": lambda: plots.posterior(planar, X),
        "index is 2; expected 0 to 1": lambda: plots.posterior(vae, X, index=2),
        "count is 0; expected": lambda: plots.aggregate_posterior(vae, X, count=0),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
