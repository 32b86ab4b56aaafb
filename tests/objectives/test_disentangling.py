"""Objectives that couple a batch's examples, against closed forms of a Gaussian aggregate posterior and plain loops."""

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from combinations import made
from hierarchical_models import two_layer
from small_models import dense_vae

import kvae
from kvae.distributions import MultivariateNormal, Normal
from kvae.evaluation import aggregate

LATENTS = 3
NOISE = np.array([0.5, 0.3, 0.8])  # variances of q(z|x)


def draw_of(mean, log_var, eps, log_likelihood=None):
    """A `Draw` of one z per example from N(mean, exp(log_var)), to a standard normal prior."""
    posterior = Normal(tf.convert_to_tensor(mean), tf.convert_to_tensor(log_var))
    z, log_posterior = posterior.rsample_and_log_prob(tf.convert_to_tensor(eps))
    prior = Normal(tf.zeros_like(z[:1]), tf.zeros_like(z[:1]))
    log_likelihood = tf.zeros_like(log_posterior) if log_likelihood is None else tf.convert_to_tensor(log_likelihood)
    columns = (values[:, None] for values in (z, log_likelihood, prior.log_prob(z), log_posterior))
    return kvae.Draw(*columns, kl=posterior.kl_divergence(prior), posterior=posterior)


@pytest.fixture
def batch(rng):
    """(draw, its numbers in numpy) of 6 examples."""
    mean, log_var, eps = rng.normal(size=(6, LATENTS)), rng.uniform(-2, 0, (6, LATENTS)), rng.normal(size=(6, LATENTS))
    return draw_of(mean, log_var, eps, rng.normal(size=6)), (mean, log_var, mean + np.exp(log_var / 2) * eps)


def gaussian_aggregate(rng, count):
    """(draw, covariance of q(z)) for x ~ N(0, I) in 4 dimensions, z_mean = A x, and one variance for all x."""
    weights = rng.normal(size=(LATENTS, 4))
    mean = rng.normal(size=(count, 4)) @ weights.T
    draw = draw_of(mean, np.log(NOISE) + 0 * mean, rng.normal(size=mean.shape))
    return draw, weights @ weights.T + np.diag(NOISE)


def term(draw, name, **arguments):
    """The mean of a decomposition's term: its weight is 1 too many."""
    weights = {"alpha": 1.0, "beta": 1.0, "gamma": 1.0}
    loss = kvae.BetaTCVAE(**{**weights, name: weights[name] + 1}, **arguments)(draw)
    return float(np.mean(loss + draw.elbo))


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_on_a_gaussian_aggregate_the_three_terms_have_their_closed_forms(rng, sampling):
    count = 1500
    draw, covariance = gaussian_aggregate(rng, count)
    deviations = np.sqrt(np.diag(covariance))
    truth = {
        "alpha": 0.5 * (np.linalg.slogdet(covariance)[1] - np.log(NOISE).sum()),  # I(x; z)
        "beta": -0.5 * np.linalg.slogdet(covariance / np.outer(deviations, deviations))[1],  # TC
        "gamma": 0.5 * np.sum(deviations**2 - 1 - 2 * np.log(deviations)),
    }
    assert truth["beta"] > 0.15
    # Weighted sampling makes log q(z), and each log q(z_j), too small by log N.
    bias = {"alpha": 1, "beta": LATENTS - 1, "gamma": -LATENTS} if sampling == "weighted" else {}
    for name, expected in truth.items():
        found = term(draw, name, examples=count, sampling=sampling)
        assert found - bias.get(name, 0) * np.log(count) == pytest.approx(expected, abs=0.12), name


def test_the_bias_falls_with_the_batch_and_is_bounded_by_the_examples(rng):
    draw, covariance = gaussian_aggregate(rng, 1024)
    truth = 0.5 * (np.linalg.slogdet(covariance)[1] - np.log(NOISE).sum())
    posterior, errors = draw.posterior, []
    for size in (4, 64, 512):
        parts = [np.arange(start, start + size) for start in range(0, min(1024, 32 * size), size)]
        eps = rng.normal(size=(1024, LATENTS))
        draws = [draw_of(*(tf.gather(v, part) for v in (posterior.mean, posterior.log_var, eps))) for part in parts]
        errors.append(np.mean([term(d, "alpha", examples=10**6, sampling="stratified") for d in draws]) - truth)
    assert errors[0] > errors[1] > errors[2] > -0.1 and errors[2] < 0.2
    alone = draw_of(np.ones((1, LATENTS)), np.zeros((1, LATENTS)), np.zeros((1, LATENTS)))
    for sampling in ("weighted", "stratified"):  # a last batch of one example: its own posterior is 1/N of q(z)
        assert term(alone, "alpha", examples=50, sampling=sampling) == pytest.approx(np.log(50))
        assert term(alone, "beta", examples=50, sampling=sampling) == pytest.approx((LATENTS - 1) * np.log(50))


def densities(mean, log_var, z):
    """q(z_ij|x_k) by z's example, posterior and latent."""
    return scipy.stats.norm(mean, np.exp(log_var / 2)).pdf(z[:, None])


def test_both_estimators_are_the_papers_loops(batch):
    draw, numbers = batch
    (n, _), examples = numbers[0].shape, 40
    pdf = densities(*numbers)

    def log_sum(i, weights):
        """log q(z_i), and the sum of log q(z_ij), for weights of the n posteriors."""
        joint, marginals = 0.0, np.zeros(LATENTS)
        for k in range(n):
            joint += weights[k] * np.prod(pdf[i, k])
            marginals += weights[k] * pdf[i, k]
        return np.log(joint), np.sum(np.log(marginals))

    weighted = [log_sum(i, np.full(n, 1 / (examples * n))) for i in range(n)]
    found = kvae.BetaTCVAE(examples).log_aggregate(draw)
    np.testing.assert_allclose(np.stack(found)[..., 0].T, weighted, rtol=1e-10)

    others, stratified = n - 1, []  # appendix C.2, M = n - 1: the mean over which example is the last
    for i in range(n):
        choices = []
        for last in set(range(n)) - {i}:
            weights = np.full(n, 1 / others)
            weights[i], weights[last] = 1 / examples, (examples - others) / (examples * others)
            assert weights.sum() == pytest.approx(1)
            choices.append(weights)
        stratified.append(log_sum(i, np.mean(choices, axis=0)))
    found = kvae.BetaTCVAE(examples, sampling="stratified").log_aggregate(draw)
    np.testing.assert_allclose(np.stack(found)[..., 0].T, stratified, rtol=1e-10)


def test_stratified_sampling_is_unbiased_over_all_batches_and_that_of_the_evaluation(batch):
    draw, numbers = batch
    pdf, (mean, log_var, z) = np.prod(densities(*numbers), axis=2), numbers
    objective, found = kvae.BetaTCVAE(6, sampling="stratified"), []
    for others in itertools.combinations(range(1, 6), 2):
        rows = [0, *others]
        eps = (z[rows] - mean[rows]) / np.exp(log_var[rows] / 2)
        found.append(np.exp(objective.log_aggregate(draw_of(mean[rows], log_var[rows], eps))[0][0, 0]))
    assert np.mean(found) == pytest.approx(pdf[0].mean(), rel=1e-10)
    expected = aggregate._log_mixtures(np.log(pdf), np.arange(6), examples=40)[0]
    found = kvae.BetaTCVAE(40, sampling="stratified").log_aggregate(draw)[0]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-10)


def test_with_weights_of_1_it_is_the_elbo_and_else_each_term_has_its_weight(batch):
    draw, _ = batch
    np.testing.assert_allclose(kvae.BetaTCVAE(40, beta=1.0)(draw), kvae.ELBO()(draw), rtol=1e-12)
    joint, marginals = (values[:, 0] for values in kvae.BetaTCVAE(40).log_aggregate(draw))
    log_prior, log_posterior = draw.log_prior[:, 0], draw.log_posterior[:, 0]
    loss = kvae.BetaTCVAE(40, alpha=0.5, beta=kvae.schedules.LinearWarmUp(10, end=8.0), gamma=3.0)(draw, 5)
    terms = -0.5 * (log_posterior - joint) + 3.0 * (joint - marginals) + 2.0 * (marginals - log_prior)
    np.testing.assert_allclose(loss, terms - draw.elbo, rtol=1e-6)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_penalty_of_dip_is_that_of_numpys_covariances(rng, batch, kind):
    draw, (mean, log_var, _) = batch
    below = rng.normal(size=(6, LATENTS, LATENTS))
    full = MultivariateNormal(tf.constant(mean), tf.constant(log_var), tf.constant(below))
    factors = [np.diag(np.exp(v / 2)) @ (np.tril(b, -1) + np.eye(LATENTS)) for v, b in zip(log_var, below, strict=True)]
    for posterior, of_noise in (
        (draw.posterior, [np.diag(np.exp(row)) for row in log_var]),
        (full, [factor @ factor.T for factor in factors]),
    ):
        covariance = np.cov(mean.T, ddof=0) + (np.mean(of_noise, axis=0) if kind == "II" else 0)
        off_diagonal = covariance[~np.eye(LATENTS, dtype=bool)]
        expected = 2 * np.sum(off_diagonal**2) + 5 * np.sum((np.diag(covariance) - 1) ** 2)
        found = kvae.DIP(kind, lambda_od=2.0, lambda_d=5.0)(draw._replace(posterior=posterior))
        np.testing.assert_allclose(found + draw.elbo, np.full(6, expected), rtol=1e-10)
    assert kvae.DIP(kind, 3.0).lambda_d == (30.0 if kind == "I" else 3.0)


def test_the_capacity_is_that_of_the_batchs_mean(batch):
    draw, _ = batch
    mean = np.mean(draw.kl_loss)
    for capacity in (mean - 0.5, mean + 0.5):
        loss = kvae.AnnealedCapacity(capacity, gamma=7.0)(draw)
        np.testing.assert_allclose(loss, draw.reconstruction_loss + 3.5, rtol=1e-6)
    raised = kvae.AnnealedCapacity(kvae.schedules.LinearWarmUp(100, end=2 * mean), gamma=1.0)
    penalties = [float(np.mean(raised(draw, step) - draw.reconstruction_loss)) for step in (0, 50, 100, 300)]
    np.testing.assert_allclose(penalties, [mean, 0, mean, mean], atol=1e-5)


OBJECTIVES = {
    "weighted": lambda: kvae.BetaTCVAE(40, alpha=0.3, beta=4.0, gamma=2.0),
    "stratified": lambda: kvae.BetaTCVAE(40, beta=4.0, sampling="stratified"),
    "I": lambda: kvae.DIP("I", 3.0),
    "II": lambda: kvae.DIP("II", 3.0, 5.0),
    "capacity": lambda: kvae.AnnealedCapacity(1.0, gamma=7.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_central_differences(rng, batch, name):
    _, (mean, log_var, _) = batch
    eps, objective = rng.normal(size=mean.shape), OBJECTIVES[name]()
    start = tf.constant(np.stack([mean, log_var]))

    def loss(parameters):
        return tf.reduce_mean(objective(draw_of(parameters[0], parameters[1], eps)))

    with tf.GradientTape() as tape:
        tape.watch(start)
        value = loss(start)
    direction = rng.normal(size=start.shape)
    slope = (loss(start + 1e-5 * direction) - loss(start - 1e-5 * direction)) / 2e-5
    assert float(slope) == pytest.approx(np.sum(tape.gradient(value, start) * direction), rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_comes_back_from_its_config(batch, name):
    objective = OBJECTIVES[name]()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert copy.get_config() == objective.get_config()
    np.testing.assert_array_equal(copy(batch[0]), objective(batch[0]))


def test_a_model_reports_the_loss_of_its_batches_and_the_bound_of_all(rng, tmp_path):
    x, index = rng.random((50, 6)).astype("float32"), np.arange(50)
    model = dense_vae()
    objective = kvae.BetaTCVAE(50, beta=kvae.schedules.LinearWarmUp(share=1, end=400.0), sampling="stratified")
    model.compile("adam", loss=objective, run_eagerly=True)
    with pytest.warns(UserWarning, match=r"EarlyStopping compares the val_loss of epochs, but .* monitor=\"val_elbo\""):
        model.fit(x, epochs=2, validation_data=x, callbacks=[keras.callbacks.EarlyStopping("val_loss")], verbose=0)
    found = model.evaluate(x, batch_size=20, verbose=0, return_dict=True)
    step = model.optimizer.iterations
    batches = index[:20], index[20:40], index[40:]
    draws = [model.draw(x[rows], index=rows, keep_posterior=True) for rows in batches]
    losses = [objective(draw, step) for draw in draws]
    draw = model.draw(x, index=index, keep_posterior=True)
    assert found["loss"] == pytest.approx(float(np.mean(np.concatenate(losses))), rel=1e-5)
    assert found["loss"] != pytest.approx(float(np.mean(objective(draw, step))), rel=1e-5)
    assert found["elbo"] == pytest.approx(float(np.mean(draw.elbo)), rel=1e-5)
    model.save(tmp_path / "model.keras")
    assert kvae.load(tmp_path / "model.keras").loss.get_config() == objective.get_config()

    x[28, 2] = np.inf  # all losses of its batch are NaN: the step is left out
    with pytest.warns(UserWarning, match=r"fit skipped 1 of 2 steps .* batch 1, row 3"):
        model.fit(tf.data.Dataset.from_tensor_slices(x).batch(25), verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_each_replica_takes_its_share_of_a_batch(strategy, rng):
    """The last batch is one example, which leaves a replica none."""
    x, objective = rng.random((21, 6)).astype("float32"), kvae.BetaTCVAE(21)
    with strategy.scope():
        model = dense_vae()
        model.compile(loss=objective)
    found = model.evaluate(tf.data.Dataset.from_tensor_slices(x).batch(10), verbose=0, return_dict=True)
    shares = np.split(np.arange(21), (5, 10, 15, 20))
    losses = np.concatenate([objective(model.draw(x[share], index=share, keep_posterior=True)) for share in shares])
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_a_schedule_that_the_run_cuts_off_is_warned_of_by_its_name():
    beta, capacity = kvae.schedules.LinearWarmUp(100, end=6.0), kvae.schedules.LinearWarmUp(100, end=25.0)
    with pytest.warns(UserWarning, match=r"The total correlation's weight will be 3 when this run ends after step 50"):
        assert kvae.BetaTCVAE(40, beta=beta).begin(50) is None
    with pytest.warns(UserWarning, match=r"The KL's capacity in nats will be 12.5 when .* step 50, not 25\. Train"):
        assert kvae.AnnealedCapacity(capacity).begin(50) is None
    assert kvae.BetaTCVAE(40, beta=beta).begin(200) is None and kvae.AnnealedCapacity(2.0).begin(200) is None
    assert kvae.AnnealedCapacity(capacity).begin(None).endswith("gets to step 100.")


@pytest.mark.parametrize("posterior", ["full", "coupling", "planar"])
def test_posteriors_without_the_moments_are_refused(posterior):
    model = made("normal", posterior)
    with pytest.raises(ValueError, match=r"BetaTCVAE needs .* has not: use a kvae.VAE with a DiagonalNormal posterior"):
        model.compile(loss=kvae.BetaTCVAE(40))
    if posterior == "full":
        model.compile(loss=kvae.DIP())
    else:
        with pytest.raises(ValueError, match=r"DIP needs moments .* a VAE's FlowPosterior has not"):
            model.compile(loss=kvae.DIP())
    model.compile(loss=kvae.AnnealedCapacity(5.0))


def test_other_models_priors_and_draws_are_refused(batch):
    with pytest.raises(ValueError, match="which a HierarchicalVAE has not"):
        two_layer().compile(loss=kvae.BetaTCVAE(40))
    with pytest.raises(ValueError, match=r"gamma is 2, .* and a MixtureOfGaussians has no p\(z_j\): use gamma=1"):
        made("mixture", "diagonal").compile(loss=kvae.BetaTCVAE(40, gamma=2.0))
    made("mixture", "diagonal").compile(loss=kvae.BetaTCVAE(40))
    with pytest.raises(ValueError, match=r"The draw has no posterior, which DIP compares"):
        kvae.DIP()(batch[0]._replace(posterior=None))
    for wrong in ({"examples": 1}, {"examples": 40, "beta": -1}, {"examples": 40, "sampling": "mss"}):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} is "):
            kvae.BetaTCVAE(**wrong)
