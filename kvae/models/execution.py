"""How many steps `fit` gives TensorFlow at a time."""

import math

import keras

_MOST_STEPS = 20
_MULTIPLY_ADDS = 4e9  # about a tenth of a second of one core
_START = 30  # calls that cost what an iterator does


def steps_per_execution(model, batch_size, callbacks, counts=(), epoch=None):
    """The steps of one call: as many as take a tenth of a second or so, at most 20, and 1 where each must be seen.

    A step costs Python about a millisecond, which is nothing to a large network and half the time of a small one. It
    is 1 for eager models, where a callback looks at every batch, and for gradients that are accumulated or summed
    over replicas, which Keras doesn't take in groups. A callback with `most_steps` looks at groups of up to so many.
    counts: numbers of steps that were asked for, or None: all are divided, since Keras takes whole groups. epoch: the
    steps of one, or None: they are divided too where the calls that it adds cost less than an iterator for each.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    accumulates = getattr(model.optimizer, "gradient_accumulation_steps", None)
    if model.run_eagerly or replicas > 1 or accumulates or any(map(_sees_batches, callbacks)):
        return 1
    most = min([_MOST_STEPS, *(callback.most_steps for callback in callbacks if hasattr(callback, "most_steps"))])
    cost = 3 * batch_size * multiply_adds(model)  # forward once, backward twice
    most = divisor(max(1, min(most, round(_MULTIPLY_ADDS / max(cost, 1)))), counts)
    fewer = divisor(most, [*counts, epoch])
    return fewer if (epoch or 0) * (1 / fewer - 1 / most) <= _START else most


def divisor(most, counts):
    """The largest number up to `most` that divides all counts; None and 0 among them are divided by any."""
    return next(steps for steps in range(most, 0, -1) if not any((count or 0) % steps for count in counts))


def multiply_adds(layer):
    """Of one example on its way through a layer and the layers within: those of its dense and convolution kernels."""
    within = getattr(layer, "_layers", ())
    return _own_multiply_adds(layer) + sum(map(multiply_adds, within))


def _own_multiply_adds(layer):
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    try:
        places = [math.prod(tensor.shape[1:-1]) for tensor in (layer.input, layer.output)]
    except (AttributeError, ValueError, TypeError):  # a layer that wasn't called on symbols doesn't tell its shapes
        places = [1]
    # A convolution's kernel goes over its output, a transposed one's over its input: the smaller, as a rule.
    transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    return math.prod(kernel.shape) * places[0 if transposed else -1]


def _sees_batches(callback):
    if isinstance(callback, keras.callbacks.ProgbarLogger) or getattr(callback, "save_freq", None) == "epoch":
        return False
    if hasattr(callback, "most_steps"):
        return False
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    inherited = keras.callbacks.Callback
    return any(
        hook in vars(callback) or getattr(type(callback), hook) is not getattr(inherited, hook) for hook in hooks
    )
