"""What Keras' own callbacks keep from epoch to epoch, as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

_KEPT = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


def _names_kept(callback):
    return next((names for kind, names in _KEPT.items() if isinstance(callback, kind)), ())


def starts_anew(callback: Any) -> bool:
    """Whether a callback may keep something from epoch to epoch that a checkpoint doesn't have."""
    if isinstance(callback, keras.callbacks.CSVLogger):
        return not callback.append
    own = type(callback).__module__.split(".")[0] not in ("kvae", "keras")
    return own and not _names_kept(callback) and "on_epoch_end" in vars(type(callback))


def collect(callbacks: Sequence) -> tuple[list, list[np.ndarray]]:
    """The states for JSON, [class, {name: number, or the places of arrays}], and a list of these arrays."""
    states, arrays = [], []
    for callback in callbacks:
        state = {}
        for name in _names_kept(callback):
            value = getattr(callback, name, None)
            if isinstance(value, list):
                state[name] = list(range(len(arrays), len(arrays) + len(value)))
                arrays += [np.array(ops.convert_to_numpy(each)) for each in value]
            else:
                state[name] = None if value is None else float(value)
        if state:
            states.append([type(callback).__name__, state])
    return states, arrays


def _with_states(callbacks, states):
    """(callback, its saved state) of all that have one; of several of one class in their order."""
    left = list(states or ())
    found = []
    for callback in callbacks:
        saved = next((each for each in left if each[0] == type(callback).__name__), None)
        if saved is not None and _names_kept(callback):
            left.remove(saved)
            found.append((callback, saved[1]))
    return found


def has_lost_patience(callbacks: Sequence, states: list | None) -> bool:
    """Whether the saved run was ended by an `EarlyStopping` that would end it still."""
    return any(
        isinstance(callback, keras.callbacks.EarlyStopping) and state["wait"] >= callback.patience
        for callback, state in _with_states(callbacks, states)
    )


def restore(callbacks: Sequence, states: list | None, arrays: list[np.ndarray]) -> None:
    """Give the callbacks their saved states."""
    for callback, state in _with_states(callbacks, states):
        name: str
        value: Any
        for name, value in state.items():
            is_count = name in ("wait", "best_epoch", "stopped_epoch", "cooldown_counter")
            if isinstance(value, list):
                value = [arrays[number] for number in value]
            setattr(callback, name, int(value) if is_count and value is not None else value)
