"""log p(x) by importance weighting."""

import dataclasses
import math

import numpy as np

from kvae import arguments, html
from kvae.data import elements
from kvae.evaluation import draws
from kvae.evaluation.unfinished import Unfinished


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """What `log_likelihood` found, in nats.

    values: log p(x) of each example, (n,). effective_samples: (sum w)^2 / sum w^2 of its weights, (n,), from 1, where
    one draw outweighs all others, to `samples`. reconstruction, kl: E_q[log p(x|z)] and KL(q(z|x) || p(z)), (n,), of
    the same draws. overconfidence: E_q[log q(z|x)] - E_p(z|x)[log q(z|x)], (n,), the latter by the weights: 0 where q
    is p(z|x), above it where q is narrower or beside it, below it where q is wider; for a Gaussian q the half of
    E_p(z|x)[|eps|^2] - latent_dim; nan at k = 1, and too close to 0 where few draws reach p(z|x). bounds:
    (n, len(counts)), for each k in `counts` the mean of log 1/k sum w over disjoint groups of k draws: a curve from
    the ELBO, k = 1, to `values`. dimensions: of one x where it is discrete, else None.
    """

    values: np.ndarray
    effective_samples: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    overconfidence: np.ndarray
    bounds: np.ndarray
    counts: tuple
    samples: int
    dimensions: int | None = None

    @property
    def mean(self):
        return float(np.mean(self.values))

    @property
    def standard_error(self):
        """Of the mean, as one over all x that there might be: that of these x and of these draws together."""
        return float(np.std(self.values, ddof=1) / math.sqrt(len(self.values))) if len(self.values) > 1 else math.nan

    @property
    def _relative_variance(self):
        """Of each example's mean weight, by the weights themselves, of which a single one says nothing."""
        return 1 / self.effective_samples - 1 / self.samples if self.samples > 1 else np.full_like(self.values, np.nan)

    @property
    def sampling_error(self):
        """Of the mean over these very x: the standard error that the draws alone make, to first order; nan at k = 1.

        Far too small where few draws count, as `bias` is: it sees only the weights that were drawn.
        """
        return float(np.sqrt(np.sum(self._relative_variance)) / len(self.values))

    @property
    def bias(self):
        """How far the mean is expected to lie below log p(x), to first order: half the relative variance, negative.

        nan at k = 1.
        """
        return -float(np.mean(self._relative_variance)) / 2

    @property
    def few(self):
        """The effective samples below which an example's weights are degenerate: 20, or half of `samples`."""
        return min(20, self.samples / 2)

    @property
    def degenerate(self):
        """Which examples have few effective samples, bools (n,): most of their p(z|x) may be where no draw fell."""
        return self.effective_samples < self.few

    @property
    def elbo(self):
        return self.curve[1]

    @property
    def curve(self):
        """{k: the k-sample bound's mean}, rising to log p(x) in expectation (Burda et al. 2016, theorem 1)."""
        return dict(zip(self.counts, np.mean(self.bounds, axis=0).tolist(), strict=True))

    @property
    def bits_per_dimension(self):
        """-mean / (dimensions log 2)."""
        if self.dimensions is None:
            raise ValueError("p(x) is a density here, and bits per dimension are those of probabilities.")
        return -self.mean / (self.dimensions * math.log(2))

    def __str__(self):
        bits = "" if self.dimensions is None else f", {self.bits_per_dimension:.4f} bits per dimension"
        median, few = np.median(self.effective_samples), ""
        if np.any(self.degenerate):
            told = "trust neither sampling_error nor bias" if median < self.few else "their log p(x) may be far too low"
            few = f", below {self.few:g} in {np.sum(self.degenerate):,} of the examples: {told}"
        return (
            f"log p(x) = {self.mean:.2f} +- {self.standard_error:.2f} nats{bits} ({len(self.values):,} examples, "
            f"k = {self.samples:,}; ELBO {self.elbo:.2f}; effective samples {median:.0f}, the least "
            f"{np.min(self.effective_samples):.1f}{few})"
        )

    _repr_html_ = html.log_likelihood


def log_likelihood(
    model, data, samples=5_000, *, seed=0, batch_size=elements.BATCH_SIZE, rows=None, verbose="auto", resume=None
):
    """log p(x) of each example, as log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x) with k draws z_i ~ q(z|x).

    Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders": in expectation a lower bound of log p(x)
    that rises with k, from the ELBO at k = 1. The noise is a function of the seed and of the example's position, so
    that the numbers depend neither on the batches nor, but for rounding, on `rows`.

    Args:
        model: one with `posterior`, `log_likelihood` and `prior_distribution`: a VAE of any kind, or a PCA.
        data: a stream of batches or an array, of one order, as the model reads it.
        samples: int, k.
        seed: int, of the noise.
        batch_size: of arrays.
        rows: how many z are decoded at once, which memory depends on; None for a number that suits x.
        verbose: whether there is a progress bar; "auto" shows one on a terminal and in a notebook.
        resume: a file that finished examples are written to every few seconds, and from which an interrupted
            measurement goes on. It stays when all is done.

    Returns:
        a `LogLikelihood`.

    Raises:
        TypeError: for a model without them.
        ValueError: for numbers below 1, for data that can't be used, and for a file of another model, other arguments
            or other data.
        OSError: for a file that can't be written.
    """
    draws.check_has_posterior(model)
    samples, seed = arguments.integer_at_least("samples", samples, 1), arguments.seed(seed, random=False)
    rows = None if rows is None else arguments.integer_at_least("rows", rows, 1)
    counts = _counts(samples)
    numbers = " ".join(field.name for field in dataclasses.fields(LogLikelihood))
    unfinished = Unfinished(resume, model, samples=samples, seed=seed, numbers=numbers)
    score = None
    with unfinished:
        most = draws.examples_at_once(samples)
        for x, positions in draws.parts(model, data, most, batch_size, verbose, unfinished.examples, unfinished.skip):
            score = score or draws.scorer(model, rows)
            blocks = [score(x, positions, block, size, seed) for block, size in draws.blocks(samples)]
            unfinished.add(x, *_summary(np.concatenate(blocks, axis=2, dtype="float64"), counts))
    likelihood = getattr(model, "likelihood", None)
    dimensions = likelihood.dimensions if getattr(likelihood, "discrete", False) else None
    return LogLikelihood(*unfinished.columns(), counts=counts, samples=samples, dimensions=dimensions)


def _counts(samples):
    """1, 2, 5, 10, ..., samples."""
    steps = [step * 10**power for power in range(len(str(samples))) for step in (1, 2, 5)]
    return (*(count for count in steps if count < samples), samples)


def _summary(scores, counts):
    """The arrays of a `LogLikelihood`, from log p(x|z), log p(z) and log q(z|x), (3, n, k)."""
    log_likelihood, log_prior, log_posterior = scores
    log_weights = log_likelihood + log_prior - log_posterior
    grouped = {1: log_weights}  # by k, log of the sum of w over disjoint groups of k
    for count in counts[1:]:
        divisor = max(k for k in grouped if count % k == 0)
        groups = log_weights.shape[1] // count
        parts = grouped[divisor][:, : groups * (count // divisor)]
        grouped[count] = _logsumexp(parts.reshape(len(parts), groups, -1))
    total = grouped[counts[-1]][:, 0]
    mean = 1 / counts[-1] if counts[-1] > 1 else math.nan  # a single draw is its own weighted mean
    bounds = [np.mean(grouped[count], axis=1) - math.log(count) for count in counts]
    return (
        total - math.log(counts[-1]),
        np.exp(2 * total - _logsumexp(2 * log_weights)),
        np.mean(log_likelihood, axis=1),
        np.mean(log_posterior - log_prior, axis=1),
        np.sum((mean - np.exp(log_weights - total[:, None])) * log_posterior, axis=1),
        np.stack(bounds, axis=1),
    )


def _logsumexp(values):
    largest = np.max(values, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(values - largest), axis=-1)) + largest[..., 0]
