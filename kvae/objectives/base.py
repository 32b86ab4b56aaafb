"""What every objective is, and weights that change in the course of a run."""

from __future__ import annotations

import abc
import math
import warnings
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Tensor
from kvae.schedules import WarmUp

if TYPE_CHECKING:
    from kvae.objectives.bounds import Draw

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


class Objective(abc.ABC):
    """Base class of objectives: each maps a `Draw` and the optimizer's step to losses (n,), in nats.

    A subclass defines `__call__` and `get_config`, and `samples` unless one z per example is enough.

    Attributes:
        samples: int, the z per example in the draw. Default 1.
        doubly_reparameterized: bool, passed to `model.draw`. Default False.
        keep_posterior: bool, passed to `model.draw`. Default False.
        depends_on_step: bool, True if the loss of one draw changes in the course of a run. Default False.

    Example:

    >>> class ReconstructionOnly(kvae.Objective):
    ...     def __call__(self, draw, step=0):
    ...         return draw.reconstruction_loss
    ...     def get_config(self):
    ...         return {}
    >>> ReconstructionOnly().samples
    1
    """

    samples: int = 1
    doubly_reparameterized: bool = False
    keep_posterior: bool = False
    depends_on_step: bool = False

    @abc.abstractmethod
    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        """Return the loss of each example, (n,), in nats.

        Args:
            draw: `Draw` of n examples.
            step: int scalar, the optimizer's step. Default 0.
        """

    def begin(self, steps: int | None) -> str | None:
        """Prepare a run. `fit` calls it before the first step.

        Args:
            steps: int, the number of the run's last step, or None if the run's length is unknown.

        Returns:
            str, a sentence for `fit` to print, or None.
        """
        return None

    def check_model(self, model: Any) -> None:
        """Raise ValueError if the objective doesn't suit a VAE. The model's `compile` and `build` call it."""
        return None

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in a serializable form."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return an objective from `config`, the result of `get_config`."""
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def posterior_of(model: Any) -> Any:
    """Return q(z|x) of a built model for a single x of zeros."""
    symbol = model._symbol(model.event_shape, model.variable_dtype)
    return model.posterior(
        keras.tree.map_structure(lambda tensor: ops.zeros((1, *tensor.shape[1:]), tensor.dtype), symbol)
    )


def kl_groups(model: Any) -> int:
    """Return the number of terms of a model's KL in closed form, at most one per latent; 0 without a closed form."""
    kl = model.prior.kl_divergence(posterior_of(model))
    return 0 if kl is None else kl.shape[1]


# Weights that are numbers or schedules


def number_or_schedule(name: str, value: Any) -> Any:
    """Return an argument's value: a Keras schedule, or a number >= 0 as a float. Raises as `arguments.real`."""
    if isinstance(value, Schedule):
        return value
    return arguments.real(name, value, 0, " or a Keras schedule (keras.optimizers.schedules)")


def value_at(value: Any, step: Tensor, dtype: str) -> Tensor:
    """Return the value of a number or a schedule at the optimizer's `step`, a scalar of this dtype."""
    return ops.cast(value(step) if callable(value) else value, dtype)


def serialized(value: Any) -> Any:
    """Return a number or a schedule in a serializable form."""
    return keras.saving.serialize_keras_object(value) if callable(value) else value


def begin_schedule(
    schedule: Any, steps: int | None, name: str, usual: float | None = None, below_1: str = ""
) -> str | None:
    """Prepare a schedule for a run. Warns if the run is too short for it.

    Args:
        schedule: a number, for which there is nothing to do, or a Keras schedule.
        steps: int, the number of the run's last step, or None if the run's length is unknown.
        name: str, of its value in messages, such as "KL's weight".
        usual: number, the last value that needs no message. Default None: the schedule's end.
        below_1: str, the end of a message for a last value below 1. Default "".

    Returns:
        str, a sentence for `fit` to print, or None.
    """
    if not callable(schedule):
        return None
    schedule = cast(Any, schedule)
    if isinstance(schedule, WarmUp):
        schedule.begin(steps)
    has_length, when = steps is not None, "when this run ends after step"
    if steps is None:  # the schedule's length, if it has one
        steps = math.ceil(getattr(schedule, "steps", None) or getattr(schedule, "decay_steps", 10_000))
        when = "if this run, whose length isn't known, gets to step"
    final = float(schedule(steps))
    end = getattr(schedule, "end", getattr(schedule, "end_learning_rate", final))
    message = f"The {name} will be {final:.3g} {when} {steps:,}"
    meaning = below_1 if final < 0.999 else ""
    if has_length and not math.isclose(final, end, rel_tol=1e-3):
        advice = "Train longer, or give the warm-up as a share of the run."
        warnings.warn(f"{message}, not {end:g}{meaning}. {advice}", stacklevel=3)
        return None
    is_usual = has_length and math.isclose(final, end if usual is None else usual, rel_tol=1e-3)
    return None if is_usual else f"{message}{meaning}."
