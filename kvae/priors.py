"""Priors p(z): the distribution of the latents before an image is seen."""

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.distributions import Distribution, Mixture, MultivariateNormal, Normal, Reparameterized
from kvae.flows import Flow, Transformed
from kvae.posteriors import Posterior


class Prior(keras.layers.Layer, abc.ABC):
    """Base class of priors: layers, possibly with weights, for p(z) over latents of shape (latent_dim,).

    A subclass defines `distribution`, `build` if it has weights, and `kl_divergence` if there is a closed form.

    Attributes:
        latent_dim: int, the size of z, once built.
        event_shape: tuple of ints, the shape of an image, or None, once built.

    Example:

    >>> class Wide(kvae.Prior):
    ...     def distribution(self, count, posterior=None):
    ...         zeros = ops.zeros((count, self.latent_dim))
    ...         return kvae.distributions.Normal(zeros, zeros + np.log(4.0))
    >>> prior = Wide()
    >>> prior.build((None, 2))
    >>> prior.log_prob(ops.zeros((1, 2))).numpy().round(3)
    array([-3.224], dtype=float32)
    """

    def build(self, input_shape: Shape, event_shape: Shape | None = None) -> None:
        """Create the weights.

        Args:
            input_shape: (None, latent_dim).
            event_shape: tuple of ints, the shape of an image, for priors made of images. Default None.
        """
        self.latent_dim = input_shape[-1]
        self.event_shape = None if event_shape is None else tuple(event_shape)
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, count: int, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Distribution:
        """Return p(z).

        Args:
            count: int, the number of equal rows.
            posterior: function from images to q(z|x), such as `model.posterior`, for priors made of images. Default
                None.
        """

    def log_prob(self, z: Tensor, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Tensor:
        """Return log p(z) in nats: z (n, latent_dim) to (n,). `posterior` as for `distribution`."""
        return self.distribution(1, posterior).log_prob(z)

    def kl_divergence(self, posterior: Reparameterized) -> Tensor | None:
        """Return KL(posterior || prior) in nats as terms (n, groups) to sum, or None without a closed form."""
        return None

    def check_posterior(self, family: Posterior) -> None:
        """Raise ValueError if this prior doesn't suit a `family` of posteriors."""
        return None

    def check_data(self, x: np.ndarray) -> None:
        """Warn of a first batch x (n, ...), scaled, that doesn't suit the prior."""
        return None


@keras.saving.register_keras_serializable("kvae")
class StandardNormal(Prior):
    """p(z) = N(0, I).

    Example:

    >>> prior = kvae.StandardNormal()
    >>> prior.build((None, 2))
    >>> prior.log_prob(ops.zeros((1, 2))).numpy().round(4)  # -log 2 pi
    array([-1.8379], dtype=float32)

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", appendix B.
    """

    def distribution(self, count: int, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Normal:
        zeros = ops.zeros((count, self.latent_dim), dtype=self.variable_dtype)
        return Normal(zeros, zeros)

    def kl_divergence(self, posterior: Reparameterized) -> Tensor | None:
        return posterior.kl_divergence(self.distribution(1))


@keras.saving.register_keras_serializable("kvae")
class MixtureOfGaussians(Prior):
    """p(z) = sum_k weight_k N(z; mean_k, covariance_k) with learned weights, means and covariances.

    Training starts at equal weights, covariances I, and means drawn from N(0, I). `kvae.fit_prior` fits the mixture to
    the codes of a trained VAE.

    Args:
        components: int >= 1, the number of Gaussians. Default 50.
        covariance: "diagonal" (default) or "full".
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `components` is less than 1, or `covariance` has another value.

    Example:

    >>> prior = kvae.MixtureOfGaussians(components=10)
    >>> prior.build((None, 2))
    >>> tuple(prior.distribution(5).sample(seed=0).shape)
    (5, 2)
    """

    def __init__(self, components: int = 50, covariance: str = "diagonal", **kwargs: Any):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)
        self.covariance = arguments.choice("covariance", covariance, ("diagonal", "full"))

    def build(self, input_shape: Shape, event_shape: Shape | None = None) -> None:
        shape = (self.components, input_shape[-1])
        self.means = self.add_weight(name="means", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        if self.covariance == "full":  # MultivariateNormal's parameter
            self.below = self.add_weight(name="below", shape=(*shape, shape[1]), initializer="zeros")
        super().build(input_shape, event_shape)

    def distribution(self, count: int, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Mixture:
        parameters = ops.convert_to_tensor(self.means), ops.convert_to_tensor(self.log_vars)
        if self.covariance == "full":
            components = MultivariateNormal(*parameters, ops.convert_to_tensor(self.below))
        else:
            components = Normal(*parameters)
        return Mixture(components, ops.log_softmax(self.logits), count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "components": self.components, "covariance": self.covariance}


@keras.saving.register_keras_serializable("kvae")
class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z|u_k): the mean of the posteriors of K learned pseudo-inputs u_k.

    Of all priors, the mean of all posteriors of the data gives the largest bound. A VampPrior approximates it by K
    images. In each step they pass through the encoder once, in inference mode: no dropout, no statistics of the batch,
    and no update of a BatchNormalization's moving statistics.

    Args:
        components: int >= 1, K. Default 500.
        initial_mean: number, the mean of the pixels of u_k before training. Default 0.05. See also `start_at`.
        initial_std: number, the standard deviation of these pixels. Default 0.01.
        bounds: (low, high), the range of the pixels of u_k, or None for no limits. Default (0.0, 1.0).
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `initial_mean` or `initial_std` is no number.
        ValueError: if `components` is less than 1, or `bounds` is no pair low < high.

    Example:

    >>> prior = kvae.VampPrior(components=20, bounds=None)
    >>> encoder, decoder = kvae.networks.dense_encoder((6,), 2), kvae.networks.dense_decoder((6,), 2)
    >>> model = kvae.VAE(encoder, decoder, prior=prior)
    >>> tuple(prior.pseudo_inputs.shape)
    (20, 6)

    Reference:
        Tomczak and Welling (2018), "VAE with a VampPrior", section 3.
    """

    def __init__(
        self,
        components: int = 500,
        initial_mean: float = 0.05,
        initial_std: float = 0.01,
        bounds: Sequence[float] | None = (0.0, 1.0),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)
        if bounds is not None and not (np.shape(bounds) == (2,) and bounds[0] < bounds[1]):
            raise ValueError(f"bounds is {bounds!r}; expected (low, high) with low < high, or None.")
        self.initial_mean = arguments.real("initial_mean", initial_mean)
        self.initial_std = arguments.real("initial_std", initial_std, 0)
        self.bounds = None if bounds is None else tuple(bounds)

    def build(self, input_shape: Shape, event_shape: Shape | None = None) -> None:
        if event_shape is None:
            raise ValueError("A VampPrior is made of images: build it with event_shape, as kvae.VAE does.")
        self.raw_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=(self.components, *event_shape),
            initializer=keras.initializers.RandomNormal(self.initial_mean, self.initial_std),
        )
        super().build(input_shape, event_shape)

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (components, ...): the weights, clipped to the bounds ("hardtanh" in the authors' code)."""
        inputs = ops.convert_to_tensor(self.raw_inputs)
        return inputs if self.bounds is None else ops.clip(inputs, *self.bounds)

    def start_at(self, images: ArrayLike) -> None:
        """Set the pseudo-inputs to given images.

        Args:
            images: float array (components, ...), scaled like the model's input.

        Raises:
            ValueError: for other shapes or dtypes.
        """
        images = np.asarray(images)
        expected = tuple(self.raw_inputs.shape)
        if images.shape != expected or images.dtype.kind != "f":
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; expected floats of shape {expected}, scaled as "
                "the model's input is (uint8 divided by 255)."
            )
        self.raw_inputs.assign(images)

    def distribution(self, count: int, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Mixture:
        if posterior is None:
            raise ValueError(
                "A VampPrior is a mixture of the model's posteriors: ask model.prior_distribution(count) for it, or "
                "give posterior=model.posterior."
            )
        return Mixture(posterior(self.pseudo_inputs), count=count)

    def check_posterior(self, family: Posterior) -> None:
        if not family.scores_any_z:
            raise ValueError(
                f"A VampPrior scores z under other images' posteriors, and this {type(family).__name__} scores only "
                "the z that it drew itself: use another posterior, such as kvae.posteriors.FullNormal(), or prior."
            )

    def check_data(self, x: np.ndarray) -> None:
        if self.bounds is not None and (np.min(x) < self.bounds[0] or np.max(x) > self.bounds[1]):
            warnings.warn(
                f"The data reach from {np.min(x):g} to {np.max(x):g}, and the VampPrior's images are held in its "
                f"bounds {self.bounds}: give VampPrior(bounds=(low, high)) those of the data, or None, or scale the "
                "data.",
                stacklevel=2,
            )

    def get_config(self) -> dict[str, Any]:
        names = "components", "initial_mean", "initial_std", "bounds"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kvae")
class FlowPrior(Prior):
    """p(z) of z = f(u) with u ~ N(0, I) and a learned flow f.

    Args:
        flow: `kvae.flows.Flow` with an inverse in closed form, best `Coupling`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `flow` is no flow.
        ValueError: if the flow has no inverse: p(z) could be drawn from, but not scored.

    Example:

    >>> prior = kvae.FlowPrior(kvae.flows.Coupling(steps=4))
    >>> prior.build((None, 2))
    >>> prior.log_prob(ops.zeros((1, 2))).numpy().round(4)  # N(0, I) before training
    array([-1.8379], dtype=float32)

    Reference:
        Rezende and Mohamed (2015), "Variational inference with normalizing flows"; as a prior Chen et al. (2017),
        "Variational lossy autoencoder", section 3.2.
    """

    def __init__(self, flow: Flow, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.instance("flow", flow, Flow, "one of kvae.flows, such as Coupling(steps=4)")
        if not flow.invertible:
            raise ValueError(
                f"flow is {type(flow).__name__}, which has no inverse in closed form, and a prior's density at the "
                "posterior's z needs one: use kvae.flows.Coupling()."
            )
        self.flow = flow

    def build(self, input_shape: Shape, event_shape: Shape | None = None) -> None:
        self.flow.build_for(input_shape)
        super().build(input_shape, event_shape)

    def distribution(self, count: int, posterior: Callable[[Tensor], Reparameterized] | None = None) -> Transformed:
        zeros = ops.zeros((count, self.latent_dim), dtype=self.variable_dtype)
        return Transformed(Normal(zeros, zeros), self.flow)

    def check_posterior(self, family: Posterior) -> None:
        if getattr(family, "flow", None) is self.flow:
            raise ValueError(
                f"The prior and the posterior have one {type(self.flow).__name__} between them, whose weights a saved "
                "model would hold once: make a flow for each."
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "flow": keras.saving.serialize_keras_object(self.flow)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})
