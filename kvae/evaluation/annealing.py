"""log p(x) by annealed importance sampling. It needs no q(z|x), and on simulated data it brackets the truth."""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvae import arguments, html
from kvae.evaluation import scoring

_ACCEPTANCE = 0.65  # optimal for Hamiltonian Monte Carlo in many dimensions (Neal 2011, section 4.4.1)


class Bracket(NamedTuple):
    """The result of `bidirectional`.

    Attributes:
        x: (n, ...), drawn from the model.
        lower: lower bounds of log p(x) in expectation, (n,), in nats.
        upper: upper bounds of log p(x) in expectation, (n,), in nats.
    """

    x: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    _repr_html_ = html.bracket
    __repr__ = html.plain_repr(html.bracket)


def annealed_importance_sampling(
    model: Any,
    data: Any,
    steps: int = 1_000,
    chains: int = 16,
    leapfrogs: int = 10,
    *,
    seed: int = 0,
    batch_size: int = 32,
    verbose: bool | str = "auto",
) -> np.ndarray:
    """log p(x) of each example, by a path of `steps` distributions p(z) p(x|z)^beta from p(z) to p(z|x).

    beta rises as a sigmoid. Each beta has one transition of Hamiltonian Monte Carlo; its step size comes from an
    earlier run, so exp of the result is an unbiased estimate of p(x). The result doesn't depend on q(z|x). An example
    costs 2 steps chains (leapfrogs + 1) passes of the decoder, forward and backward: use it as a check of
    `log_likelihood` on some hundred examples.

    Args:
        model: a VAE or PCA. log p(x|z) and log p(z) must have a gradient in z.
        data: a stream of batches or an array.
        steps: number of distributions; more are more exact and slower.
        chains: Markov chains per example.
        leapfrogs: leapfrog steps of a transition.
        seed: an int.
        batch_size: examples to anneal at once, with all their chains.
        verbose: whether to show a progress bar, as in `log_likelihood`.

    Returns:
        numpy (n,), in nats.

    Raises:
        TypeError: if the model has no p(z).
        ValueError: for numbers below 1, and for unusable data.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> found = kvae.evaluation.annealed_importance_sampling(pca, x[:5], steps=50, verbose=0)
        >>> bool(np.allclose(found, pca.log_prob(x[:5]), atol=0.5))
        True

    Reference:
        Neal (2001), "Annealed importance sampling"; Wu et al. (2017), "On the quantitative analysis of decoder-based
        generative models".
    """
    scoring.check_has_prior(model)
    seed = _check(seed, steps=steps, chains=chains, leapfrogs=leapfrogs, batch_size=batch_size)
    verbose = arguments.verbosity(verbose)
    anneal, estimates = None, []
    for x, positions in scoring.chunks(model, data, batch_size, batch_size, verbose):
        anneal = anneal or _annealing(model, steps, chains, leapfrogs)
        estimates.append(_forward(anneal, model, model._scaled(x), steps, chains, seed + int(positions[0]))[0])
    return np.concatenate(estimates)


def bidirectional(
    model: Any, examples: int = 100, steps: int = 1_000, chains: int = 16, leapfrogs: int = 10, *, seed: int = 0
) -> Bracket:
    """Bracket log p(x) of simulated data between two estimates by annealing.

    The true z of a simulated x is an exact draw of p(z|x). A path from it back to the prior gives the upper bound. The
    width of the bracket is the largest error of `annealed_importance_sampling` on such data, in expectation.

    Args:
        model: a VAE or PCA. The labels of a ConditionalVAE can't be simulated.
        examples: number of simulated x.
        steps, chains, leapfrogs, seed: as in `annealed_importance_sampling`.

    Returns:
        a `Bracket`.

    Raises:
        TypeError: if the model has no p(z).
        ValueError: for numbers below 1, and for a model with labels.

    Example:
        >>> pca = kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 4)), verbose=0)
        >>> bracket = kvae.evaluation.bidirectional(pca, examples=50, steps=50)
        >>> bool(abs(bracket.upper.mean() - bracket.lower.mean()) < 0.5)
        True

    Reference:
        Grosse, Ghahramani and Adams (2015), "Sandwiching the marginal likelihood using bidirectional Monte Carlo".
    """
    scoring.check_simulates(model)
    seed = _check(seed, examples=examples, steps=steps, chains=chains, leapfrogs=leapfrogs)
    generator = keras.random.SeedGenerator(seed)
    z = model.prior_distribution(examples).sample(generator)
    x = model.decoder_distribution(z).sample(generator)
    anneal = _annealing(model, steps, chains, leapfrogs)
    lower, sizes = _forward(anneal, model, x, steps, chains, seed)
    log_weights, _ = anneal["backward"](x, tf.repeat(z, chains, axis=0), 4 * seed + 2, sizes)
    return Bracket(x.numpy(), lower, -_log_mean_exp(-log_weights))


def _check(seed, **counts):
    for name, value in counts.items():
        arguments.integer_at_least(name, value, 1)
    return arguments.seed(seed, random=False)


def _forward(anneal, model, x, steps, chains, seed):
    """(log p(x), (n,), the step sizes, (steps, n)). A first run adapts the step sizes, a second one uses them."""
    examples = len(tf.nest.flatten(x)[0])
    prior = model.prior_distribution(examples * chains)
    sizes = tf.fill((steps, examples), tf.constant(0.5, model.variable_dtype))
    _, sizes = anneal["adapt"](x, prior.sample(4 * seed), 4 * seed, sizes)
    log_weights, _ = anneal["forward"](x, prior.sample(4 * seed + 1), 4 * seed + 1, sizes)
    return _log_mean_exp(log_weights), sizes


def _log_mean_exp(values):
    values = values.numpy().astype("float64")
    return np.logaddexp.reduce(values, axis=1) - np.log(values.shape[1])


def _annealing(model, steps, chains, leapfrogs):
    """Compiled functions (x, z, seed, sizes) to log w (n, chains) and the step sizes (steps, n): {mode: function}.

    "adapt" goes forward and adapts the sizes, "forward" and "backward" take the given sizes. z: (n chains,
    latent_dim), from p(z); for "backward" from p(z|x).
    """
    dtype = model.variable_dtype
    ramp = 1 / (1 + np.exp(-np.linspace(-4, 4, steps + 1)))
    betas = tf.constant((ramp - ramp[0]) / (ramp[-1] - ramp[0]), dtype)

    def anneal(mode, x, z, seed, sizes):
        prior = model.prior_distribution()
        repeated = tf.nest.map_structure(lambda tensor: tf.repeat(tensor, chains, axis=0), x)

        def log_likelihood(z):
            return model.log_likelihood(repeated, z)

        def log_density(z, beta):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = prior.log_prob(z) + beta * log_likelihood(z)
            return value, tape.gradient(value, z)

        def transition(z, step, size):
            beta, size = betas[step + 1], tf.repeat(size, chains)[:, None]
            key = tf.cast(step, "int64")
            momentum = tf.random.stateless_normal(tf.shape(z), (seed, 2 * key + 2), dtype=dtype)
            value, gradient = log_density(z, beta)

            def leapfrog(number, end, velocity, _, gradient):
                velocity = velocity + size / 2 * gradient
                end = end + size * velocity
                value, gradient = log_density(end, beta)
                return number + 1, end, velocity + size / 2 * gradient, value, gradient

            state = (0, z, momentum, value, gradient)
            _, end, velocity, end_value, _ = tf.while_loop(lambda number, *_: number < leapfrogs, leapfrog, state)
            energy = end_value - value + tf.reduce_sum(momentum**2 - velocity**2, axis=1) / 2
            accepted = tf.random.stateless_uniform(tf.shape(energy), (seed, 2 * key + 3), dtype=dtype) < tf.exp(energy)
            acceptance = tf.reduce_mean(tf.reshape(tf.cast(accepted, dtype), (-1, chains)), axis=1)
            return tf.where(accepted[:, None], end, z), acceptance

        def forward_step(step, z, log_weights, size, used):
            log_weights += (betas[step + 1] - betas[step]) * log_likelihood(z)
            size = size if mode == "adapt" else sizes[step]
            used = used.write(step, size)
            z, acceptance = transition(z, step, size)
            return step + 1, z, log_weights, size * tf.exp(0.1 * (acceptance - _ACCEPTANCE)), used

        def backward_step(step, z, log_weights, size, used):
            back = steps - 1 - step
            z, _ = transition(z, back, sizes[back])
            log_weights += (betas[back + 1] - betas[back]) * log_likelihood(z)
            return step + 1, z, log_weights, size, used.write(step, size)

        state = (0, z, tf.zeros(tf.shape(z)[:1], dtype), sizes[0], tf.TensorArray(dtype, steps))
        one_step = backward_step if mode == "backward" else forward_step
        _, _, log_weights, _, used = tf.while_loop(lambda step, *_: step < steps, one_step, state)
        return tf.reshape(log_weights, (-1, chains)), used.stack()

    others = ((None, model.latent_dim), dtype), ((), "int64"), ((steps, None), dtype)
    signature = [scoring.signature(model), *(tf.TensorSpec(*spec) for spec in others)]

    def compiled(mode):
        function = tf.function(functools.partial(anneal, mode), autograph=False, input_signature=signature)
        function = function.get_concrete_function()
        return lambda x, z, seed, sizes: function(x, z, tf.constant(seed, "int64"), sizes)

    return {mode: compiled(mode) for mode in ("adapt", "forward", "backward")}
