"""Errors of a stream in one sentence instead of a page of TensorFlow's graph."""

import ast
import contextlib
import math
import re
from collections.abc import Iterator

import tensorflow as tf

NOT_FINITE, INFINITE = "NaN or infinite values", "infinite values"
NOT_FINITE_ADVICE = (
    "remove those examples (or replace the values, as np.nan_to_num does) before training; a PCA or VAE made with "
    "missing=True takes NaN as not observed"
)
LESS_MEMORY = "lower batch_size, or shuffle where the data are shuffled"

_ASSERTION = re.compile(r"assertion failed: \[(OSError|ValueError|MemoryError): (.+)\]")
_TOO_LARGE = re.compile(r"OOM when allocating tensor with shape\[([\d,]*)\] and type (\w+)")
_DTYPES = {"float": "float32", "double": "float64"}  # names in TensorFlow's messages
_PYTHON = re.compile(
    r'Traceback \(most recent call last\):\n(?P<frames>.*\n  File "[^\n]*(?:\n    [^\n]*)*)\n+'
    r"(?P<name>[A-Za-z_][\w.<>]*)(?:: (?P<message>.*?))?\n+\t \[\[\{\{node \w*PyFunc",
    re.DOTALL,
)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Context manager. Raises an error of a stream as one sentence, without TensorFlow's page of graph nodes.

    - An exception of a generator, or of another Python function that TensorFlow calls, is raised again with its type
      and message. A note lists the lines.
    - NaN in a stream with `stop_at_nonfinite` is a ValueError.
    - A failed assertion with a text such as "OSError: ..." is an OSError. The same goes for ValueError and MemoryError.
    - If memory runs out, the error states the size of the tensor.

    Example:

    >>> import tensorflow as tf
    >>> from kvae.data.errors import clear_errors
    >>> def rows():
    ...     yield 1.0
    ...     raise ValueError("the second row is lost")
    >>> stream = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec(()))
    >>> try:
    ...     with clear_errors():
    ...         list(stream)
    ... except ValueError as error:
    ...     print(error)
    the second row is lost
    """
    try:
        yield
    except tf.errors.OpError as error:
        cleared = _cleared(error)
        if cleared is None:
            raise
        raise cleared from None
    except MemoryError as error:
        if LESS_MEMORY in str(error):
            raise
        raise MemoryError(f"{error or 'not enough memory'}: {LESS_MEMORY}") from None


def _cleared(error):
    text = str(error)
    if match := _PYTHON.search(text):
        return _python_error(match["name"], match["message"] or "", match["frames"])
    if match := _ASSERTION.search(text):
        message = match[2].encode().decode("unicode_escape").encode("latin-1").decode()  # TensorFlow escapes it
        return {"OSError": OSError, "ValueError": ValueError, "MemoryError": MemoryError}[match[1]](message)
    if match := re.search(rf"([\w ]+ has (?:{NOT_FINITE}|{INFINITE}))\W*\[(\d+)\]\W*\[(\d+)\]", text):
        return ValueError(f"{match[1]} in batch {match[2]} (row {match[3]} of it, from 0 on): {NOT_FINITE_ADVICE}")
    if match := _TOO_LARGE.search(text):
        shape = [int(size) for size in match[1].split(",") if size]
        size = math.prod(shape) * tf.as_dtype(_DTYPES.get(match[2], match[2])).size
        message = f"no memory for a tensor of shape {tuple(shape)} and type {match[2]}, {size:,} bytes: {LESS_MEMORY}"
        return tf.errors.ResourceExhaustedError(None, None, message)
    return None


def _python_error(name, message, frames):
    """The exception of Python code, from the name and message at the end of its traceback."""
    kind = next((kind for kind in _subclasses(BaseException) if _full_name(kind) == name), None)
    if kind is None:
        error = RuntimeError(f"{name}: {message}" if message else name)
    elif issubclass(kind, MemoryError):
        error = MemoryError(message if LESS_MEMORY in message else f"{message or 'not enough memory'}: {LESS_MEMORY}")
    else:
        error = _instance(kind, message)
    users = [frame for frame in re.split(r'\n+(?=  File ")', frames) if "/tensorflow/python/" not in frame]
    error.add_note("It was raised in the stream, at\n" + "\n".join(frame.strip("\n") for frame in users))
    return error


def _instance(kind, message):
    """An exception of this kind with this message, whatever arguments its constructor takes."""
    try:
        argument = ast.literal_eval(message) if issubclass(kind, KeyError) else message
        error = kind.__new__(kind, argument)
        error.args = (argument,) if message else ()
        if str(error) == message:
            return error
    except Exception:  # a user's class may fail in any way
        pass
    with_message = type(kind.__name__, (kind,), {"__str__": lambda self: message, "__module__": kind.__module__})
    return with_message.__new__(with_message, message)


def _subclasses(kind):
    yield kind
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass)


def _full_name(kind):
    """The name of a class in a traceback."""
    builtin = kind.__module__ in ("__main__", "builtins")
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"
