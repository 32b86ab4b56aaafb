"""How many steps `fit` gives TensorFlow in one call: a step costs Python a millisecond, half of a small network's."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from kvae import _compat, replicas

_TRACED = "train_function", "test_function", "predict_function"
_MOST_STEPS = 20
_MULTIPLY_ADDS = 4e9  # about a tenth of a second of one core
_CALLS_OF_AN_ITERATOR = 30  # starting an iterator costs as much as these calls


class StepGroups:
    """How many steps a model runs in one call, and the functions that Keras has traced for each such number.

    Args:
        model: a Keras model.
        is_automatic: bool, whether `fit`, `evaluate` and `predict` choose the number.
    """

    def __init__(self, model: Any, is_automatic: bool):
        self.model, self.is_automatic = model, is_automatic
        self._traced, self._is_fitting = {}, False

    def use(self, steps: int) -> None:
        """Run `steps` steps in one call from now on."""
        model = self.model
        if steps != model.steps_per_execution:
            self._traced[model.steps_per_execution] = {name: getattr(model, name) for name in _TRACED}
            model.steps_per_execution = steps
            functions = self._traced.get(steps) or self._over_replicas(steps)
            for name in _TRACED:
                setattr(model, name, functions.get(name))

    def _over_replicas(self, steps):
        """The functions that Keras can't make: groups of steps over several replicas."""
        model, strategy = self.model, self.model.distribute_strategy
        if steps == 1 or strategy.num_replicas_in_sync == 1:
            return {}
        chosen = {"train_function": model.train_step, "test_function": model.test_step}
        return {name: replicas.steps_together(step, strategy, steps) for name, step in chosen.items()}

    @contextlib.contextmanager
    def that_divide(self, steps: int | None) -> Iterator[None]:
        """Context manager: groups that divide `steps`. A `fit` whose callback evaluates then goes on with its own.

        Over several replicas the steps are taken one by one, since a group there doesn't see the end of the data.
        """
        before = self.model.steps_per_execution
        if self.is_automatic:
            self.use(1 if self.model.distribute_strategy.num_replicas_in_sync > 1 else divisor(before, [steps]))
        try:
            yield
        finally:
            self.use(before)

    @contextlib.contextmanager
    def kept_for_another_fit(self) -> Iterator[None]:
        """Context manager: a `fit` that a callback of another one calls leaves it its groups.

        Over several replicas the next call after a `fit` begins with single steps.
        """
        before, is_nested, self._is_fitting = self.model.steps_per_execution, self._is_fitting, True
        try:
            yield
        finally:
            self._is_fitting = is_nested
            if is_nested:
                self.use(before)
            elif self.is_automatic and self.model.distribute_strategy.num_replicas_in_sync > 1:
                self.use(1)


def steps_per_execution(
    model: Any,
    batch_size: int,
    callbacks: Iterable,
    counts: Sequence[int | None] = (),
    epoch: int | None = None,
) -> int:
    """The steps of one call: as many as take a tenth of a second, from 1 to 20.

    It is 1 for eager models, for callbacks that look at every batch, and for accumulated gradients: Keras doesn't take
    these in groups. A callback with `most_steps` looks at groups of up to that size.

    Args:
        model: built and compiled.
        batch_size: int.
        callbacks: Keras callbacks.
        counts: step counts that the group size must divide, since Keras runs whole groups; None among them is
            divided by any.
        epoch: the steps of an epoch, or None. The group size divides them too if the extra calls cost less than an
            iterator for each epoch.
    """
    accumulates = getattr(model.optimizer, "gradient_accumulation_steps", None)
    if model.run_eagerly or accumulates or any(map(_sees_batches, callbacks)):
        return 1
    most = min([_MOST_STEPS, *(callback.most_steps for callback in callbacks if hasattr(callback, "most_steps"))])
    cost = 3 * batch_size * multiply_adds(model)  # one pass forward, about two backward
    most = divisor(max(1, min(most, round(_MULTIPLY_ADDS / max(cost, 1)))), counts)
    fewer = divisor(most, [*counts, epoch])
    return fewer if (epoch or 0) * (1 / fewer - 1 / most) <= _CALLS_OF_AN_ITERATOR else most


def divisor(most: int, counts: Sequence[int | None]) -> int:
    """The largest number up to `most` that divides all counts; None and 0 are divided by any."""
    return next(steps for steps in range(most, 0, -1) if not any((count or 0) % steps for count in counts))


def multiply_adds(layer: Any) -> int:
    """The multiply-adds of one example in the dense and convolution kernels of a layer and the layers within."""
    kernels = [(each, getattr(each, "kernel", None)) for each in (layer, *_compat.layers_within(layer))]
    return sum(math.prod(kernel.shape) * _positions(each) for each, kernel in kernels if kernel is not None)


def _positions(layer: Any) -> int:
    """How often a kernel is applied: at each position of a convolution's output, or a transposed one's input."""
    try:
        positions = [math.prod(tensor.shape[1:-1]) for tensor in (layer.input, layer.output)]
    except (AttributeError, ValueError, TypeError):  # a layer that was never called on symbols knows no shapes
        return 1
    return positions[0 if isinstance(layer, keras.layers.Conv2DTranspose) else -1]


def _sees_batches(callback: Any) -> bool:
    """Whether a callback looks at every batch."""
    if isinstance(callback, keras.callbacks.ProgbarLogger) or getattr(callback, "save_freq", None) == "epoch":
        return False
    if hasattr(callback, "most_steps"):
        return False
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    inherited = keras.callbacks.Callback
    return any(
        hook in vars(callback) or getattr(type(callback), hook) is not getattr(inherited, hook) for hook in hooks
    )
