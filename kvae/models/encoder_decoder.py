"""A model of an encoder and a decoder: how it is built, whether its parts fit each other, and its configuration."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from kvae import _compat, arguments
from kvae.layers import FillIn
from kvae.models.base import LatentModel
from kvae.objectives import ELBO, Objective
from kvae.posteriors import DiagonalNormal, Posterior
from kvae.priors import Prior, StandardNormal

_OF_ANY_SIGN = "logits", "log_", "raw_", "z_log_", "z_below"  # starts of the outputs' names
_WITHOUT_SIGN = (
    *("sigmoid", "hardsigmoid", "hard_sigmoid", "softmax", "softplus", "exponential", "exp", "abs", "absolute"),
    *("relu", "relu6", "square", "logsigmoid", "log_sigmoid"),
)
_BUILDS = "builds_of_added_layers"
_RENAMED = {"posterior": "posterior_family"}  # arguments in files of 0.1.0


class EncoderDecoder(LatentModel):
    """A `LatentModel` of an encoder and a decoder.

    A subclass names its constructor's arguments in `config_names`; each is an attribute of the same name.

    Args:
        encoder: a Keras model from x (n, ...).
        decoder: a Keras model to images (n, ...).
        missing: bool, whether NaN in x means "not observed". The encoder then gets x with the means of a
            `kvae.layers.FillIn` in the gaps and, if it has two inputs, their mask beside it.
        **kwargs: of `keras.Model`.

    Raises:
        TypeError: if one of them isn't a Keras model.
    """

    config_names: tuple[str, ...] = ("encoder", "decoder")
    _copying = False

    def __init__(self, encoder: keras.layers.Layer, decoder: keras.layers.Layer, missing: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, keras.layers.Layer):
                raise TypeError(
                    f"The {role} is {type(network).__name__}; expected a Keras model, such as kvae.networks gives."
                )
        self.encoder = encoder
        self.decoder = decoder
        if arguments.boolean("missing", missing):
            if self._reads_labels or not hasattr(self, "posterior"):
                raise ValueError(f"missing is True; a {type(self).__name__} takes no missing values: use kvae.VAE.")
            self.missing = True
            self.fill_in = FillIn(gives_mask=_reads_mask(encoder), dtype=self.variable_dtype)
            self.config_names = (*self.config_names, "missing")

    def compile(self, optimizer: Any = "adam", **kwargs: Any) -> None:
        """`LatentModel.compile`. Raises TypeError or ValueError if the optimizer is none."""
        example = "a Keras optimizer, or the name of one, such as 'adam'"
        arguments.instance("optimizer", optimizer, str | dict | keras.optimizers.Optimizer, example)
        if isinstance(optimizer, str | dict):
            try:
                keras.optimizers.get(optimizer)
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"optimizer is {optimizer!r}; expected {example}.") from None
        super().compile(optimizer=optimizer, **kwargs)

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """The networks that the model is made of."""
        return self.encoder, self.decoder

    def build(self, input_shape: tuple) -> None:
        """Build for examples of `input_shape`, (None, ...). A refused shape leaves the networks fit for another."""
        if not self.built and not all(network.built for network in self.networks):
            self._try_on_a_copy(tuple(input_shape[1:]))
        if self.fill_in is not None and not self.fill_in.built:
            self.fill_in.build(input_shape)
        super().build(input_shape)

    def _try_on_a_copy(self, event_shape):
        state = random.getstate()  # Keras draws the seeds of the copy's initializers from it
        EncoderDecoder._copying = True
        try:
            copy = type(self).from_config(self.get_config())
        except Exception:  # of networks that Keras can't copy
            return
        finally:
            EncoderDecoder._copying = False
            random.setstate(state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model itself will warn
            copy._build_parts(event_shape)

    def _build_if_shape_is_known(self):
        """Build now if the encoder knows the shape of its input. The constructors end with it."""
        self._parts = len(self.layers)
        shape = getattr(self.encoder, "input_shape", None) if self.encoder.built else None
        shape = shape[0] if isinstance(shape, list) else shape
        if isinstance(shape, tuple) and shape and None not in shape[1:] and not EncoderDecoder._copying:
            self.build(shape)
            _compat.open_for_state(self)

    def _encoder_symbol(self, event_shape):
        """The symbolic input of the encoder, or a list of two."""
        x = self._symbol(event_shape)
        return [x, x] if self.missing and _reads_mask(self.encoder) else x

    def call(self, x: Any, training: bool = False) -> Any:
        """`decode(encode(x))`, the reconstruction (n, ...), a mean; of counts with a size, at the sizes in x.

        `training` isn't read.
        """
        z = self._with_labels(self.encode(x), x)
        if self.likelihood is None or not self.likelihood.reads_sizes:
            return self.decode(z)
        images = keras.tree.flatten(self._scaled(x))[0]
        observed = ops.logical_not(ops.isnan(images))
        return self._of_code(z).at_sizes_of(ops.where(observed, images, 0.0), observed).mean

    def _of_code(self, z):
        """p(x|z), or with labels p(x|z,y) of (z, y), of what `encode` gives."""
        return self.decoder_distribution(z)

    def _with_labels(self, z, x):
        """What the decoder reads for z: with labels, (z, y) with the y of x."""
        return z

    def get_config(self) -> dict[str, Any]:
        """Keras' hook: the constructor's arguments, serialized, and how a subclass' own layers are built."""
        config = {**super().get_config(), **{name: _serialized(getattr(self, name)) for name in self.config_names}}
        builds = [layer.get_build_config() if layer.built else None for layer in self._added_layers()]
        return {**config, _BUILDS: builds} if any(builds) else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderDecoder:
        """Keras' hook: a model from the `config` of `get_config`, also of 0.1.0."""
        config = {_RENAMED.get(name, name): value for name, value in config.items()}
        builds = config.pop(_BUILDS, ())
        model = cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})
        for layer, build in zip(model._added_layers(), builds, strict=False):
            if build and not layer.built:
                layer.build_from_config(build)
        return model


def _reads_mask(encoder):
    """Whether an encoder has a second input."""
    inputs = getattr(encoder, "inputs", None)
    return isinstance(inputs, list) and len(inputs) == 2


def _serialized(value):
    if isinstance(value, list):
        return [_serialized(part) for part in value]
    return keras.saving.serialize_keras_object(value) if isinstance(value, keras.Operation) else value


# Do the parts fit each other?


def prior_and_posterior(prior: Prior | None, family: Posterior | None, dtype: str) -> tuple[Prior, Posterior]:
    """Both, with the defaults N(0, I) and a diagonal normal. Raises TypeError for other objects."""
    prior = StandardNormal(dtype=dtype) if prior is None else prior
    if not isinstance(prior, Prior):
        raise TypeError(f"prior is {prior!r}; expected a kvae prior such as kvae.StandardNormal().")
    family = DiagonalNormal(dtype=dtype) if family is None else family
    if not isinstance(family, Posterior):
        raise TypeError(f"posterior_family is {family!r}; expected one of kvae.posteriors, such as FullNormal().")
    prior.check_posterior(family)
    return prior, family


def objective(model: Any, loss: Objective | None) -> Objective:
    """The loss of a VAE, by default `ELBO()`. Raises ValueError for one that the model can't minimize."""
    loss = ELBO() if loss is None else loss
    if not isinstance(loss, Objective):
        raise TypeError(f"loss is {loss!r}; a VAE's is a kvae.Objective such as kvae.ELBO(beta=1.0).")
    loss.check_model(model)
    return loss


def network_shapes(model: Any, event_shape: tuple) -> tuple[list[tuple], list[tuple]]:
    """The shapes of an encoder's and a decoder's outputs, with None for the batch."""
    codes = outputs_or_error(model.encoder, model._encoder_symbol(event_shape), "encoder")
    images = outputs_or_error(model.decoder, model._symbol(codes[0].shape[1:]), "decoder")
    return [tuple(code.shape) for code in codes], [tuple(image.shape) for image in images]


def build_encoder_and_decoder(model: Any, event_shape: tuple) -> None:
    """Check a VAE's two networks and build its posterior family. Raises ValueError if they don't fit."""
    code_shapes, image_shapes = network_shapes(model, event_shape)
    model.posterior_family.check_outputs(code_shapes)
    model.likelihood.check_outputs(image_shapes, event_shape)
    names = model.posterior_family.outputs(code_shapes[0][-1])
    warn_of_activations(model.encoder, "encoder", names, model.posterior_family)
    warn_of_activations(model.decoder, "decoder", model.likelihood.parameters, model.likelihood)
    if not model.posterior_family.built:
        model.posterior_family.build(code_shapes)
    model.latent_dim = code_shapes[0][-1]
    check_built_for("posterior", (model.posterior_family.latent_dim,), (model.latent_dim,))


def warn_of_activations(network: Any, role: str, names: Iterable[str], reader: Any) -> None:
    """Warn if an output that may have any sign, such as logits or a log-variance, ends in an activation without one.

    Args:
        network: a Keras model.
        role: what errors call it.
        names: of its outputs.
        reader: the likelihood or posterior that reads them.
    """
    for name, activation in zip(names, _compat.last_activations(network), strict=False):
        if name.startswith(_OF_ANY_SIGN) and activation in _WITHOUT_SIGN:
            arguments.warn(
                f"The {role}'s output {name!r} ends in {activation}, but {type(reader).__name__} reads a number of any "
                f"sign there and applies its own function to it. Leave the {activation} out (activation=None)."
            )


def build_densities(model: Any, event_shape: tuple, prior_dim: int) -> None:
    """Build the likelihood and the prior, over z (n, prior_dim). Raises ValueError if they don't fit."""
    build_likelihood(model, event_shape)
    if not model.prior.built:
        model.prior.build((None, prior_dim), event_shape)
    check_built_for("prior", (model.prior.latent_dim,), (prior_dim,))
    check_built_for("prior", model.prior.event_shape or event_shape, event_shape)


def build_likelihood(model: Any, event_shape: tuple) -> None:
    """Build the likelihood. Raises ValueError if another model has built it for another shape."""
    likelihood = model.likelihood
    if not likelihood.built:
        likelihood.build((None, *event_shape))
    check_built_for("likelihood", likelihood.event_shape, event_shape)
    if model.missing:
        outputs = [ops.zeros((1, *likelihood.decoder_shape(event_shape)), model.variable_dtype)]
        if not likelihood.distribution(outputs * len(likelihood.parameters)).factorizes:
            raise ValueError(
                f"missing=True leaves values out of log p(x|z), and {type(likelihood).__name__} doesn't factorize over "
                "the values of x: give its distribution a log_prob(x, observed), or use another likelihood."
            )


def outputs_or_error(network: Any, inputs: Any, role: str) -> list:
    """A network's symbolic outputs. Raises ValueError if it doesn't take these inputs or returns a dict."""
    try:
        outputs = network(inputs)
    except (ValueError, TypeError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(inputs))
        raise ValueError(
            f"The {role} doesn't take inputs of shape {shapes}, which is what it would be given here: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if isinstance(outputs, Mapping):
        raise ValueError(
            f"The {role} gives a dict with the keys {sorted(outputs)}; expected a tensor or a list of tensors, in the "
            "order [z_mean, z_log_var] of an encoder and [mean, log_var] of a decoder with two outputs."
        )
    return keras.tree.flatten(outputs)


def check_built_for(name: str, shape: tuple, expected: tuple) -> None:
    """Raise ValueError if another model has built a part for another shape."""
    if shape != expected:
        raise ValueError(f"The {name} was built for the shape {shape}, the model for {expected}: make another.")
