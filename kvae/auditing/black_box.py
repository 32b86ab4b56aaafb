"""A loss function as a black box: how it is called, in which precision, and the number that it gives."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kvae import arguments

_FORMS = {  # the kinds of tensors that code may want, the most exact first
    "tensors of float64": lambda values: keras.ops.convert_to_tensor(values, dtype="float64"),
    "arrays of float64": lambda values: np.asarray(values, "float64"),
    "tensors of float32": lambda values: keras.ops.convert_to_tensor(np.asarray(values, "float32")),
    "arrays of float32": lambda values: np.asarray(values, "float32"),
}
_TOTALS = "loss", "total_loss", "total"  # keys of a dict
# What code calls the five, without underscores.
_NAMES = (
    {"x", "ytrue", "input", "inputs", "target", "targets", "image", "images", "data", "original", "xtrue"},
    {"reconstruction", "xrecon", "reconx", "recon", "reconstructed", "output", "outputs", "ypred", "xhat", "decoded"},
    {"zmean", "mu", "mean", "zmu"},
    {"zlogvar", "logvar", "zlogvariance", "logvariance", "zlogsigma", "logsigma"},
    {"z"},
)
_EXPECTED = "expected loss(x, reconstruction, z_mean, z_log_var), or with a fifth argument z, that returns a number"


class BlackBox:
    """A loss function that is called with numbers or arrays in place of tensors, and gives one float.

    Several examples give the mean of the returned values, divided by rows^power: `power` is 1 for a sum over the batch.
    `log_var` is z_log_var where none is given: 0, or 1 for a loss that isn't finite at 0.

    Args:
        loss: function of (x, reconstruction, z_mean, z_log_var) or with a fifth argument, z.
        event_shape: tuple of ints, the shape of one x.
        latent_dim: int, the size of z.
        reconstruction_shapes: list of tuples, the shape of each of the decoder's outputs, or None to find out.
        samples: int k for z (n, k, latent_dim) and reconstructions (n, k, ...), or None for one without an axis.

    Raises:
        TypeError: if the loss is no function.
        ValueError: if it can't be called, or doesn't return a number.
    """

    def __init__(
        self,
        loss: Callable,
        event_shape: tuple[int, ...],
        latent_dim: int,
        reconstruction_shapes: Sequence[tuple[int, ...]] | None = None,
        samples: int | None = None,
    ):
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(f"loss is {loss!r}; {_EXPECTED}.")
        self.loss, self.event_shape, self.latent_dim = loss, event_shape, latent_dim
        self._call = by_position(loss)
        self.takes_z, self.samples = _takes_z(loss), samples if _takes_z(loss) else None
        self.features = math.prod(event_shape)
        self.calls, self.power, self.log_var = 0, 0.0, 0.0
        self._find_form(reconstruction_shapes)
        self.rows = self._rows()
        self.returns = self._shape_of_result()
        self.exact = self._is_exact()
        if not math.isfinite(self(0.5, 0.4)):
            self.log_var = 1.0

    def __call__(
        self, x: Any, output: Any, mean: Any = 0.0, log_var: Any = None, z: Any = None, rows: int | None = None
    ) -> float:
        """The loss of `rows` examples as a float, nan if it raises. Arguments broadcast; `output` may be a list."""
        try:
            return self._value(x, output, mean, log_var, z, rows)
        except Exception:  # of code that refuses some values of x
            return math.nan

    def _value(self, x, output, mean=0.0, log_var=None, z=None, rows=None):
        rows, log_var = rows or self.rows, self.log_var if log_var is None else log_var
        values = np.asarray(_total(self._raw(x, output, mean, log_var, z, rows)), "float64")
        return float(np.mean(values)) / rows**self.power

    def each(self, x: np.ndarray, output: Any) -> np.ndarray:
        """The loss of each of several x (n, *event_shape) on its own, (n,), nan where it raises."""
        if self.returns == "a number an example" and not self.power:
            try:
                return np.asarray(_total(self._raw(x, output, 0.0, self.log_var, None, len(x))), "float64")
            except Exception:  # of code that refuses some values of x
                return np.full(len(x), math.nan)
        values = np.full(len(x), math.nan)
        for row, one in enumerate(x):
            values[row] = self(one, output)
            if not math.isfinite(values[row]):
                break
        return values

    @property
    def is_learned(self) -> bool:
        """Whether the reconstruction is a list of two: a location and the logarithm of a scale."""
        return len(self.shapes) == 2

    @property
    def is_event(self) -> bool:
        """Whether each of the decoder's outputs has the shape of x."""
        return all(shape == self.event_shape for shape in self.shapes)

    def noise(self, *values: float) -> float:
        """The rounding error to expect in the difference of two values such as these."""
        return 8 * float(np.finfo("float64" if self.exact else "float32").eps) * max(1e-3, *map(abs, values))

    def _raw(self, x, output, mean, log_var, z, rows):
        draws = () if self.samples is None else (self.samples,)
        outputs = output if isinstance(output, list) else [output] * len(self.shapes)
        given = [
            self._convert(_spread(values, (rows, *draws, *shape), len(draws)))
            for values, shape in zip(outputs, self.shapes, strict=True)
        ]
        code = (self.latent_dim,)
        sent = [
            self._convert(_spread(x, (rows, *self.event_shape))),
            given[0] if len(given) == 1 else given,
            self._convert(_spread(mean, (rows, *code))),
            self._convert(_spread(log_var, (rows, *code))),
        ]
        if self.takes_z:
            z = mean if z is None else z
            sent.append(self._convert(_spread(z, (rows, *draws, *code), len(draws) if np.ndim(z) < 3 else 0)))
        self.calls += 1
        return self._call(*sent)

    def _find_form(self, shapes):
        alone, pair = [self.event_shape], [self.event_shape] * 2
        first = None
        dims = {*self.event_shape, self.latent_dim, self.samples}
        rows = next(n for n in (5, 7, 11, 13, 17, 19, 23) if n not in dims)
        for self.shapes in [alone, pair] if shapes is None else [list(shapes)]:
            for self.form, self._convert in _FORMS.items():
                try:
                    value = self._value(0.5, 0.4, rows=rows)
                except _Unusable as error:
                    raise ValueError(str(error)) from None
                except Exception as error:  # of code that someone wrote for other tensors
                    first = first or error
                    continue
                if self(0.5, 0.4, rows=rows) != value and not math.isnan(value):
                    raise ValueError(
                        "loss gives different numbers for equal arguments: let it draw nothing at random, and take z "
                        "as a fifth argument if it needs one."
                    )
                return
        message = (str(first).strip().splitlines() or [""])[0]
        raise ValueError(
            f"loss can't be called with x {(rows, *self.event_shape)}, a reconstruction of that shape or a list of "
            f"two, and z_mean and z_log_var {(rows, self.latent_dim)}: {type(first).__name__}: {message[:200]}; "
            f"{_EXPECTED}."
        )

    def _rows(self):
        """A number of rows that is no other size, so that rows aren't taken for something else."""
        dims = {*self.event_shape, self.latent_dim, self.samples, *(n for shape in self.shapes for n in shape)}
        return next(n for n in (3, 5, 7, 11, 13, 17) if not dims & {n, 2 * n, 4 * n})

    def _shape_of_result(self):
        shape = np.shape(_total(self._raw(0.5, 0.4, 0.0, 0.0, None, self.rows)))
        if math.prod(shape) == 1:
            return "a number"
        if shape == (self.rows,):
            return "a number an example"
        return f"shape (n{''.join(f', {size}' for size in shape[1:])}{',' if len(shape) == 1 else ''})"

    def _is_exact(self):
        """Whether the numbers have the precision of float64: a smooth function's second difference is tiny."""
        steps = [self(0.5, 0.4 + 1e-6 * k, 0.3 + 1e-6 * k, 0.2) for k in range(9)]
        second = np.abs(np.diff(steps, 2))
        return "64" in self.form and float(np.max(second)) <= 1e-9 * max(1e-6, abs(steps[0]))


class _Unusable(Exception):
    """A result that is no number."""


def _total(result):
    """The loss in what the function returned. Raises `_Unusable` if there is none."""
    if isinstance(result, Mapping):
        found = next((key for key in _TOTALS if key in result), None)
        if found is None:
            raise _Unusable(f"loss returned a dict with the keys {sorted(map(str, result))}; {_EXPECTED}.")
        return result[found]
    if isinstance(result, tuple | list):
        raise _Unusable(
            f"loss returned a {type(result).__name__} of {len(result)}; {_EXPECTED}. If the first is the total: "
            "audit(lambda *arguments: loss(*arguments)[0], ...)."
        )
    if result is None:
        raise _Unusable(f"loss returned None; {_EXPECTED}.")
    return result


def _takes_z(loss):
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return len([each for each in positional if each.default is each.empty or each.name == "z"]) >= 5


def by_position(loss: Callable) -> Callable:
    """A function of x, reconstruction, z_mean, z_log_var (and z) in this order: by name if the names are well known."""
    names = _keywords(loss)
    return loss if names is None else lambda *sent: loss(**dict(zip(names, sent, strict=True)))


def _keywords(loss):
    """The names of the arguments in the order of x, reconstruction, z_mean, z_log_var (and z), if each is known."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return None
    required = [each for each in parameters if each.default is each.empty or each.name == "z"]
    kinds = {each.kind for each in required}
    if not kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        return None
    plain = {each.name.replace("_", "").lower(): each.name for each in required}
    found = [[name for short, name in plain.items() if short in names] for names in _NAMES]
    known = [names[0] for names in found if len(names) == 1]
    return known if len(known) == len(required) and len(known) in (4, 5) and all(len(n) < 2 for n in found) else None


def _spread(values, shape, draws=0):
    """An array of the shape; values (n, ...) get the axis of the draws if `draws` is 1."""
    values = np.asarray(values, "float64")
    if draws and values.ndim == len(shape) - 1:
        values = np.expand_dims(values, 1)
    return np.ascontiguousarray(np.broadcast_to(values, shape))


def shapes_of(reconstruction_shape: Any) -> list[tuple[int, ...]] | None:
    """The argument as a list of shapes. Raises ValueError for anything but None, a shape or a list of shapes."""
    if reconstruction_shape is None:
        return None
    is_list = isinstance(reconstruction_shape, list | tuple) and any(np.ndim(s) == 1 for s in reconstruction_shape)
    shapes = reconstruction_shape if is_list else [reconstruction_shape]
    return [arguments.sizes("reconstruction_shape", shape) for shape in shapes]
