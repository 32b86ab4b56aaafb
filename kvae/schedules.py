"""Weights of the KL as functions of the optimizer's step, for `kvae.ELBO(beta=...)`."""

import math
import numbers

import keras
from keras import ops

from kvae import arguments


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that rises to `end` within some steps, or within a share of the run that `fit` starts.

    The run begins with the optimizer's first step and ends with the last epoch of the `fit` at hand. Outside of a run,
    as when a loaded model is evaluated, a share of it counts as over.
    """

    def __init__(self, steps, share, end):
        for name, value in (("steps", steps), ("share", share), ("end", end)):
            known = isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value < math.inf
            if value is not None and not known:
                raise ValueError(f"{name} is {value!r}; expected a number above 0.")
        self.steps, self.share, self.end = steps, share, end
        self.length = keras.Variable(steps or 0, dtype="float32", trainable=False, name="warm_up_steps")

    def begin(self, steps):
        """Called before the first step. steps: the number of the run's last, or None where it isn't known."""
        if self.share is None:
            return
        if steps is None:
            raise ValueError(
                "The KL's warm-up is a share of the run, whose length isn't known: give steps_per_epoch, a stream of "
                "known length (tf.data.experimental.assert_cardinality), or the warm-up in steps."
            )
        self.length.assign(self.share * steps)

    def progress(self, step):
        """step / length, from 0 to 1 at the end of the warm-up, where it stays."""
        length = ops.convert_to_tensor(self.length)
        step = ops.cast(step, length.dtype)
        return ops.where(step < length, step / ops.maximum(length, 1.0), 1.0)


@keras.saving.register_keras_serializable("kvae")
class LinearWarmUp(WarmUp):
    """end * min(step / steps, 1): from no KL at all to all of it (Bowman et al. 2016; Sønderby et al. 2016).

    Args:
        steps: of the optimizer, or None.
        share: of the run in its place, such as 0.25.
        end: the weight after that.

    Raises:
        ValueError: where neither or both of steps and share are given, or one isn't above 0.
    """

    def __init__(self, steps=None, share=None, end=1.0):
        if (steps is None) == (share is None):
            raise ValueError(f"steps is {steps!r} and share {share!r}; expected one of the two.")
        super().__init__(steps, share, end)

    def __call__(self, step):
        return self.end * self.progress(step)

    def get_config(self):
        return {"steps": self.steps, "share": self.share, "end": self.end}


@keras.saving.register_keras_serializable("kvae")
class CyclicalWarmUp(WarmUp):
    """Several linear warm-ups one after the other, each followed by some steps at the full weight.

    Fu et al. (2019), "Cyclical annealing schedule", equations 6 and 7.

    Args:
        cycles: int, M in the paper.
        ramp: the share of a cycle in which the weight rises, R in the paper, at most 1.
        steps: of the optimizer, for all cycles together; None is the run's. The weight is `end` after them.
        end: the weight at the end of each cycle.

    Raises:
        ValueError: for a number of cycles below 1, or a ramp that isn't in (0, 1].
    """

    def __init__(self, cycles=4, ramp=0.5, steps=None, end=1.0):
        if not 0 < arguments.real("ramp", ramp) <= 1:
            raise ValueError(f"ramp is {ramp!r}; expected a share of a cycle in (0, 1].")
        super().__init__(steps, 1.0 if steps is None else None, end)
        self.cycles, self.ramp = arguments.integer_at_least("cycles", cycles, 1), float(ramp)

    def __call__(self, step):
        progress = self.progress(step)
        within = ops.mod(self.cycles * progress, 1.0)
        return self.end * ops.where(progress < 1, ops.minimum(within / self.ramp, 1.0), 1.0)

    def get_config(self):
        return {"cycles": self.cycles, "ramp": self.ramp, "steps": self.steps, "end": self.end}
