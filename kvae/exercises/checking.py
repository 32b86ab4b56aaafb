"""How a reader's function is checked: by properties, each with a hint for those who lack it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Open(Exception):
    """The reader hasn't written anything yet."""


def check(answer: Callable, properties: Callable[[Callable], Iterator[tuple[Any, str]]]) -> None:
    """Print the hint of the first property that fails, or "right"."""
    try:
        for holds, hint in properties(answer):
            if not holds:
                print("not yet:", hint)
                return
    except Open:
        print(f"not yet: {answer.__name__} returns None; replace the dots.")
    except Exception as error:  # of the reader's code
        print(f"not yet: {answer.__name__} stopped with {type(error).__name__}: {str(error).splitlines()[0]}")
    else:
        print("right")


def given(found: Any) -> Any:
    """A result that isn't None."""
    if found is None:
        raise Open
    return found


def near(found: Any, expected: Any, rtol: float = 1e-3) -> bool:
    """Whether a result has the expected shape and values."""
    found = np.asarray(given(found), "float64")
    return found.shape == np.shape(expected) and bool(np.allclose(found, expected, rtol=rtol, atol=1e-6))


def log_normal(x: Any, mean: Any, sigma: Any) -> np.ndarray:
    """log N(x; mean, sigma^2), number by number."""
    return -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
