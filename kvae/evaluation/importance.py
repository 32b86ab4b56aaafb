"""log p(x) by importance weighting."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from kvae import arguments, html
from kvae.data import elements
from kvae.evaluation import scoring
from kvae.evaluation.partial_results import PartialResults


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """The result of `log_likelihood`, in nats.

    Attributes:
        values: log p(x) of each example, (n,).
        effective_samples: (sum w)^2 / sum w^2 of each example's weights, (n,): from 1, if one draw outweighs all
            others, to `samples`.
        reconstruction: E_q[log p(x|z)] over the same draws, (n,).
        kl: KL(q(z|x) || p(z)) over the same draws, (n,).
        overconfidence: E_q[log q(z|x)] - E_p(z|x)[log q(z|x)], (n,), the second mean by the weights. It is 0 if q is
            p(z|x), positive if q is too narrow or misplaced, negative if q is too wide. For a Gaussian q it is half of
            E_p(z|x)[|eps|^2] - latent_dim. It is nan at k = 1, and too close to 0 if few draws reach p(z|x).
        bounds: (n, len(counts)). For each k in `counts`, the mean of log 1/k sum w over disjoint groups of k draws.
        counts: the numbers of draws k, from 1 to `samples`.
        samples: number of draws per example.
        dimensions: number of values in one x if these are discrete, else None.
    """

    values: np.ndarray
    effective_samples: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    overconfidence: np.ndarray
    bounds: np.ndarray
    counts: tuple[int, ...]
    samples: int
    dimensions: int | None = None

    @property
    def mean(self) -> float:
        """The mean of log p(x)."""
        return float(np.mean(self.values))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over all possible x: from these x and their draws together."""
        return float(np.std(self.values, ddof=1) / math.sqrt(len(self.values))) if len(self.values) > 1 else math.nan

    @property
    def _relative_variance(self):
        """Of each example's mean weight, estimated from the weights. A single weight says nothing."""
        return 1 / self.effective_samples - 1 / self.samples if self.samples > 1 else np.full_like(self.values, np.nan)

    @property
    def sampling_error(self) -> float:
        """Standard error of the mean over these very x, from the draws alone, to first order. nan at k = 1.

        It sees only the drawn weights, so it is far too small if few draws count. So is `bias`.
        """
        return float(np.sqrt(np.sum(self._relative_variance)) / len(self.values))

    @property
    def bias(self) -> float:
        """Expected mean minus log p(x), to first order: minus half the relative variance. nan at k = 1."""
        return -float(np.mean(self._relative_variance)) / 2

    @property
    def few(self) -> float:
        """An example with fewer effective samples than this is degenerate: 20, or half of `samples`."""
        return min(20, self.samples / 2)

    @property
    def degenerate(self) -> np.ndarray:
        """True for examples with few effective samples, (n,). The draws may miss most of their p(z|x)."""
        return self.effective_samples < self.few

    @property
    def elbo(self) -> float:
        """The mean of the bound with one draw."""
        return self.curve[1]

    @property
    def curve(self) -> dict[int, float]:
        """{k: mean of the k-sample bound}. In expectation it rises to log p(x) (Burda et al. 2016, theorem 1)."""
        return dict(zip(self.counts, np.mean(self.bounds, axis=0).tolist(), strict=True))

    @property
    def bits_per_dimension(self) -> float:
        """-mean / (dimensions log 2). Raises ValueError if p(x) is a density."""
        if self.dimensions is None:
            raise ValueError("p(x) is a density here, and bits per dimension are those of probabilities.")
        return -self.mean / (self.dimensions * math.log(2))

    def __str__(self):
        bits = "" if self.dimensions is None else f", {self.bits_per_dimension:.4f} bits per dimension"
        median, warning = np.median(self.effective_samples), ""
        if np.any(self.degenerate):
            advice = (
                "trust neither sampling_error nor bias" if median < self.few else "their log p(x) may be far too low"
            )
            warning = f", below {self.few:g} in {np.sum(self.degenerate):,} of the examples: {advice}"
        return (
            f"log p(x) = {self.mean:.2f} +- {self.standard_error:.2f} nats{bits} ({len(self.values):,} examples, "
            f"k = {self.samples:,}; ELBO {self.elbo:.2f}; effective samples {median:.0f}, the least "
            f"{np.min(self.effective_samples):.1f}{warning})"
        )

    _repr_html_ = html.log_likelihood
    __repr__ = html.plain_repr(html.log_likelihood)


def log_likelihood(
    model: Any,
    data: Any,
    samples: int = 5_000,
    *,
    seed: int = 0,
    batch_size: int = elements.BATCH_SIZE,
    rows: int | None = None,
    verbose: bool | str = "auto",
    resume: str | pathlib.Path | None = None,
) -> LogLikelihood:
    """log p(x) of each example, as log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x) with k draws z_i ~ q(z|x).

    In expectation it is a lower bound of log p(x) and rises with k, from the ELBO at k = 1. The noise is a function of
    the seed, the example's position and the draw's index. So the result depends neither on the batches nor, but for
    rounding, on `rows`. With seed 0 the first draw is `evaluate`'s.

    Args:
        model: a VAE of any kind, or a PCA.
        data: a stream of batches or an array, as the model reads it, always in the same order.
        samples: k, the number of draws per example.
        seed: of the noise, an int.
        batch_size: of arrays.
        rows: number of z to decode at once, a matter of memory. None derives it from the size of x.
        verbose: whether to show a progress bar. "auto" shows one on a terminal and in a notebook.
        resume: path of a file. The results of finished examples are written to it every few seconds. Called again
            with the same file, the function goes on behind them. The file stays after the end.

    Returns:
        a `LogLikelihood`.

    Raises:
        TypeError: if the model has no posterior.
        ValueError: for numbers below 1, for unusable data, and if the file belongs to another model, other
            arguments or other data.
        OSError: if the file can't be written.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> result = kvae.evaluation.log_likelihood(pca, x, samples=20, verbose=0)
        >>> bool(np.allclose(result.values, pca.log_prob(x)))  # PCA's posterior is exact
        True

    Reference:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders".
    """
    scoring.check_has_posterior(model)
    samples, seed = arguments.integer_at_least("samples", samples, 1), arguments.seed(seed, random=False)
    verbose = arguments.verbosity(verbose)
    elements.validate_batch_size(batch_size)
    rows = None if rows is None else arguments.integer_at_least("rows", rows, 1)
    counts = _counts(samples)
    numbers = " ".join(field.name for field in dataclasses.fields(LogLikelihood))
    results = PartialResults(resume, model, samples=samples, seed=seed, numbers=numbers, noise="first draw of evaluate")
    score = None
    with results:
        most = scoring.examples_at_once(samples)
        for x, positions in scoring.chunks(model, data, most, batch_size, verbose, results.examples, results.skip):
            score = score or scoring.scorer(model, rows)
            blocks = [score(x, positions, block, size, seed) for block, size in scoring.blocks(samples)]
            results.add(x, *_summary(np.concatenate(blocks, axis=2, dtype="float64"), counts))
    likelihood = getattr(model, "likelihood", None)
    dimensions = likelihood.dimensions if likelihood is not None and likelihood.discrete else None
    return LogLikelihood(*results.columns(), counts=counts, samples=samples, dimensions=dimensions)


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
        sums = grouped[divisor][:, : groups * (count // divisor)]
        grouped[count] = _logsumexp(sums.reshape(len(sums), groups, -1))
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
