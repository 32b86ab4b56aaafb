"""Likelihoods of counts 0, 1, 2, ..."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.distributions.counts import NegativeBinomial, Poisson
from kvae.likelihoods.base import GAIN, Likelihood


def _log_softplus(raw):
    """log(log(1 + exp(raw))), which far below 0 is raw: the inner logarithm would come to nothing there."""
    return ops.where(raw < -30.0, raw, ops.log(ops.softplus(ops.maximum(raw, -30.0))))


class _CountLikelihood(Likelihood):
    discrete = True
    expected = "counts 0, 1, 2, ... as int32 or float32: uint8 means images of 0 to 255, which are scaled by 1/255"

    def supports(self, x):
        return ops.logical_and(x == ops.round(x), x >= 0)

    def check_data(self, x):
        wrong = ~ops.convert_to_numpy(self.supports(x))
        if np.any(wrong):
            raise ValueError(f"The data hold the value {x[wrong][0]:g}; {type(self).__name__} expects {self.expected}.")


@keras.saving.register_keras_serializable("kvae")
class PoissonLikelihood(_CountLikelihood):
    """Counts with mean and variance softplus(raw_rate), the decoder's output.

    softplus rather than exp: an untrained decoder's outputs of some tens would be rates beyond 10^10. The encoder reads
    the counts as they are, and counts of hundreds overflow its variances: give it their logarithms,
    `keras.Model(x, dense_encoder(shape, latent_dim)(keras.ops.log1p(x)))` with `x = keras.Input(shape)`.
    """

    parameters = ("raw_rate",)

    def distribution(self, outputs):
        return Poisson(_log_softplus(outputs[0]))


@keras.saving.register_keras_serializable("kvae")
class NegativeBinomialLikelihood(_CountLikelihood):
    """Counts with mean softplus(raw_mean), the decoder's output, and variance mean + dispersion mean^2.

    The likelihood of counts of genes in Lopez et al. (2018), "Deep generative modeling for single-cell
    transcriptomics", without the zero inflation; their inverse dispersion theta is 1 / dispersion. Of large counts the
    encoder wants the logarithms, as `PoissonLikelihood` says.

    Args:
        dispersion: "feature", one learned for each feature; "shared", one learned; "decoder", the decoder's second
            output, its logarithm; or a positive number, fixed.
        initial_dispersion: of a learned dispersion, before training.

    Raises:
        ValueError: for a dispersion that is none of these, or an initial one that isn't positive.
    """

    parameters = ("raw_mean",)

    def __init__(self, dispersion="feature", initial_dispersion=1.0, **kwargs):
        super().__init__(**kwargs)
        fixed = isinstance(dispersion, numbers.Real) and not isinstance(dispersion, bool)
        if not (_is_positive(dispersion) if fixed else dispersion in ("feature", "shared", "decoder")):
            raise ValueError(
                f"dispersion is {dispersion!r}; expected 'feature', 'shared', 'decoder' or a positive number."
            )
        arguments.real("initial_dispersion", initial_dispersion)
        if not _is_positive(initial_dispersion):
            raise ValueError(f"initial_dispersion is {initial_dispersion!r}; expected a positive number.")
        self.dispersion = float(dispersion) if fixed else dispersion
        self.initial_dispersion = initial_dispersion
        if dispersion == "decoder":
            self.parameters = ("raw_mean", "log_dispersion")

    def build(self, input_shape):
        if self.dispersion in ("feature", "shared"):
            self.raw_log_dispersion = self.add_weight(
                name="raw_log_dispersion",
                shape=input_shape[1:] if self.dispersion == "feature" else (),
                initializer=keras.initializers.Constant(math.log(self.initial_dispersion) / GAIN),
            )
        super().build(input_shape)

    @property
    def log_dispersion(self):
        """The logarithm of the dispersion where it doesn't depend on z: a scalar, or the features' shape."""
        if self.dispersion == "decoder":
            raise ValueError("The dispersion is the decoder's: ask model.decoder_distribution(z) for it.")
        if self.dispersion in ("feature", "shared"):
            return ops.convert_to_tensor(self.raw_log_dispersion) * GAIN
        return ops.convert_to_tensor(math.log(self.dispersion), dtype=self.variable_dtype)

    def distribution(self, outputs):
        log_dispersion = outputs[1] if self.dispersion == "decoder" else self.log_dispersion
        return NegativeBinomial(_log_softplus(outputs[0]), log_dispersion)

    def get_config(self):
        config = {"dispersion": self.dispersion, "initial_dispersion": self.initial_dispersion}
        return {**super().get_config(), **config}


def _is_positive(value):
    return math.isfinite(value) and value > 0
