"""Flows: log-determinants by automatic differentiation, inverses by going there and back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvae.distributions import Normal
from kvae.flows import Coupling, InverseAutoregressive, Planar, Transformed

LATENTS, CONTEXT = 5, 3
FLOWS = [
    Planar(4, dtype="float64"),
    Coupling(3, hidden=(7,), dtype="float64"),
    Coupling(2, hidden=(), dtype="float64"),
    InverseAutoregressive(2, hidden=(16, 16), dtype="float64"),
]
WITH_INVERSE = [flow for flow in FLOWS if flow.invertible]


def name(flow):
    return flow.name


def tensors(rng, count, context):
    return tf.constant(rng.normal(size=(count, LATENTS))), tf.constant(
        rng.normal(size=(count, CONTEXT))
    ) if context else None


def randomized(flow, rng, context, latents=LATENTS):
    """The same flow anew, with weights as far from the identity as training might take them."""
    flow = type(flow).from_config(flow.get_config())
    flow.build((None, latents), (None, CONTEXT) if context else None)
    for weight in flow.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.7)
    return flow


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("flow", FLOWS, ids=name)
def test_the_log_determinant_is_the_jacobians(rng, flow, context):
    flow = randomized(flow, rng, context)
    eps, context = tensors(rng, 6, context)
    with tf.GradientTape() as tape:
        tape.watch(eps)
        z, log_determinant = flow(eps, context)
    _, expected = np.linalg.slogdet(tape.batch_jacobian(z, eps))
    np.testing.assert_allclose(log_determinant, expected, rtol=1e-10, atol=1e-10)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("flow", WITH_INVERSE, ids=name)
def test_the_inverse_leads_back(rng, flow, context):
    flow = randomized(flow, rng, context)
    eps, context = tensors(rng, 50, context)
    z, log_determinant = flow(eps, context)
    back, inverse_log_determinant = flow.inverse(z, context)
    np.testing.assert_allclose(back, eps, atol=1e-8)
    np.testing.assert_allclose(inverse_log_determinant, -np.asarray(log_determinant), atol=1e-8)


@pytest.mark.parametrize("context", [False, True])
def test_an_autoregressive_step_sees_the_latents_before_and_all_of_the_context(rng, context):
    flow = randomized(InverseAutoregressive(1, hidden=(32,), dtype="float64"), rng, context)
    eps, context = tensors(rng, 4, context)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([eps] if context is None else [eps, context])
        z = flow(eps, context)[0][:, ::-1]
    jacobian = np.asarray(tape.batch_jacobian(z, eps))
    assert (np.triu(jacobian, 1) == 0).all()
    assert (np.abs(jacobian[:, *np.tril_indices(LATENTS)]) > 0).all()
    if context is not None:
        assert (np.abs(tape.batch_jacobian(z, context)) > 0).all()


@pytest.mark.parametrize("flow", FLOWS, ids=name)
def test_a_new_flow_is_close_to_the_identity(rng, flow):
    flow = type(flow).from_config(flow.get_config())
    flow.build((None, LATENTS), (None, CONTEXT))
    eps, context = tensors(rng, 20, True)
    z, log_determinant = flow(eps, context)
    if isinstance(flow, InverseAutoregressive):  # two gates of sigmoid(2), and the order turned twice
        eps, log_determinant = eps * 0.8808**2, log_determinant - 2 * LATENTS * np.log(0.8808)
    np.testing.assert_allclose(z, eps, rtol=1e-3)
    np.testing.assert_allclose(log_determinant, 0, atol=1e-3)


def test_a_planar_flow_stays_invertible_whatever_its_weights(rng):
    flow = randomized(Planar(6, dtype="float64"), rng, False)
    flow.set_weights([10 * weight for weight in flow.get_weights()])
    _, log_determinant = flow(tf.constant(rng.normal(size=(1000, LATENTS)) * 3))
    assert np.isfinite(log_determinant).all()


@pytest.mark.parametrize("scale", [-1e4, -40.0, -16.0, -14.0, 40.0])
@pytest.mark.parametrize("size", [1.0, 3e-4])
def test_a_planar_flow_is_finite_in_single_precision_for_large_u(rng, scale, size):
    flow = Planar(1)
    flow.build((None, 2))
    flow.set_weights([np.array([[scale, 1.0]]), np.array([[size, 0.0]]), np.zeros(1)])
    z = tf.constant(np.r_[np.zeros((1, 2)), rng.normal(size=(10_000, 2))], tf.float32)
    with tf.GradientTape() as tape:
        log_determinant = flow(z)[1]
    assert np.isfinite(log_determinant).all()
    assert all(np.isfinite(g).all() for g in tape.gradient(log_determinant, [w.value for w in flow.weights]))


@pytest.mark.parametrize("bias", [-1e4, -100.0, -20.0, 20.0, 1e4])
def test_closed_gates_have_an_inverse_in_single_precision(rng, bias):
    flow = InverseAutoregressive(2, hidden=())
    flow.build((None, 2))
    for network in flow.networks:
        network.biases[-1].assign([bias, bias, 1.0, 1.0])
    eps = tf.constant(rng.normal(size=(100, 2)), tf.float32)
    z, log_determinant = flow(eps)
    back, inverse_log_determinant = flow.inverse(z)
    np.testing.assert_allclose(back, eps, atol=5e-3)
    np.testing.assert_allclose(inverse_log_determinant, -np.asarray(log_determinant), rtol=1e-6)


@pytest.mark.parametrize("flow", WITH_INVERSE, ids=name)
def test_the_density_integrates_to_one(rng, flow):
    flow = randomized(flow, rng, False, latents=2)
    mean, log_var = tf.constant([[0.3, -0.2]], tf.float64), tf.constant([[0.1, -0.5]], tf.float64)
    density = Transformed(Normal(mean, log_var), flow)
    z = np.asarray(density.repeat(4000).sample(0))
    low, high = z.mean(axis=0) - 12 * z.std(axis=0), z.mean(axis=0) + 12 * z.std(axis=0)
    axes = [np.linspace(a, b, 800) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(density.log_prob(tf.constant(grid))).sum() * cell == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("flow", WITH_INVERSE, ids=name)
def test_a_draw_is_scored_as_any_other_z(rng, flow):
    flow = randomized(flow, rng, True)
    eps, context = tensors(rng, 10, True)
    base = Normal(*(tf.constant(rng.normal(size=(10, LATENTS))) for _ in range(2)))
    density = Transformed(base, flow, context)
    z, log_prob = density.rsample_and_log_prob(eps)
    np.testing.assert_allclose(density.log_prob(z), log_prob, rtol=1e-8)
    np.testing.assert_allclose(density.pairwise_log_prob(z)[3, 3], log_prob[3], rtol=1e-8)
    np.testing.assert_allclose(density.pairwise_log_prob(z)[2, 7], density.take([7]).log_prob(z[2:3])[0], rtol=1e-8)


def test_what_no_flow_can_do_is_refused():
    with pytest.raises(ValueError, match="A coupling flow needs at least 2 latents"):
        Coupling().build((None, 1))
    with pytest.raises(ValueError, match="steps is 0; expected an integer of at least 1"):
        Planar(0)
    flow = Planar(1)
    flow.build((None, 2))
    with pytest.raises(NotImplementedError, match="Planar has no inverse in closed form"):
        flow.inverse(keras.ops.zeros((1, 2)))
