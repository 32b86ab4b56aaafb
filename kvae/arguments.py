"""What constructors ask of their arguments, each in one sentence."""

import math
import numbers
import warnings


def integer_at_least(name, value, least):
    """The value as an int. Raises ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}.")
    return int(value)


def real(name, value):
    """The value as a float. Raises TypeError unless it is a real number, ValueError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number.")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a finite number.")
    return float(value)


def seed(value, random=True):
    """The seed as an int, or where it may be `random` None. Raises ValueError unless it is an integer of 32 bits."""
    if value is None and random:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= value < 2**32:
        alternative = ", or None for a random one" if random else ""
        raise ValueError(f"seed is {value!r}; expected an integer from 0 to 2**32 - 1{alternative}.")
    return int(value)


def sizes(name, values):
    """The values as a tuple of ints. Raises ValueError unless they are a sequence of integers of at least 1."""
    try:
        return tuple(integer_at_least(name, value, 1) for value in values)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} is {values!r}; expected a sequence of integers of at least 1, such as ({_such(name)})."
        ) from None


def _such(name):
    return "28, 28, 1" if name == "shape" else "64, 32"


def renamed(old, old_value, new, value):
    """The value of the argument `new`, which used to be `old`; a value given as `old` is taken, with a warning.

    Raises TypeError where both are given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise TypeError(f"{old} and {new} are both given; {old} is the old name of {new}: leave it out.")
    warn_renamed(f"{old}=", f"{new}=", stacklevel=4)
    return old_value


def warn_renamed(old, new, stacklevel=3):
    """Warn that `old` is now called `new`: the caller of the function that calls this, or of one further out."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release.", DeprecationWarning, stacklevel)
