"""Likelihoods of counts 0, 1, 2, ..."""

import abc
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.distributions import Distribution, NegativeBinomial, Poisson, SharesOfTotal, ZeroInflated
from kvae.likelihoods.base import GAIN, Likelihood


def _log_softplus(raw):
    """log(log(1 + exp(raw))). Far below 0 this is raw, and the inner logarithm would underflow."""
    return ops.where(raw < -30.0, raw, ops.log(ops.softplus(ops.maximum(raw, -30.0))))


class CountLikelihood(Likelihood):
    discrete = True
    expected = "counts 0, 1, 2, ... as int32 or float32: uint8 means images of 0 to 255, which are scaled by 1/255"

    def __init__(self, size: str | None = None, zero_inflation: bool = False, typical_size: float = 1e4, **kwargs: Any):
        super().__init__(**kwargs)
        if size is not None:
            arguments.choice("size", size, ("total",))
        if arguments.real("typical_size", typical_size) <= 0:
            raise ValueError(f"typical_size is {typical_size!r}; expected a positive number.")
        self.size, self.typical_size, self.reads_sizes = size, typical_size, size is not None
        self.zero_inflation = arguments.boolean("zero_inflation", zero_inflation)
        if size is not None:
            self.parameters = ("raw_share",)
        if zero_inflation:
            self.parameters = (*self.parameters, "zero_logits")

    @abc.abstractmethod
    def _counts(self, log_mean, outputs) -> Any:
        """The counts with these means."""

    def distribution(self, outputs: Sequence[Tensor]) -> Distribution:
        raw = outputs[0]
        if self.size is None:
            log_mean = _log_softplus(raw)
        else:
            log_mean = raw - ops.logsumexp(raw, axis=tuple(range(1, len(raw.shape))), keepdims=True)
        counts = self._counts(log_mean, outputs)
        if self.zero_inflation:
            counts = ZeroInflated(counts, outputs[-1])
        return counts if self.size is None else SharesOfTotal(counts, self.typical_size)

    def supports(self, x: Tensor) -> Tensor:
        return ops.logical_and(x == ops.round(x), x >= 0)

    def check_data(self, x: np.ndarray) -> None:
        wrong = ~ops.convert_to_numpy(self.supports(x))
        if np.any(wrong):
            raise ValueError(f"The data hold the value {x[wrong][0]:g}; {type(self).__name__} expects {self.expected}.")

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "zero_inflation": self.zero_inflation, "typical_size": self.typical_size}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kvae")
class PoissonLikelihood(CountLikelihood):
    """p(x|z) of counts with mean and variance softplus(raw_rate). The decoder's output is raw_rate.

    With exp in place of softplus, an untrained decoder's output of 30 would be a rate above 10^13.

    The encoder reads the counts themselves, and counts of hundreds overflow its variances. Give it the logarithms of
    the counts, as in the example.

    Args:
        size: None (default), or "total": the mean of each count is its share of the sum of x, and the decoder's
            output is raw_share, with the shares softmax(raw_share). log p(x|z) is then log p(x|z, the sum of x).
        zero_inflation: bool, whether each count is 0 with a probability of its own besides. The decoder's last output
            is then zero_logits, with the probabilities sigmoid(zero_logits). Default False.
        typical_size: number > 0, the sum of x for samples and means of z with size="total". A reconstruction has the
            sum of its row. Default 10,000.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `zero_inflation` is no bool, or `typical_size` no number.
        ValueError: if an argument has another value.

    Example:

    >>> encoder = kvae.networks.dense_encoder((10,), 2, preprocessing="log1p")
    >>> model = kvae.VAE(encoder, kvae.networks.dense_decoder((10,), 2), likelihood="poisson")
    >>> p = kvae.PoissonLikelihood().distribution([ops.full((1, 1), 0.5413)])
    >>> p.mean.numpy().round(3)  # softplus(0.5413)
    array([[1.]], dtype=float32)
    """

    parameters = ("raw_rate",)

    def _counts(self, log_mean, outputs):
        return Poisson(log_mean)


@keras.saving.register_keras_serializable("kvae")
class NegativeBinomialLikelihood(CountLikelihood):
    """p(x|z) of counts with mean softplus(raw_mean) and variance mean + dispersion mean^2.

    The decoder's output is raw_mean. In the paper, on counts of genes, theta is 1 / dispersion: its likelihood is
    `NegativeBinomialLikelihood(size="total", zero_inflation=True)`. For large counts give the encoder logarithms, as
    for `PoissonLikelihood`.

    Args:
        dispersion: "feature" (default), one learned dispersion per feature; "shared", a single learned one; "decoder",
            the decoder's second output as its logarithm; or a fixed number > 0.
        initial_dispersion: number > 0, the start of a learned dispersion. Default 1.
        size: None (default), or "total": the mean of each count is its share of the sum of x, and the decoder's
            output is raw_share, with the shares softmax(raw_share). log p(x|z) is then log p(x|z, the sum of x).
        zero_inflation: bool, whether each count is 0 with a probability of its own besides. The decoder's last output
            is then zero_logits, with the probabilities sigmoid(zero_logits). Default False.
        typical_size: number > 0, the sum of x for samples and means of z with size="total". A reconstruction has the
            sum of its row. Default 10,000.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `initial_dispersion` or `typical_size` is no number, or `zero_inflation` no bool.
        ValueError: if an argument has another value.

    Example:

    >>> likelihood = kvae.NegativeBinomialLikelihood(dispersion=0.5)
    >>> p = likelihood.distribution([ops.full((1, 1), 0.5413)])
    >>> p.mean.numpy().round(3), round(float(ops.exp(p.log_dispersion)), 3)
    (array([[1.]], dtype=float32), 0.5)

    Reference:
        Lopez et al. (2018), "Deep generative modeling for single-cell transcriptomics", methods.
    """

    parameters = ("raw_mean",)

    def __init__(
        self,
        dispersion: str | float = "feature",
        initial_dispersion: float = 1.0,
        size: str | None = None,
        zero_inflation: bool = False,
        typical_size: float = 1e4,
        **kwargs: Any,
    ):
        super().__init__(size, zero_inflation, typical_size, **kwargs)
        is_fixed = arguments.is_real(dispersion, above=0)
        if not is_fixed and dispersion not in ("feature", "shared", "decoder"):
            raise ValueError(
                f"dispersion is {dispersion!r}; expected 'feature', 'shared', 'decoder' or a positive number."
            )
        if arguments.real("initial_dispersion", initial_dispersion) <= 0:
            raise ValueError(f"initial_dispersion is {initial_dispersion!r}; expected a positive number.")
        self.dispersion = float(dispersion) if is_fixed else dispersion
        self.initial_dispersion = initial_dispersion
        if dispersion == "decoder":
            self.parameters = (self.parameters[0], "log_dispersion", *self.parameters[1:])

    def build(self, input_shape: Shape) -> None:
        if self.dispersion in ("feature", "shared"):
            self.raw_log_dispersion = self.add_weight(
                name="raw_log_dispersion",
                shape=input_shape[1:] if self.dispersion == "feature" else (),
                initializer=keras.initializers.Constant(math.log(self.initial_dispersion) / GAIN),
            )
        super().build(input_shape)

    @property
    def log_dispersion(self) -> Tensor:
        """The logarithm of the dispersion, a scalar or in the shape of the features.

        Raises:
            ValueError: if the dispersion is the decoder's and depends on z.
        """
        if self.dispersion == "decoder":
            raise ValueError("The dispersion is the decoder's: ask model.decoder_distribution(z) for it.")
        if self.dispersion in ("feature", "shared"):
            return ops.convert_to_tensor(self.raw_log_dispersion) * GAIN
        return ops.convert_to_tensor(math.log(float(self.dispersion)), dtype=self.variable_dtype)

    def _counts(self, log_mean, outputs):
        return NegativeBinomial(log_mean, outputs[1] if self.dispersion == "decoder" else self.log_dispersion)

    def get_config(self) -> dict[str, Any]:
        config = {"dispersion": self.dispersion, "initial_dispersion": self.initial_dispersion}
        return {**super().get_config(), **config}
