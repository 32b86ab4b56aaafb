"""p(z), what the model assumes of the latents before it has seen an image."""

import abc

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.distributions import Distribution, Mixture, Normal
from kvae.flows import Flow, Transformed


class Prior(keras.layers.Layer, abc.ABC):
    """p(z) over latents of shape (latent_dim,). A layer, since a prior may have weights of its own."""

    def build(self, input_shape, event_shape=None):
        """input_shape: (None, latent_dim). event_shape: the images', for a prior that is made of them."""
        self.latent_dim = input_shape[-1]
        self.event_shape = None if event_shape is None else tuple(event_shape)
        super().build(input_shape)

    @abc.abstractmethod
    def distribution(self, count, posterior=None) -> Distribution:
        """p(z) as a distribution of `count` equal rows. posterior: the model's function from images to q(z|x)."""

    def log_prob(self, z, posterior=None):
        """log p(z) in nats: (n, latent_dim) to (n,)."""
        return self.distribution(1, posterior).log_prob(z)

    def kl_divergence(self, posterior):
        """KL(posterior || prior) in nats, (n, groups) whose sum is the divergence, or None without a closed form."""
        return None

    def check_posterior(self, family):
        """Raise ValueError where this prior can't be used with a `kvae.posteriors.Posterior`."""
        return None


@keras.saving.register_keras_serializable("kvae")
class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def distribution(self, count, posterior=None):
        zeros = ops.zeros((count, self.latent_dim), dtype=self.variable_dtype)
        return Normal(zeros, zeros)

    def kl_divergence(self, posterior):
        return posterior.kl_divergence(self.distribution(1))


@keras.saving.register_keras_serializable("kvae")
class MixtureOfGaussians(Prior):
    """p(z) = sum_k weight_k N(z; mean_k, diag(exp(log_var_k))), all of it learned.

    Args:
        components: int, the number of Gaussians. They start with variance 1, at means drawn from N(0, I).

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, components=50, **kwargs):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)

    def build(self, input_shape, event_shape=None):
        shape = (self.components, input_shape[-1])
        self.means = self.add_weight(name="means", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.log_vars = self.add_weight(name="log_vars", shape=shape, initializer="zeros")
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        super().build(input_shape, event_shape)

    def distribution(self, count, posterior=None):
        components = Normal(ops.convert_to_tensor(self.means), ops.convert_to_tensor(self.log_vars))
        return Mixture(components, ops.log_softmax(self.logits), count)

    def get_config(self):
        return {**super().get_config(), "components": self.components}


@keras.saving.register_keras_serializable("kvae")
class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z|u_k), the mean of the posteriors of K learned pseudo-inputs u_k.

    Tomczak and Welling (2018), "VAE with a VampPrior", section 3: of all priors, the mean of the data's posteriors has
    the largest bound; this is its approximation by K images. They pass through the encoder once a step, as in
    evaluation even while it is trained: p(z) is one distribution, with which neither dropout nor the other images of a
    batch have to do, and a BatchNormalization's moving statistics are the data's alone.

    Args:
        components: int, K.
        initial_mean, initial_std: the pixels of the u_k start at N(initial_mean, initial_std^2); see also `start_at`.
        bounds: (low, high) that the pixels are held in, as the images' are; None where those have no bounds.

    Raises:
        ValueError: for a number of components below 1, or bounds that aren't in order.
    """

    def __init__(self, components=500, initial_mean=0.05, initial_std=0.01, bounds=(0.0, 1.0), **kwargs):
        super().__init__(**kwargs)
        self.components = arguments.integer_at_least("components", components, 1)
        if bounds is not None and not (np.shape(bounds) == (2,) and bounds[0] < bounds[1]):
            raise ValueError(f"bounds is {bounds!r}; expected (low, high) with low < high, or None.")
        self.initial_mean = arguments.real("initial_mean", initial_mean)
        self.initial_std = arguments.real("initial_std", initial_std)
        self.bounds = None if bounds is None else tuple(bounds)

    def build(self, input_shape, event_shape=None):
        if event_shape is None:
            raise ValueError("A VampPrior is made of images: build it with event_shape, as kvae.VAE does.")
        self.raw_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=(self.components, *event_shape),
            initializer=keras.initializers.RandomNormal(self.initial_mean, self.initial_std),
        )
        super().build(input_shape, event_shape)

    @property
    def pseudo_inputs(self):
        """u, (components, ...): the weights, cut off at the bounds ("hardtanh" in the authors' code)."""
        inputs = ops.convert_to_tensor(self.raw_inputs)
        return inputs if self.bounds is None else ops.clip(inputs, *self.bounds)

    def start_at(self, images):
        """Let the pseudo-inputs start at these: float array (components, ...), scaled as the model's input is."""
        images = np.asarray(images)
        expected = (self.components, *self.event_shape)
        if images.shape != expected or images.dtype.kind != "f":
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; expected floats of shape {expected}, scaled as "
                "the model's input is (uint8 divided by 255)."
            )
        self.raw_inputs.assign(images)

    def distribution(self, count, posterior=None):
        if posterior is None:
            raise ValueError(
                "A VampPrior is a mixture of the model's posteriors: ask model.prior_distribution(count) for it, or "
                "give posterior=model.posterior."
            )
        return Mixture(posterior(self.pseudo_inputs), count=count)

    def check_posterior(self, family):
        if not family.scores_any_z:
            raise ValueError(
                f"A VampPrior scores z under other images' posteriors, and this {type(family).__name__} scores only "
                "the z that it drew itself: use another posterior, such as kvae.posteriors.FullNormal(), or prior."
            )

    def get_config(self):
        names = "components", "initial_mean", "initial_std", "bounds"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kvae")
class FlowPrior(Prior):
    """p(z) of z = f(u), u ~ N(0, I), f being a flow that is learned.

    Args:
        flow: a `kvae.flows.Flow` with an inverse, best `Coupling`.

    Raises:
        ValueError: for a flow without an inverse, which could be drawn from and not scored.
    """

    def __init__(self, flow, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(flow, Flow):
            raise TypeError(f"flow is {flow!r}; expected one of kvae.flows, such as Coupling(steps=4).")
        if not flow.invertible:
            raise ValueError(
                f"flow is {type(flow).__name__}, which has no inverse in closed form, and a prior's density at the "
                "posterior's z needs one: use kvae.flows.Coupling()."
            )
        self.flow = flow

    def build(self, input_shape, event_shape=None):
        self.flow.build_for(input_shape)
        super().build(input_shape, event_shape)

    def distribution(self, count, posterior=None):
        zeros = ops.zeros((count, self.latent_dim), dtype=self.variable_dtype)
        return Transformed(Normal(zeros, zeros), self.flow)

    def check_posterior(self, family):
        if getattr(family, "flow", None) is self.flow:
            raise ValueError(
                f"The prior and the posterior have one {type(self.flow).__name__} between them, whose weights a saved "
                "model would hold once: make a flow for each."
            )

    def get_config(self):
        return {**super().get_config(), "flow": keras.saving.serialize_keras_object(self.flow)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})
