"""Principal component analysis on a stream of any length, with the density of probabilistic PCA."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kvae import _compat, arguments
from kvae.data import arrays, elements, errors, provenance
from kvae.data.shares import Share
from kvae.distributions import MultivariateNormal, Normal
from kvae.layers import Sampling
from kvae.models import pca_missing, pca_solvers
from kvae.models.base import LatentModel
from kvae.models.bootstrap import Reweighted
from kvae.objectives import Draw, score
from kvae.priors import StandardNormal
from kvae.saving import model_card

_ROWS = 1024
_RANDOMIZED, _EM = (1e-5, 12), (1e-4, 100)  # (tolerance, the most passes)


@keras.saving.register_keras_serializable("kvae")
class PCA(LatentModel):
    """The best linear code: projections on the leading eigenvectors of the data's covariance matrix.

    The axes depend on the data through sums over examples, so a stream of any length gives them in fixed memory:
    the covariance in one pass, or a few passes without it. Codes are scikit-learn's scores. `transform` projects;
    `inverse_transform` and `reconstruct` give the closest image in the span of the axes.

    The density is probabilistic PCA, the linear VAE's optimum: z ~ N(0, I), x ~ N(W z + mean, noise_variance I) with
    the maximum likelihood W. Its posterior is exact, so every draw's bound equals log p(x). `posterior`,
    `decoder_distribution` and `draw` use this z; its posterior mean is a score times
    sqrt(variance - noise_variance) / variance. Reports `loss`, -log p(x) in nats; `log_likelihood`; and
    `squared_error` of the reconstruction.

    Args:
        latent_dim: int, the number of axes, below the number of features.
        seed: int, or None for a random one; of the samples, and of the randomized solver's start.
        solver: "covariance" is exact: one pass in float64 and 8 features^2 bytes, 134 MB at 4,096 features; of uint8,
            in integers and 12 features^2 bytes.
            "randomized" (block Krylov iteration) takes 8 features (latent_dim + 10) bytes a pass. Its explained
            variance falls short by far less than `tolerance` on images. It falls short by two or three tolerances if
            the last axes lie in noise that is small beside the first axes, and by 2e-3 with a warning if the noise is
            large along many other axes. "auto" is "covariance" up to 4,096 features, or as long as its matrix is
            smaller than the randomized solver's basis.
        tolerance: of the randomized solver, a share of the explained variance: it stops after the pass that raises
            it by less. With gaps in x, nats for each observed value: a fit to the last nat is a worse one for new
            values. None for 1e-5, with gaps 1e-4.
        max_passes: int, at least 2, or None for 12, with gaps 100. `fit` warns if they don't reach the tolerance.
        missing: bool, whether NaN in x means "not observed". The axes then maximize the likelihood of the observed
            values, by expectation-maximization in 8 features (latent_dim + 2)^2 bytes; without any NaN they are the
            `solver`'s. Codes of a row with gaps are those of its expected values.
        bootstraps: int, further fits to the rows with random weights, for `impute` to draw the parameters from.
            Each costs as much as the fit itself. Scores and codes don't read them. With `missing` alone. Default 0.

    Attributes:
        mean: (features,).
        components: (latent_dim, features), orthonormal rows; the entry of largest magnitude is positive.
        explained_variance: (latent_dim,), maximum likelihood estimates: divided by n, not by n - 1.
        noise_variance: the mean of the variances left out.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
        >>> pca = kvae.PCA(latent_dim=2).fit(x, verbose=0)
        >>> pca.transform(x).shape
        (100, 2)

    Reference:
        Tipping and Bishop (1999), "Probabilistic principal component analysis".
    """

    conditional = arguments.renamed_method("conditional", "decoder_distribution")
    log_conditional = arguments.renamed_method("log_conditional", "log_likelihood")
    metric_names = ("loss", "log_likelihood", "squared_error")
    _has_exact_scores = True

    def __init__(
        self,
        latent_dim: int,
        seed: int | None = None,
        solver: str = "auto",
        tolerance: float | None = None,
        max_passes: int | None = None,
        missing: bool = False,
        bootstraps: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float64", **kwargs})
        self.latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
        self.seed = arguments.seed(seed)
        if solver not in pca_solvers.SOLVERS:
            raise ValueError(f"solver is {solver!r}; expected one of {pca_solvers.SOLVERS}.")
        if tolerance is not None and not 0 <= arguments.real("tolerance", tolerance) < 1:
            raise ValueError(f"tolerance is {tolerance!r}; expected a share of the explained variance in [0, 1).")
        self.solver, self.tolerance = solver, None if tolerance is None else float(tolerance)
        self.max_passes = None if max_passes is None else arguments.integer_at_least("max_passes", max_passes, 2)
        self.missing = arguments.boolean("missing", missing)
        self.bootstraps = arguments.integer_at_least("bootstraps", bootstraps, 0)
        if bootstraps and not missing:
            raise ValueError(f"bootstraps is {bootstraps}, which `impute` alone reads: make the PCA with missing=True.")
        self._bootstraps: list = []
        self.prior = StandardNormal(dtype=self.dtype_policy)
        self.sampling = Sampling(seed=self.seed, dtype=self.dtype_policy)
        self.sample_seed = keras.random.SeedGenerator(self.seed)
        self.compile(optimizer=None)

    def _build_parts(self, event_shape):
        features = math.prod(event_shape)
        if not self.latent_dim < features:
            raise ValueError(f"latent_dim is {self.latent_dim}; expected fewer than the {features} features of x.")
        self.mean = self.add_weight(shape=(features,), name="mean", trainable=False)
        self.components = self.add_weight(shape=(self.latent_dim, features), name="components", trainable=False)
        self.explained_variance = self.add_weight(shape=(self.latent_dim,), name="explained_variance", trainable=False)
        self.noise_variance = self.add_weight(shape=(), name="noise_variance", trainable=False)
        self.examples = self.add_weight(shape=(), name="examples", dtype="int64", trainable=False)
        self.prior.build((None, self.latent_dim))
        if self.bootstraps:
            shapes = {"means": (features,), "loadings": (features, self.latent_dim), "noise_variances": ()}
            self._bootstraps = [
                self.add_weight((self.bootstraps, *shape), name=f"bootstrap_{name}", trainable=False)
                for name, shape in shapes.items()
            ]

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: ArrayLike | None = None,
        batch_size: int = _ROWS,
        verbose: int | str = "auto",
    ) -> PCA:
        """Find the axes in one pass or a few; see `solver`. Returns the model itself.

        With sample weights, mean and covariance are weighted: a weight of 2 counts like an example that is there twice.
        Of several workers each reads its share of the batches, and all get the axes of one process.

        Args:
            x: a stream of batches or an array, or with weights (x, y, sample_weight). The randomized solver reads it
                several times, in any order.
            y: not read.
            sample_weight: weights (n,) of an array's examples, at least 0.
            batch_size: int, of an array.
            verbose: 0 for no progress bar.

        Raises:
            TypeError, ValueError: for data that can't be used.
        """
        verbose = arguments.verbosity(verbose)
        elements.validate_batch_size(batch_size)
        if sample_weight is not None:
            if hasattr(x, "element_spec"):
                raise ValueError("sample_weight goes with an array x: let the stream give (x, y, sample_weight)")
            x = x, sample_weight, sample_weight
        x = elements.as_dataset(x)
        first, data = self._first_and_data(x, "x")
        share = Share(self.distribute_strategy)
        stream = arrays.batches(share.batches(data, batch_size), batch_size)
        with errors.clear_errors():
            (count, mean, _, variances, axes), noise_variance = self._solve(stream, verbose, share)
            self._fit_bootstraps(stream, share, self._first_position(data, len(first.x), share, batch_size))
        largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
        self.mean.assign(mean)
        self.components.assign(axes * np.sign(largest)[:, None])
        self.explained_variance.assign(variances)
        self.noise_variance.assign(noise_variance)
        self.examples.assign(count)
        seen = {"dtype": first.dtype, "largest": first.largest}
        self.record = model_card.Record([provenance.describe((x,))], x=seen)
        return self

    def _solve(self, stream, verbose, share):
        """(the axes, the noise's variance)."""
        solution, noise_variance = self._solution(stream, math.prod(self.event_shape), verbose, share)
        count, mean, total, variances, _ = solution
        if count <= self.latent_dim:
            raise ValueError(
                f"x has {count} examples; {self.latent_dim} axes need more than that, of a weight above 0."
            )
        if noise_variance is None:
            noise_variance = (total - variances.sum()) / (len(mean) - self.latent_dim)
        if noise_variance <= np.finfo("float64").eps * total:
            raise ValueError(
                f"x has no variance left beside {self.latent_dim} axes (of {total:.3g} in all), so that it has no "
                "density: give more varied examples, or a smaller latent_dim."
            )
        return solution, noise_variance

    def _first_position(self, data, rows, share, batch_size):
        """The position of the first row that this worker reads; None if each pass over the data has another order."""
        is_stream = hasattr(data, "element_spec")
        if is_stream and any(map(_compat.shuffles, _compat.sources(data))):
            return None
        if share.workers == 1:
            return 0
        count = int(data.cardinality()) if is_stream else -(-elements.validate_arrays(data) // batch_size)
        return share.stretch(count)[0] * (rows if is_stream else batch_size)

    def _fit_bootstraps(self, stream, share, start):
        rng, found = np.random.default_rng(share.seed(self.seed)), []
        for _ in range(self.bootstraps):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the fit itself has told
                reweighted = Reweighted(stream, int(rng.integers(2**63)), start)
                (_, mean, _, variances, axes), noise_variance = self._solve(reweighted, 0, share)
            found.append((mean, axes.T * np.sqrt(np.maximum(variances - noise_variance, 0.0)), noise_variance))
        for weight, values in zip(self._bootstraps if found else (), zip(*found, strict=True), strict=True):
            weight.assign(np.stack(values))

    def _parameters(self):
        """[(mean, loadings, noise_variance)], of the bootstraps if there are any."""
        if not self.bootstraps:
            return [(self.mean, self._loadings, self.noise_variance)]
        return list(zip(*(ops.unstack(weight.value, self.bootstraps) for weight in self._bootstraps), strict=True))

    def _solution(self, stream, features, verbose, share):
        """(the axes, the noise's variance or None if it is that of the axes left out)."""
        seed = share.seed(self.seed)
        if self.missing:
            limits = self._limits(*_EM)
            solution = pca_missing.expectation_maximization(
                stream, features, self.latent_dim, seed, *limits, verbose, share
            )
            if solution is not None:
                return solution
        solver, (tolerance, most) = self.solver, self._limits(*_RANDOMIZED)
        if solver == "auto":
            solver = pca_solvers.automatic(features, self.latent_dim, most)
        if solver == "covariance":
            return pca_solvers.covariance(stream, features, self.latent_dim, verbose, share), None
        limits = tolerance, most
        return pca_solvers.randomized(stream, features, self.latent_dim, seed, *limits, verbose, share), None

    def _limits(self, tolerance, most):
        return tolerance if self.tolerance is None else self.tolerance, self.max_passes or most

    def _checked(self, data, name, steps=None):
        if not (self.built and int(ops.convert_to_numpy(self.examples))):
            raise ValueError("This PCA hasn't been fitted: call fit(x) with a stream or an array first.")
        return super()._checked(data, name, steps)

    def _centered(self, x):
        """x - mean, (n, features), with the expected values in the gaps of x."""
        x = ops.reshape(self._scaled(x), (-1, self.mean.shape[0]))
        if not self.missing:
            return x - self.mean
        expected = ops.matmul(self._observe(x).mean, ops.transpose(self._loadings))
        return ops.where(ops.isnan(x), expected, x - self.mean)

    @property
    def _loadings(self):
        """W, (features, latent_dim)."""
        return ops.transpose(self.components) * self._scale

    def _observe(self, x):
        x = ops.reshape(self._scaled(x), (-1, self.mean.shape[0]))
        return pca_missing.observe(x, self.mean, self._loadings, self.noise_variance)

    def encode(self, x: Any) -> Any:
        """The scores (x - mean) components^T: (n, ...) to (n, latent_dim)."""
        return ops.matmul(self._centered(x), ops.transpose(self.components))

    def decode(self, z: Any) -> Any:
        """z components + mean of scores z: (n, latent_dim) to (n, ...)."""
        return ops.reshape(ops.matmul(z, self.components) + self.mean, (-1, *self.event_shape))

    @property
    def _scale(self):
        return ops.sqrt(ops.maximum(self.explained_variance - self.noise_variance, 0.0))

    def posterior(self, x: Any, training: bool = False) -> Normal | MultivariateNormal:
        """p(z|x), exact: N(scale / variance * score, noise_variance / variance), diagonal in these axes.

        With `missing`, a MultivariateNormal. `training` has no effect, here and in the methods below: PCA has no
        networks.
        """
        if self.missing:
            return pca_missing.posterior(self._observe(x))
        mean = self.encode(x) * self._scale / self.explained_variance
        return Normal(mean, ops.zeros_like(mean) + ops.log(self.noise_variance / self.explained_variance))

    def decoder_distribution(self, z: Any, training: bool = False) -> Normal:
        """p(x|z) = N(W z + mean, noise_variance I), W = components^T sqrt(explained_variance - noise_variance).

        `training` has no effect.
        """
        return Normal(self.decode(z * self._scale), ops.log(self.noise_variance))

    def prior_distribution(self, count: int = 1, training: bool = False) -> Any:
        """p(z) = N(0, I), a distribution of `count` equal rows; `training` has no effect."""
        return self.prior.distribution(arguments.integer_at_least("count", count, 1))

    def log_likelihood(self, x: Any, z: Any, training: bool = False) -> Any:
        """log p(x|z), (n,), in nats, for x (n, ...) and z (n, latent_dim); `training` has no effect.

        The number `log_likelihood` in the logs is log p(x).
        """
        return self._log_prob(self.decoder_distribution(z), x)

    def draw(self, x: Any, samples: int = 1, *, index: Any = None, training: bool = False, **options: Any) -> Draw:
        """Draw z ~ p(z|x) and score it: a `Draw`, in nats; see `kvae.VAE.draw`.

        Args:
            x: tensor (n, ...).
            samples: int, the draws per example.
            index: None for fresh noise, or positions (n,): eps is then a fixed function of them.
            training: bool, without effect here.
            **options: those of `kvae.objectives.score`.
        """
        x = self._scaled(x)
        shape = ops.shape(x)[0], arguments.integer_at_least("samples", samples, 1), self.latent_dim
        return score(self, x, self.posterior(x), self.sampling.noise(shape, index), **options)

    def sample(self, count: int = 1, *, noise: bool = False, seed: int | None = None) -> np.ndarray:
        """`count` images, an array (count, ...): z ~ p(z), then E[x|z], or with `noise` a draw of p(x|z).

        An int `seed` repeats them; with None the model's own generator goes on.
        """
        return self._sample(count, noise, seed)

    def log_prob(self, x: Any) -> Any:
        """log p(x) = log N(x; mean, W W^T + noise_variance I) in nats: (n, ...) to (n,)."""
        return self._scored(x)[0]

    def losses_per_example(self, x: Any, training: bool = False, index: Any = None) -> tuple[Any, dict[str, Any]]:
        """(-log p(x) (n,), {"log_likelihood": (n,), "squared_error": (n,)}) of x (n, ...).

        `training` and `index` have no effect: nothing is drawn.
        """
        log_likelihood, squared_error = self._scored(x)
        return -log_likelihood, {"log_likelihood": log_likelihood, "squared_error": squared_error}

    def _exact_scores(self, x):
        return self.log_prob(x)

    def _scored(self, x):
        """(log p(x), squared error of the reconstruction), each (n,), both of the observed values."""
        if self.missing:
            observed = self._observe(x)
            difference = (self._centered(x) - ops.matmul(self.encode(x), self.components)) * observed.mask
            return pca_missing.log_prob(observed, self.noise_variance), ops.sum(ops.square(difference), axis=1)
        features, scores = self.mean.shape[0], self.encode(x)
        residual = ops.sum(ops.square(self._centered(x)), axis=1) - ops.sum(ops.square(scores), axis=1)
        log_determinant = ops.sum(ops.log(self.explained_variance)) + (features - self.latent_dim) * ops.log(
            self.noise_variance
        )
        distance = ops.sum(ops.square(scores) / self.explained_variance, axis=1) + residual / self.noise_variance
        return -0.5 * (features * math.log(2 * math.pi) + log_determinant + distance), residual

    def get_config(self) -> dict[str, Any]:
        """Keras' hook: the constructor's arguments."""
        names = ["latent_dim", "seed", "solver", "tolerance", "max_passes"]
        names += [name for name in ("missing", "bootstraps") if getattr(self, name)]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
