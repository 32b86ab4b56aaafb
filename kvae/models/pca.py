"""Principal component analysis on a stream, and the density that goes with it."""

import math
import numbers

import keras
import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from keras import ops

from kvae.data import streams
from kvae.distributions import Normal
from kvae.layers import Sampling
from kvae.models.base import LatentModel
from kvae.models.latent_variable import LatentVariableMixin
from kvae.priors import StandardNormal

_ROWS = 1024
_DENSE_FEATURES = 2048


@keras.saving.register_keras_serializable("kvae")
class PCA(LatentVariableMixin, LatentModel):
    """The best linear code, exact, in one pass over the stream, in float64.

    The memory is that of one covariance matrix (features squared, 8 bytes each), whatever the number of examples.
    Codes are the scores on the principal axes, as scikit-learn's: `transform` projects, `inverse_transform` and
    `reconstruct` give the closest image in the axes' span.

    Its density is probabilistic PCA (Tipping and Bishop 1999), the linear VAE's optimum: z ~ N(0, I),
    x ~ N(W z + mean, noise_variance I), with the maximum likelihood W and noise variance, and the exact posterior, so
    that every draw's bound equals log p(x). `posterior`, `conditional` and `draw` speak of that z, whose posterior
    mean is a score shrunk by sqrt(variance - noise_variance) / variance. Reports `loss`, -log p(x) in nats;
    `log_likelihood`; and `squared_error` of the reconstruction.

    Args:
        latent_dim: int, the number of axes, below the number of features.
        seed: int or None (random), of the samples.

    Attributes:
        mean: (features,). components: (latent_dim, features), orthonormal rows, the entry of largest magnitude
        positive. explained_variance: (latent_dim,), of maximum likelihood (divided by n, not n - 1).
        noise_variance: the mean of the variances left out.
    """

    reported = ("loss", "log_likelihood", "squared_error")

    def __init__(self, latent_dim, seed=None, **kwargs):
        super().__init__(**{"dtype": "float64", **kwargs})
        if isinstance(latent_dim, bool) or not isinstance(latent_dim, numbers.Integral) or latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim!r}; expected an integer of at least 1.")
        self.latent_dim = int(latent_dim)
        self.seed = seed
        self.prior = StandardNormal(dtype=self.dtype_policy)
        self.sampling = Sampling(seed=seed, dtype=self.dtype_policy)
        self.sample_seed = keras.random.SeedGenerator(seed)
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
        """One pass over x, a stream of batches or an array. Returns the model itself.

        verbose: 0 for no progress bar. Raises ValueError for data that can't be used.
        """
        stream = streams.batches(super()._checked(x, "x"), batch_size)
        with streams.clear_errors():
            count, mean, covariance = _moments(stream, math.prod(self.event_shape), verbose)
        if count <= self.latent_dim:
            raise ValueError(f"x has {count} examples; {self.latent_dim} axes need more than that.")
        total = np.trace(covariance)
        variances, axes = _leading_eigenpairs(covariance, self.latent_dim)
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
        return self

    def _checked(self, data, name, steps=None):
        if not (self.built and int(self.examples)):
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

    def conditional(self, z, training=False):
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
        return {**super().get_config(), "latent_dim": self.latent_dim, "seed": self.seed}


def _moments(stream, features, verbose):
    """(count, mean, lower triangle of the covariance), in one pass, each sum centred on the first batch's mean."""
    count, total, shift = 0, np.zeros(features), None
    products = np.zeros((features, features), order="F")
    steps = int(stream.cardinality())
    bar = keras.utils.Progbar(steps if steps > 0 else None, unit_name="batch", verbose=1 if verbose else 0)
    for element in stream:
        x = ops.convert_to_numpy(streams.scale(streams.unpack(element)[0], "float64")).reshape(-1, features)
        shift = x.mean(axis=0) if shift is None else shift
        x = x - shift
        count, total = count + len(x), total + x.sum(axis=0)
        products = scipy.linalg.blas.dsyrk(1.0, x.T, beta=1.0, c=products, lower=1, overwrite_c=1)
        bar.add(1)
    products = scipy.linalg.blas.dsyr(-1.0 / count, total, a=products, lower=1, overwrite_a=1)
    products /= count
    return count, shift + total / count, products


def _leading_eigenpairs(lower, count):
    """The `count` largest eigenvalues, descending, and their eigenvectors as rows; `lower` holds one triangle."""
    size = len(lower)
    if size <= _DENSE_FEATURES:
        values, vectors = scipy.linalg.eigh(lower, lower=True, subset_by_index=[size - count, size - 1])
    else:
        product = scipy.sparse.linalg.LinearOperator(
            lower.shape, lambda v: scipy.linalg.blas.dsymv(1.0, lower, v, lower=1), dtype=lower.dtype
        )
        start = np.random.default_rng(0).normal(size=size)
        values, vectors = scipy.sparse.linalg.eigsh(product, count, v0=start)
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order].T
