"""The weights of a page without a kernel: two bytes a number, rounded so that the networks change little."""

import base64
import zlib
from typing import Any

import numpy as np
from keras import ops

_STEP = 2**-8.5  # of rounded matrices, in their standard deviations
SMALL = 2**14  # numbers of a matrix that isn't worth rounding


class Weights:
    """Arrays for a page, two bytes a number: indices stand for them in the description of a network.

    Most are float16. Vectors, such as biases, and small matrices are sums of two float16. They take little space, and
    images are nearly twice as exact. Large matrices with known inputs are whole multiples of a step, see `rounded`.
    Compressed they take four fifths of the space of float16.

    Args:
        exact_size: the most numbers of a matrix that is a sum of two float16.
    """

    def __init__(self, exact_size: int = 0):
        self.exact_size = exact_size
        self.entries: list[list[float]] = []  # [float16 a number, or 1 of whole numbers; their step, or 0; *shape]
        self._parts: list[np.ndarray] = []

    def add(self, values: Any, inputs: np.ndarray | None = None) -> int:
        """The index of an array, given examples of a matrix's inputs. Raises ValueError if it is beyond float16."""
        values = ops.convert_to_numpy(values)
        with np.errstate(over="ignore"):
            halves = np.asarray(values, np.float16)
        if not np.isfinite(halves).all():
            raise ValueError(
                f"A number of the model is {np.abs(values).max():g}; a page holds float16, which ends at 65,504: scale "
                "the data."
            )
        if inputs is not None and values.ndim == 2 and values.size > SMALL:
            numbers, step = rounded(values, inputs)
            self.entries.append([1, step, *numbers.shape])
            self._parts.append(numbers.ravel().view(np.uint16))
            return len(self.entries) - 1
        is_exact = halves.ndim < 2 or (halves.ndim == 2 and halves.size <= self.exact_size)
        self.entries.append([1 + is_exact, 0, *halves.shape])
        self._parts.append(halves.ravel().view(np.uint16))
        if is_exact:
            self._parts.append(np.asarray(values - halves.astype(values.dtype), np.float16).ravel().view(np.uint16))
        return len(self.entries) - 1

    def text(self) -> str:
        """All arrays: first the low bytes of all numbers, then the high ones, compressed by zlib, in base64."""
        numbers = np.concatenate([np.empty(0, np.uint16), *self._parts]).astype("<u2")
        planes = numbers.view(np.uint8).reshape(-1, 2).T.tobytes()
        compressors = [zlib.compressobj(9, strategy=strategy) for strategy in (zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)]
        return base64.b64encode(min((each.compress(planes) + each.flush() for each in compressors), key=len)).decode()


def rounded(kernel: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, float]:
    """A matrix as whole multiples of a step, such that inputs @ kernel changes little.

    The rows are rounded one after the other. Those that are left make up for the error so far, as far as the inputs
    are correlated. On codes and images like the inputs the outputs are then as exact as with float16.

    Args:
        kernel: (d, k).
        inputs: (n, d), examples.

    Returns:
        (int16 numbers (d, k), step).

    Reference: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh. GPTQ. 2023. Algorithm 1.
    """
    kernel, inputs = np.array(kernel, np.float64), np.array(inputs, np.float64)
    step = _STEP * max(float(kernel.std()), 1e-12)
    moments = inputs.T @ inputs / len(inputs)
    moments += (0.1 * np.trace(moments) / len(moments) + 1e-6) * np.eye(len(moments))
    upper = np.linalg.cholesky(np.linalg.inv(moments)).T
    numbers = np.empty(kernel.shape, np.int16)
    for row in range(len(kernel)):
        numbers[row] = np.clip(np.rint(kernel[row] / step), -32768, 32767)
        error = (kernel[row] - step * numbers[row]) / upper[row, row]
        kernel[row + 1 :] -= np.outer(upper[row, row + 1 :], error)
    return numbers, step
