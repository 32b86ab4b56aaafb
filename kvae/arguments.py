"""Checks of arguments, aliases for old names, and types for signatures."""

import math
import numbers
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeGuard, overload

import keras
import numpy as np

# Keras has no type for the tensors of its backends: this name tells readers, and pyright takes any value.
Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[Any, ...]  # of ints, with None for the batch
Seed: TypeAlias = int | keras.random.SeedGenerator
_NOT_THE_USERS = "kvae", "keras", "tensorflow", "contextlib", "functools"


def is_integer(value: object, least: float = -math.inf) -> TypeGuard[int]:
    """Return True if a value is an integer of Python or numpy, at least `least`, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(value: object, least: float = -math.inf, above: float = -math.inf) -> TypeGuard[float]:
    """Return True if a value is a finite real number, at least `least` and above `above`, and no bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return False
    return float(value) >= least and float(value) > above


def integer_at_least(name: str, value: object, least: int) -> int:
    """Return an argument's value as an int. Raises ValueError, with its name, unless it is an integer >= `least`."""
    if not is_integer(value, least):
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}.")
    return int(value)


def real(name: str, value: object, least: float | None = None, alternative: str = "") -> float:
    """Return the value as a float.

    Args:
        name: str, the argument's name in messages.
        value: the argument.
        least: number or None (default), the smallest value allowed.
        alternative: str, further kinds of allowed values, for the message, such as " or a schedule".

    Raises:
        TypeError: if the value is no real number.
        ValueError: if it isn't finite, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number{alternative}.")
    if not is_real(value, -math.inf if least is None else least):
        bound = "" if least is None else f" of at least {least:g}"
        raise ValueError(f"{name} is {value!r}; expected a finite number{bound}{alternative}.")
    return float(value)


def boolean(name: str, value: object) -> bool:
    """Return an argument's value as a bool. Raises TypeError, with its name, unless it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; expected True or False.")
    return bool(value)


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return an argument's value. Raises ValueError, with its name, unless it is one of the texts in `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, choices))}.")
    return value


def verbosity(value: Any) -> Any:
    """Return the value of `verbose`. Raises ValueError unless it is "auto", a bool, 0, 1 or 2."""
    is_number = isinstance(value, bool | np.bool_) or (is_integer(value, 0) and value <= 2)
    if not is_number and not (isinstance(value, str) and value == "auto"):
        raise ValueError(f"verbose is {value!r}; expected 'auto', 0, 1 or 2.")
    return value


def instance(name: str, value: Any, kind: Any, example: str) -> Any:
    """Return an argument's value. Raises TypeError, with its name and an example, unless it is one of the class `kind`.

    A class in place of its object gets a message of its own.
    """
    if not isinstance(value, kind):
        found = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"{name} is {found}; expected {example}.")
    return value


def array(name: str, value: Any) -> np.ndarray:
    """Return an argument's value as an array of real numbers. Raises TypeError, with its name, for other things."""
    try:
        found = np.asarray(value)
    except ValueError:
        raise TypeError(f"{name} is a ragged {type(value).__name__}; expected an array of numbers.") from None
    if found.dtype.kind not in "biuf":
        shown = repr(value) if found.ndim == 0 else f"a {type(value).__name__} of {found.dtype}"
        raise TypeError(f"{name} is {shown}; expected an array of numbers.")
    return found


def path(name: str, value: Any) -> Any:
    """Return a path. Raises TypeError unless the value is one, and ValueError for addresses such as gs://bucket.

    Args:
        name: str, the argument's name in messages.
        value: the argument: str or `os.PathLike`.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {value!r}; expected a path, a str or a pathlib.Path.")
    if re.match(r"[A-Za-z][\w+.-]+:/", os.fspath(value)):  # pathlib makes one slash of two
        address = os.fspath(value).partition("?")[0]  # what follows may be a signature
        raise ValueError(
            f"{name} is {address!r}; kvae reads and writes local folders alone: save in one, then upload it, "
            "or download it before reading."
        )
    return value


@overload
def seed(value: object, random: Literal[False]) -> int: ...
@overload
def seed(value: object, random: bool = True) -> int | None: ...
def seed(value: Any, random: bool = True) -> int | None:
    """Return a seed's value as an int, or None if `random` allows it. Raises ValueError for other values."""
    if value is None and random:
        return None
    if not is_integer(value, 0) or value >= 2**32:
        alternative = ", or None for a random one" if random else ""
        raise ValueError(f"seed is {value!r}; expected an integer from 0 to 2**32 - 1{alternative}.")
    return int(value)


def sizes(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """Return values as a tuple of ints. Raises ValueError, with the argument's name, unless they are integers >= 1."""
    try:
        return tuple(integer_at_least(name, value, 1) for value in values)
    except (TypeError, ValueError):
        example = {"shape": "28, 28, 1", "size": "64, 64", "dims": "0, 1"}.get(name, "64, 32")
        raise ValueError(
            f"{name} is {values!r}; expected a sequence of integers of at least 1, such as ({example})."
        ) from None


def renamed(old: str, old_value: Any, new: str, value: Any) -> Any:
    """Return the value of an argument, given under its new name or, with a DeprecationWarning, under its old one.

    Args:
        old: str, the old name.
        old_value: the value given under the old name, or None.
        new: str, the new name.
        value: the value given under the new name, or None.

    Raises:
        TypeError: if both are given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise TypeError(f"{old} and {new} are both given; {old} is the old name of {new}: leave it out.")
    warn_renamed(f"{old}=", f"{new}=", stacklevel=4)
    return old_value


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is now called `new`. With the default stacklevel the warning is at the caller's caller."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release.", DeprecationWarning, stacklevel)


def renamed_attribute(old: str, new: str) -> property:
    """Return a property `old` for the attribute or method `new`, with a DeprecationWarning.

    In a class body: `steps = renamed_attribute("steps", "num_batches")`.
    """

    def get(self):
        warn_renamed(f"{type(self).__name__}.{old}", f"{type(self).__name__}.{new}")
        return getattr(self, new)

    return property(get, doc=f"Old name of `{new}`.")


def renamed_method(old: str, new: str) -> Callable:
    """Return a method `old` that calls the method `new`, with a DeprecationWarning.

    Keras reads all attributes of a model that it saves, so a property would warn then.
    """

    def call(self, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", f"{type(self).__name__}.{new}")
        return getattr(self, new)(*args, **kwargs)

    call.__name__, call.__doc__ = old, f"Old name of `{new}`."
    return call


def renamed_in_module(module: str, names: dict[str, tuple[str, Callable[[], Any]]]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for renamed or moved objects, with a DeprecationWarning.

    Args:
        module: str, the module's `__name__`.
        names: dict from an old name to (new name with its module, function without arguments for the object).
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new, load = names[name]
        warn_renamed(f"{module}.{name}", new)
        return load()

    return get


def warn(message: str) -> None:
    """Warn with `message` at the user's line: the first caller outside of kvae, Keras, TensorFlow and contextlib."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
