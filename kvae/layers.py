"""Layers: tensors in, tensors out."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvae import arguments, replicas
from kvae.arguments import Shape, Tensor
from kvae.columns import Columns
from kvae.distributions import Normal
from kvae.noise import indexed_normal


class WeightedPath:
    """The identity on z (n, ...), with each row's gradient multiplied by an entry of `weights` (n,).

    Set `weights` before the backward pass. The call itself doesn't need them.
    """

    weights: Tensor = None

    def __call__(self, z: Tensor) -> Tensor:
        @ops.custom_gradient
        def identity(z):
            def gradient(upstream):
                return upstream * ops.reshape(self.weights, (-1,) + (1,) * (len(z.shape) - 1))

            return ops.copy(z), gradient

        return identity(z)


@keras.saving.register_keras_serializable("kvae")
class Sampling(keras.layers.Layer):
    """z = z_mean + exp(z_log_var / 2) * eps with eps ~ N(0, I): the reparameterization trick.

    sigma = exp(z_log_var / 2) is the standard deviation, the square root of the variance. The layer owns its seed and
    saves the seed's state: a loaded model continues with the same noise.

    Args:
        seed: int from 0 to 2**32 - 1, or None (default) for a random one.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `seed` has another value.

    Example:

    >>> z_mean, z_log_var = ops.ones((4, 2)), ops.full((4, 2), -80.0)  # hardly any variance
    >>> sampling = kvae.Sampling(seed=0)
    >>> sampling([z_mean, z_log_var]).numpy()[0].round(3)
    array([1., 1.], dtype=float32)
    >>> tuple(sampling([z_mean, z_log_var], samples=10).shape)
    (4, 10, 2)

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", section 2.4.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = arguments.seed(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    def call(self, inputs: Sequence[Tensor], samples: int | None = None, index: Tensor | None = None) -> Tensor:
        """Draw z.

        Args:
            inputs: [z_mean, z_log_var], tensors (n, latent_dim).
            samples: int >= 1, the draws per example; None (default) for one.
            index: integer tensor (n,), the examples' positions: the noise is a fixed function of the position, as in
                evaluation. None (default) for fresh noise at each call.

        Returns:
            tensor (n, latent_dim), or (n, samples, latent_dim) if `samples` is given.
        """
        z_mean, z_log_var = inputs
        batch, latent_dim = ops.shape(z_mean)
        eps = self.noise((batch, samples or 1, latent_dim), index, z_mean.dtype)
        z = Normal(z_mean[:, None], z_log_var[:, None]).reparameterize(eps)
        return z if samples else z[:, 0]

    def noise(self, shape: Shape, index: Tensor | None = None, dtype: str | None = None) -> Tensor:
        """Return eps ~ N(0, I). Several replicas draw the noise of one, each the rows of its own examples.

        Args:
            shape: (n, ...), ints.
            index: integer tensor (n,) for noise as a function of the position, or None (default) for fresh noise.
            dtype: str, by default the layer's compute dtype.
        """
        dtype = dtype or self.compute_dtype
        if index is None:
            if not tf.distribute.has_strategy():
                return keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)
            rows, total = replicas.places(shape[0])
            of_all = keras.random.normal((ops.cast(total, "int32"), *shape[1:]), dtype=dtype, seed=self.seed_generator)
            return ops.take(of_all, rows, axis=0)
        return ops.reshape(indexed_normal(index, math.prod(shape[1:]), dtype=dtype), shape)

    def compute_output_spec(self, inputs, samples=None, index=None) -> keras.KerasTensor:
        batch, latent_dim = inputs[0].shape
        shape = (batch, samples, latent_dim) if samples else (batch, latent_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seed_generator_state"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("kvae")
class FillIn(keras.layers.Layer):
    """Puts the mean of the observed values, one for each value of an example, in the place of NaN.

    The means are those of the batches seen in training, 0 before the first. They have no gradient: it would cost a
    further product with the first layer's weights, 10 % of a step. Other values pass unchanged.

    Args:
        gives_mask: bool, whether the layer returns [x, missing], with 1 in `missing` for each NaN and 0 elsewhere.
            Default False: x alone.
        **kwargs: of `keras.layers.Layer`.

    Example:

    >>> fill_in = kvae.layers.FillIn(gives_mask=True)
    >>> x, missing = fill_in(ops.array([[1.0, np.nan], [3.0, 5.0]]), training=True)
    >>> missing.numpy(), fill_in.fill.numpy()
    (array([[0., 1.],
           [0., 0.]], dtype=float32), array([2., 5.], dtype=float32))
    """

    def __init__(self, gives_mask: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.gives_mask = arguments.boolean("gives_mask", gives_mask)

    def build(self, input_shape: Shape) -> None:
        """Make the means, 0 at first, for examples of `input_shape`, (None, ...)."""
        self.fill, self.counts = (
            self.add_weight(
                name=name,
                shape=input_shape[1:],
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )
            for name in ("fill", "counts")
        )
        super().build(input_shape)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Map x (n, ...) to the same shape, or to a list of two such tensors. With `training` the means move."""
        missing = ops.isnan(x)
        filled, mask = ops.where(missing, self.fill, x), ops.cast(missing, x.dtype)
        if training:
            self._add(filled, mask)
        return [filled, mask] if self.gives_mask else filled

    def _add(self, filled, mask):
        """Move the means by a batch, from the sum of its filled values: those in the gaps are the means themselves."""
        excess = replicas.total(ops.sum(filled, axis=0) - ops.cast(ops.shape(filled)[0], filled.dtype) * self.fill)
        count = replicas.total(ops.cast(ops.shape(mask)[0], mask.dtype) - ops.sum(mask, axis=0))
        counts = self.counts + count
        self.fill.assign(self.fill + excess / ops.maximum(counts, 1.0))
        self.counts.assign(counts)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gives_mask": self.gives_mask}


@keras.saving.register_keras_serializable("kvae")
class ColumnFeatures(keras.layers.Layer):
    """What a network reads of a table's rows: x (n, columns) to (n, features), all near the unit scale.

    Numbers and dates become (x - mean) / scale, counts log((1 + x) / (1 + mean)), and categories one-hot codes. A
    missing value becomes zeros: it is marked by NaN, or by a mask beside x.

    Args:
        columns: `kvae.data.Columns`.
        **kwargs: of `keras.layers.Layer`.

    Example:

    >>> columns = kvae.data.Columns([kvae.data.Column("age", mean=40.0, scale=10.0),
    ...                              kvae.data.Column("job", "category", categories=("cook", "nurse"))])
    >>> kvae.layers.ColumnFeatures(columns)(ops.array([[50.0, 1.0], [np.nan, 0.0]])).numpy()
    array([[1., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """

    def __init__(self, columns: Columns, **kwargs: Any):
        super().__init__(**{**kwargs, "autocast": False})  # x in its own units overflows float16
        self.columns = arguments.instance("columns", columns, Columns, "kvae.data.Columns, such as stream.columns")

    def build(self, input_shape: Shape) -> None:
        """Check `input_shape`, the shape of x, or the shapes of x and its mask."""
        shape = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        if tuple(shape[1:]) != (len(self.columns),):
            raise ValueError(f"x has the shape {tuple(shape)}; expected (n, {len(self.columns)}), a value each column.")
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        """Map x (n, columns), or [x, missing] with 1 in `missing` for each gap, to (n, features)."""
        x, missing = x if isinstance(x, list | tuple) else (x, None)
        x = ops.cast(x, self.variable_dtype)
        missing = ops.isnan(x) if missing is None else ops.cast(missing, "bool")
        mean = ops.convert_to_tensor([column.mean for column in self.columns], x.dtype)
        scale = ops.convert_to_tensor([column.scale for column in self.columns], x.dtype)
        filled = ops.where(missing, mean, x)
        by_kind = {}
        for number, column in enumerate(self.columns):
            kind = column.kind if column.kind in ("count", "category") else "number"
            by_kind.setdefault(kind, []).append(number)
        features = []
        if numbers := by_kind.get("number"):
            features.append(ops.take((filled - mean) / scale, numbers, axis=1))
        if numbers := by_kind.get("count"):
            features.append(ops.log1p(ops.take(filled, numbers, axis=1)) - ops.log1p(ops.take(mean, numbers)))
        for number in by_kind.get("category", ()):
            code = ops.where(missing[:, number], -1.0, x[:, number])
            size = max(2, len(self.columns[number].categories))
            features.append(ops.one_hot(ops.cast(ops.round(code), "int32"), size, dtype=x.dtype))
        return ops.cast(ops.concatenate(features, axis=1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("autocast", None)
        return {**config, "columns": self.columns.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ColumnFeatures":
        return cls(**{**config, "columns": Columns.from_config(config["columns"])})


@keras.saving.register_keras_serializable("kvae")
class ShiftedPositions(keras.layers.Layer):
    """Moves a sequence on by one position and adds a learned vector to each: position i holds i - 1's input.

    It is the first layer of an autoregressive network. The first position holds its learned vector alone.

    Example:

    >>> layer = kvae.layers.ShiftedPositions()
    >>> x = ops.reshape(ops.arange(3.0), (1, 3, 1))
    >>> ops.round(layer(x) - layer.positions).numpy()[0, :, 0]
    array([0., 0., 1.], dtype=float32)
    """

    def build(self, input_shape: Shape) -> None:
        """Make the vectors for sequences of `input_shape`, (None, positions, units)."""
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(name="positions", shape=input_shape[1:], initializer=start)
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        """Map x (n, positions, units) to the same shape."""
        return ops.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0]]) + self.positions


@keras.saving.register_keras_serializable("kvae")
class PrecisionWeighted(keras.layers.Layer):
    """The normalized product of two normals: precisions add up, and they weight the means.

    In a ladder VAE, q(z_l | x, ...) is the product of a normal computed from x and the prior p(z_l | ...).

    Example:

    >>> zeros = ops.zeros((1, 1))
    >>> mean, log_var = kvae.layers.PrecisionWeighted()([zeros, zeros, zeros + 1.0, zeros])
    >>> mean.numpy(), ops.exp(log_var).numpy()
    (array([[0.5]], dtype=float32), array([[0.5]], dtype=float32))

    Reference:
        Sønderby et al. (2016), "Ladder variational autoencoders", equations 17 to 19.
    """

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Map [mean, log_var, mean', log_var'], tensors (n, size), to [mean, log_var] of the product."""
        mean, log_var, other_mean, other_log_var = inputs
        product = -ops.logaddexp(-log_var, -other_log_var)
        weight, other_weight = ops.exp(product - log_var), ops.exp(product - other_log_var)
        return [weight * mean + other_weight * other_mean, product]
