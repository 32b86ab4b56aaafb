"""Principal component analysis on a stream, and the density that goes with it."""

import math

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.data import arrays, errors, provenance
from kvae.distributions import Normal
from kvae.layers import Sampling
from kvae.models import pca_solvers
from kvae.models.base import LatentModel
from kvae.models.latent_variable import LatentVariableMixin
from kvae.priors import StandardNormal
from kvae.saving import model_card

_ROWS = 1024


@keras.saving.register_keras_serializable("kvae")
class PCA(LatentVariableMixin, LatentModel):
    """The best linear code, on a stream of any length: a covariance matrix in one pass, or a few passes without it.

    "PCA can't be done on data beyond memory" is true of PCA as most people call it, the singular value decomposition
    of an array that is in memory, several times over while it is decomposed. It is false of PCA: the axes depend on
    the data through sums over rows, which a stream gives in memory that doesn't grow with the number of examples.

    Codes are the scores on the principal axes, as scikit-learn's: `transform` projects, `inverse_transform` and
    `reconstruct` give the closest image in the axes' span.

    Its density is probabilistic PCA (Tipping and Bishop 1999), the linear VAE's optimum: z ~ N(0, I),
    x ~ N(W z + mean, noise_variance I), with the maximum likelihood W and noise variance, and the exact posterior, so
    that every draw's bound equals log p(x). `posterior`, `decoder_distribution` and `draw` speak of that z, whose
    posterior mean is a score shrunk by sqrt(variance - noise_variance) / variance. Reports `loss`, -log p(x) in nats;
    `log_likelihood`; and `squared_error` of the reconstruction.

    Args:
        latent_dim: int, the number of axes, below the number of features.
        seed: int or None (random), of the samples, and of the randomized solver's start.
        solver: "covariance" is exact, in one pass, float64, and 8 features^2 bytes (134 MB at 4,096 features, 3.2 GB
            at 20,000). "randomized" (block Krylov iteration) takes 8 features (latent_dim + 10) bytes a pass; its
            variances are those that the data have along its axes, and their sum falls short of the exact one: far
            less than `tolerance` of it on images; up to two or three times as much, without a warning, where the
            last axes lie in noise that is small beside the first ones; by 1e-3 or 2e-3 where that noise is as large
            along many others, of which it warns. "auto" is "covariance" up to 4,096 features, and where its matrix
            would be smaller than the randomized solver's basis.
        tolerance: of the randomized solver, which ends with the pass that raises the explained variance by less than
            this share of it: the fourth to sixth on images, the ninth where the variances decay slowly.
        max_passes: of the randomized solver, at least 2. It warns where they don't reach the tolerance.

    Attributes:
        mean: (features,). components: (latent_dim, features), orthonormal rows, the entry of largest magnitude
        positive. explained_variance: (latent_dim,), of maximum likelihood (divided by n, not n - 1).
        noise_variance: the mean of the variances left out.
    """

    reported = ("loss", "log_likelihood", "squared_error")

    def __init__(self, latent_dim, seed=None, solver="auto", tolerance=1e-5, max_passes=12, **kwargs):
        super().__init__(**{"dtype": "float64", **kwargs})
        self.latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
        self.seed = arguments.seed(seed)
        if solver not in pca_solvers.SOLVERS:
            raise ValueError(f"solver is {solver!r}; expected one of {pca_solvers.SOLVERS}.")
        if not 0 <= arguments.real("tolerance", tolerance) < 1:
            raise ValueError(f"tolerance is {tolerance!r}; expected a share of the explained variance in [0, 1).")
        self.solver, self.tolerance = solver, float(tolerance)
        self.max_passes = arguments.integer_at_least("max_passes", max_passes, 2)
        self.prior = StandardNormal(dtype=self.dtype_policy)
        self.sampling = Sampling(seed=self.seed, dtype=self.dtype_policy)
        self.sample_seed = keras.random.SeedGenerator(self.seed)
        self.compile(optimizer=None)

    def build_parts(self, event_shape):
        features = math.prod(event_shape)
        if not self.latent_dim < features:
            raise ValueError(f"latent_dim is {self.latent_dim}; expected fewer than the {features} features of x.")
        self.mean = self.add_weight(shape=(features,), name="mean", trainable=False)
        self.components = self.add_weight(shape=(self.latent_dim, features), name="components", trainable=False)
        self.explained_variance = self.add_weight(shape=(self.latent_dim,), name="explained_variance", trainable=False)
        self.noise_variance = self.add_weight(shape=(), name="noise_variance", trainable=False)
        self.examples = self.add_weight(shape=(), name="examples", dtype="int64", trainable=False)
        self.prior.build((None, self.latent_dim))

    def fit(self, x, y=None, *, batch_size=_ROWS, verbose="auto"):
        """One pass or a few (see `solver`) over x, a stream of batches or an array. Returns the model itself.

        x: the randomized solver needs the same examples in each pass, in any order. verbose: 0 for no progress bar.
        Raises ValueError for data that can't be used.
        """
        stream = arrays.batches(super()._checked(x, "x"), batch_size)
        with errors.clear_errors():
            count, mean, total, variances, axes = self._solve(stream, math.prod(self.event_shape), verbose)
        if count <= self.latent_dim:
            raise ValueError(f"x has {count} examples; {self.latent_dim} axes need more than that.")
        noise_variance = (total - variances.sum()) / (len(mean) - self.latent_dim)
        if noise_variance <= np.finfo("float64").eps * total:
            raise ValueError(
                f"x has no variance left beside {self.latent_dim} axes (of {total:.3g} in all), so that it has no "
                "density: give more varied examples, or a smaller latent_dim."
            )
        largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
        self.mean.assign(mean)
        self.components.assign(axes * np.sign(largest)[:, None])
        self.explained_variance.assign(variances)
        self.noise_variance.assign(noise_variance)
        self.examples.assign(count)
        self.record = model_card.Record([provenance.describe((x,))])
        return self

    def _solve(self, stream, features, verbose):
        solver = self.solver
        if solver == "auto":
            solver = pca_solvers.automatic(features, self.latent_dim, self.max_passes)
        if solver == "covariance":
            return pca_solvers.covariance(stream, features, self.latent_dim, verbose)
        return pca_solvers.randomized(
            stream, features, self.latent_dim, self.seed, self.tolerance, self.max_passes, verbose
        )

    def _checked(self, data, name, steps=None):
        if not (self.built and int(ops.convert_to_numpy(self.examples))):
            raise ValueError("This PCA hasn't been fitted: call fit(x) with a stream or an array first.")
        return super()._checked(data, name, steps)

    def _centred(self, x):
        return ops.reshape(self._scaled(x), (-1, self.mean.shape[0])) - self.mean

    def encode(self, x):
        """The scores (x - mean) components^T: (n, ...) to (n, latent_dim)."""
        return ops.matmul(self._centred(x), ops.transpose(self.components))

    def decode(self, z):
        """scores components + mean: (n, latent_dim) to (n, ...)."""
        return ops.reshape(ops.matmul(z, self.components) + self.mean, (-1, *self.event_shape))

    @property
    def _scale(self):
        return ops.sqrt(ops.maximum(self.explained_variance - self.noise_variance, 0.0))

    def posterior(self, x, training=False):
        """p(z|x), exact: N(scale / variance * score, noise_variance / variance), diagonal in these axes."""
        mean = self.encode(x) * self._scale / self.explained_variance
        return Normal(mean, ops.zeros_like(mean) + ops.log(self.noise_variance / self.explained_variance))

    def decoder_distribution(self, z, training=False):
        """p(x|z) = N(W z + mean, noise_variance I), W = components^T sqrt(explained_variance - noise_variance)."""
        return Normal(self.decode(z * self._scale), ops.log(self.noise_variance))

    def log_prob(self, x):
        """log p(x) = log N(x; mean, W W^T + noise_variance I) in nats: (n, ...) to (n,)."""
        return self._scored(x)[0]

    def losses_per_example(self, x, training=False, index=None):
        log_likelihood, squared_error = self._scored(x)
        return -log_likelihood, {"log_likelihood": log_likelihood, "squared_error": squared_error}

    def _scored(self, x):
        features, scores = self.mean.shape[0], self.encode(x)
        residual = ops.sum(ops.square(self._centred(x)), axis=1) - ops.sum(ops.square(scores), axis=1)
        log_determinant = ops.sum(ops.log(self.explained_variance)) + (features - self.latent_dim) * ops.log(
            self.noise_variance
        )
        distance = ops.sum(ops.square(scores) / self.explained_variance, axis=1) + residual / self.noise_variance
        return -0.5 * (features * math.log(2 * math.pi) + log_determinant + distance), residual

    def get_config(self):
        names = "latent_dim", "seed", "solver", "tolerance", "max_passes"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
