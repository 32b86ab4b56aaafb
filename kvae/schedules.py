"""Weights of the KL as functions of the optimizer's step, for `kvae.ELBO(beta=...)`."""

from typing import Any

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Tensor


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Base class of weights that rise to `end` during the first steps or the first share of a run.

    A run starts at the optimizer's first step and ends with the last epoch of the current `fit`. Outside of a run, as
    in the evaluation of a loaded model, a warm-up by share is over and the weight is `end`.

    Args:
        steps: number > 0, the optimizer's steps until the weight stays at `end`; or None.
        share: number > 0, the warm-up's share of the run; or None.
        end: number > 0, the weight after the warm-up.

    Raises:
        ValueError: if a number isn't above 0.
    """

    def __init__(self, steps: float | None, share: float | None, end: float):
        for name, value in (("steps", steps), ("share", share), ("end", end)):
            if (value is not None or name == "end") and not arguments.is_real(value, above=0):
                raise ValueError(f"{name} is {value!r}; expected a number above 0.")
        self.steps, self.share, self.end = steps, share, end
        self.length = keras.Variable(steps or 0, dtype="float32", trainable=False, name="warm_up_steps")

    def begin(self, steps: int | None) -> None:
        """Set the warm-up's length before the run's first step. `fit` calls it.

        Args:
            steps: int, the number of the run's last step, or None if the run's length is unknown.

        Raises:
            ValueError: if the warm-up is a share of a run of unknown length.
        """
        if self.share is None:
            return
        if steps is None:
            raise ValueError(
                "The KL's warm-up is a share of the run, whose length isn't known: give steps_per_epoch, a stream of "
                "known length (tf.data.experimental.assert_cardinality), or the warm-up in steps."
            )
        self.length.assign(self.share * steps)

    def progress(self, step: Tensor) -> Tensor:
        """Return min(step / length, 1), a scalar: 1 from the end of the warm-up on."""
        length = ops.convert_to_tensor(self.length)
        step = ops.cast(step, length.dtype)
        return ops.where(step < length, step / ops.maximum(length, 1.0), 1.0)


@keras.saving.register_keras_serializable("kvae")
class LinearWarmUp(WarmUp):
    """beta(step) = end * min(step / steps, 1): the KL's weight rises from 0 to `end`.

    Args:
        steps: number > 0, the length in steps of the optimizer. Give either this or `share`.
        share: number > 0, the length as a share of the run, such as 0.25.
        end: number > 0, the weight after the warm-up. Default 1.

    Raises:
        ValueError: if both or none of `steps` and `share` are given, or a number isn't above 0.

    Example:

    >>> beta = kvae.schedules.LinearWarmUp(steps=1_000)
    >>> [float(beta(step)) for step in (0, 500, 2_000)]
    [0.0, 0.5, 1.0]
    >>> objective = kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.25))

    Reference:
        Bowman et al. (2016), "Generating sentences from a continuous space", section 3.1; Sønderby et al. (2016),
        "Ladder variational autoencoders".
    """

    def __init__(self, steps: float | None = None, share: float | None = None, end: float = 1.0):
        if (steps is None) == (share is None):
            raise ValueError(f"steps is {steps!r} and share {share!r}; expected one of the two.")
        super().__init__(steps, share, end)

    def __call__(self, step: Tensor) -> Tensor:
        return self.end * self.progress(step)

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "share": self.share, "end": self.end}


@keras.saving.register_keras_serializable("kvae")
class CyclicalWarmUp(WarmUp):
    """Linear warm-ups one after the other. After each, the weight stays at `end` until the next begins.

    Args:
        cycles: int >= 1, the number of warm-ups (M in the paper). Default 4.
        ramp: number in (0, 1], the share of a cycle during which the weight rises (R in the paper). Default 0.5.
        steps: number > 0, the optimizer's steps in all cycles together; None (default) for the run's. Later steps
            have the weight `end`.
        end: number > 0, the largest weight. Default 1.

    Raises:
        TypeError: if `ramp` is no number.
        ValueError: if an argument is out of its range.

    Example:

    >>> beta = kvae.schedules.CyclicalWarmUp(cycles=2, ramp=0.5, steps=100)
    >>> [round(float(beta(step)), 2) for step in (0, 10, 25, 40, 50, 60, 100)]
    [0.0, 0.4, 1.0, 1.0, 0.0, 0.4, 1.0]

    Reference:
        Fu et al. (2019), "Cyclical annealing schedule: a simple approach to mitigating KL vanishing", equations 6
        and 7.
    """

    def __init__(self, cycles: int = 4, ramp: float = 0.5, steps: float | None = None, end: float = 1.0):
        if not 0 < arguments.real("ramp", ramp) <= 1:
            raise ValueError(f"ramp is {ramp!r}; expected a share of a cycle in (0, 1].")
        super().__init__(steps, 1.0 if steps is None else None, end)
        self.cycles, self.ramp = arguments.integer_at_least("cycles", cycles, 1), float(ramp)

    def __call__(self, step: Tensor) -> Tensor:
        progress = self.progress(step)
        within = ops.mod(self.cycles * progress, 1.0)
        return self.end * ops.where(progress < 1, ops.minimum(within / self.ramp, 1.0), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"cycles": self.cycles, "ramp": self.ramp, "steps": self.steps, "end": self.end}
