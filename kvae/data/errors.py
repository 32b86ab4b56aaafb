"""What went wrong while a stream was read, told in one sentence instead of a page of TensorFlow's graph."""

import ast
import contextlib
import math
import re

import tensorflow as tf

NOT_FINITE = "NaN or infinite values"
NOT_FINITE_ADVICE = "remove those examples (or replace the values, as np.nan_to_num does) before training"
LESS_MEMORY = "lower batch_size, or shuffle where the data are shuffled"

_TOLD = re.compile(r"assertion failed: \[(OSError|ValueError|MemoryError): (.+)\]")
_TOO_LARGE = re.compile(r"OOM when allocating tensor with shape\[([\d,]*)\] and type (\w+)")
_NAMES = {"float": "float32", "double": "float64"}  # in messages
_PYTHON = re.compile(
    r'Traceback \(most recent call last\):\n(?P<frames>.*\n  File "[^\n]*(?:\n    [^\n]*)*)\n+'
    r"(?P<name>[A-Za-z_][\w.<>]*)(?:: (?P<words>.*?))?\n+\t \[\[\{\{node \w*PyFunc",
    re.DOTALL,
)


@contextlib.contextmanager
def clear_errors():
    """Within it errors of a stream are raised as what they are, not as TensorFlow's page of graph nodes.

    What a generator, or a function that TensorFlow calls, raised is raised again, its type and message the same, with
    the lines where it was raised as a note. NaN in a stream guarded by `stop_at_nonfinite` is a ValueError. An
    assertion whose text begins with OSError, ValueError or MemoryError is that error. Memory that couldn't be had is
    the same error, with the bytes of what was too large.
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
    if found := _PYTHON.search(text):
        return _original(found["name"], found["words"] or "", found["frames"])
    if found := _TOLD.search(text):
        words = found[2].encode().decode("unicode_escape").encode("latin-1").decode()  # as TensorFlow escapes them
        return {"OSError": OSError, "ValueError": ValueError, "MemoryError": MemoryError}[found[1]](words)
    if found := re.search(rf"([\w ]+ has {NOT_FINITE})\W*\[(\d+)\]\W*\[(\d+)\]", text):
        return ValueError(f"{found[1]} in batch {found[2]} (row {found[3]} of it, from 0 on): {NOT_FINITE_ADVICE}")
    if found := _TOO_LARGE.search(text):
        shape = [int(size) for size in found[1].split(",") if size]
        size = math.prod(shape) * tf.as_dtype(_NAMES.get(found[2], found[2])).size
        words = f"no memory for a tensor of shape {tuple(shape)} and type {found[2]}, {size:,} bytes: {LESS_MEMORY}"
        return tf.errors.ResourceExhaustedError(None, None, words)
    return None


def _original(name, words, frames):
    """The exception that Python raised, by the name and the words that its traceback ends with."""
    kind = next((kind for kind in _kinds(BaseException) if _full_name(kind) == name), None)
    if kind is None:
        error = RuntimeError(f"{name}: {words}" if words else name)
    elif issubclass(kind, MemoryError):
        error = MemoryError(words if LESS_MEMORY in words else f"{words or 'not enough memory'}: {LESS_MEMORY}")
    else:
        error = _made(kind, words)
    own = [frame for frame in re.split(r'\n+(?=  File ")', frames) if "/tensorflow/python/" not in frame]
    error.add_note("It was raised in the stream, at\n" + "\n".join(frame.strip("\n") for frame in own))
    return error


def _made(kind, words):
    """An exception of this kind with these words, whatever its constructor wants."""
    try:
        argument = ast.literal_eval(words) if issubclass(kind, KeyError) else words
        error = kind.__new__(kind, argument)
        error.args = (argument,) if words else ()
        if str(error) == words:
            return error
    except Exception:  # of a user's class
        pass
    told = type(kind.__name__, (kind,), {"__str__": lambda self: words, "__module__": kind.__module__})
    return told.__new__(told, words)


def _kinds(kind):
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def _full_name(kind):
    """As a traceback prints it."""
    return (
        kind.__qualname__ if kind.__module__ in ("__main__", "builtins") else f"{kind.__module__}.{kind.__qualname__}"
    )
