"""scikit-learn's manners: a model as an estimator for pipelines, `clone` and `cross_val_score`. Needs scikit-learn."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kvae import arguments, networks, optimizers
from kvae.likelihoods import GaussianLikelihood
from kvae.models import PCA, VAE, Autoencoder
from kvae.models.base import LatentModel

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'kvae.sklearn needs scikit-learn, which isn\'t there: pip install "keras-vae[notebooks]" brings it.'
    ) from error

__all__ = ["Estimator"]

_MODELS = ("vae", "pca", "autoencoder")


class Estimator(TransformerMixin, BaseEstimator):
    """A VAE, PCA or autoencoder of rows as an estimator of scikit-learn: codes, images of codes, and scores.

    `fit` makes a new model each time. `transform` gives codes, named "z0", "z1", ...; `score_samples` log p(x) of each
    row (minus the squared error for an autoencoder), and `score` its mean, so that `cross_val_score` compares models by
    the log-likelihood of new rows. It is pickled with its model, by joblib too.

    Rows should be standardized: put a `StandardScaler` before it. The score is then that of the scaled values.

    Args:
        model: "vae" (default), "pca", "autoencoder" or a function from the number of features to a model of kvae, which
            is compiled with its defaults if it isn't compiled.
        latent_dim: int >= 1, the size of a code; not read if `model` is a function. Default 2.
        epochs: int >= 1, of the training. Default 20.
        batch_size: int >= 1. Default 32.
        samples: int >= 1, the draws for each row of a VAE in `score_samples`. Default 100.
        missing: bool, whether NaN means "not observed", for "vae" and "pca". Default False.
        random_state: int, `numpy.random.RandomState` or None (default); of the weights, the noise and the order.

    Attributes:
        model_: the fitted model of kvae.
        n_features_in_: int.
        feature_names_in_: array of str, if x was a DataFrame.

    Example:

    >>> from kvae.sklearn import Estimator
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> pipeline = make_pipeline(StandardScaler(), Estimator("pca", latent_dim=2))
    >>> pipeline.fit_transform(x).shape, pipeline.score_samples(x).shape
    ((50, 2), (50,))
    """

    def __init__(
        self,
        model: str | Callable[[int], LatentModel] = "vae",
        latent_dim: int = 2,
        epochs: int = 20,
        batch_size: int = 32,
        samples: int = 100,
        missing: bool = False,
        random_state: Any = None,
    ):
        self.model = model
        self.latent_dim = latent_dim
        self.epochs = epochs
        self.batch_size = batch_size
        self.samples = samples
        self.missing = missing
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> Estimator:
        """Train a new model on the rows X (n, features); y isn't read.

        Raises:
            TypeError, ValueError: for wrong arguments of the constructor, or rows that can't be used.
        """
        for name in ("latent_dim", "epochs", "batch_size", "samples"):
            arguments.integer_at_least(name, getattr(self, name), 1)
        arguments.boolean("missing", self.missing)
        if self.missing and self.model == "autoencoder":
            raise ValueError("missing is True, which an autoencoder can't be: use model='vae' or 'pca'")
        if not callable(self.model):
            arguments.choice("model", self.model, _MODELS)
        rows = self._rows(X, reset=True, ensure_min_samples=2)
        if self.model == "pca" and rows.shape[1] <= self.latent_dim:
            raise ValueError(
                f"X has n_features={rows.shape[1]}; a PCA with latent_dim={self.latent_dim} needs more of them."
            )
        is_random = self.random_state is None
        seed = None if is_random else int(check_random_state(self.random_state).randint(2**31 - 1))
        with _seeded(seed):
            self.model_ = self._made(rows.shape[1], seed)
            options = {} if isinstance(self.model_, PCA) else {"epochs": self.epochs, "batch_size": self.batch_size}
            self.model_.fit(rows, verbose=0, **options)
        return self

    def _made(self, features, seed):
        if callable(self.model):
            model: Any = self.model(features)
            arguments.instance("model", model, LatentModel, "a function that gives a model of kvae")
            if not model.compiled:
                model.compile()
            return model
        if self.model == "pca":
            return PCA(self.latent_dim, seed=seed, missing=self.missing)
        shape = (features,)
        if self.model == "autoencoder":
            options: Any = {"hidden": (128, 128), "initializer": "glorot_uniform"}
            encoder = networks.dense_encoder(shape, self.latent_dim, **options)
            model = Autoencoder(encoder, networks.dense_decoder(shape, self.latent_dim, **options))
        else:
            model = VAE(
                networks.dense_encoder(shape, self.latent_dim, (128, 128), missing=self.missing),
                networks.dense_decoder(shape, self.latent_dim, (128, 128)),
                GaussianLikelihood("pixel", initial_variance=0.3, min_variance=0.01),
                seed=seed,
                missing=self.missing,
            )
        model.compile(optimizers.Adam(1e-3))
        return model

    def transform(self, X: ArrayLike) -> np.ndarray:
        """The codes of rows X (n, features), means if codes are random: (n, latent_dim)."""
        return self._fitted().transform(self._rows(X))

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """The rows of codes X (n, latent_dim), means if rows are random: (n, features)."""
        return self._fitted().inverse_transform(np.asarray(X))

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log p(x) of each row of X (n, features) in nats, or minus the squared error of an autoencoder: (n,)."""
        return self._fitted().score_samples(self._rows(X), self.samples)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """The mean of `score_samples` over the rows X; y isn't read."""
        return float(np.mean(self.score_samples(X)))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the codes, "z0", "z1", ...; `input_features` isn't read."""
        return np.array([f"z{number}" for number in range(self._fitted().latent_dim)], dtype=object)

    def _fitted(self) -> Any:
        check_is_fitted(self, "model_")
        return self.model_

    def _rows(self, x, reset=False, **options):
        if not reset:
            check_is_fitted(self, "model_")
        finite = "allow-nan" if self.missing else True
        dtypes = [np.float64, np.float32]
        return validate_data(self, x, reset=reset, dtype=dtypes, ensure_all_finite=finite, **options)

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(self.missing)
        tags.transformer_tags.preserves_dtype = []
        return tags


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Within it Keras draws the seeds of weights, and `fit` the order, from this seed; Python's own state stays."""
    state = random.getstate()
    try:
        if seed is not None:
            random.seed(seed)
        yield
    finally:
        if seed is not None:
            random.setstate(state)
