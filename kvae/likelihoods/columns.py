"""The likelihood of a table's rows: a product of likelihoods by column."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.columns import Column, Columns
from kvae.distributions.columns import ColumnsPart, ColumnsProduct, take
from kvae.likelihoods.base import Likelihood
from kvae.likelihoods.counts import CountLikelihood
from kvae.likelihoods.gaussian import GaussianLikelihood
from kvae.likelihoods.levels import CategoricalLikelihood

_OF_KIND = {"number": "gaussian", "integer": "gaussian", "date": "gaussian", "count": "negative_binomial"}


@keras.saving.register_keras_serializable("kvae")
class ColumnsLikelihood(Likelihood):
    """p(x|z) of a table's rows: the product of a likelihood for each column, log p(x|z) = sum_j log p(x_j|z).

    x is (n, columns) as `kvae.data.from_table` gives it: numbers and counts in the table's own units, categories as
    codes 0, 1, ..., d - 1. log p(x|z) is in these units. Likelihoods of real numbers, such as the Gaussian, see
    (x - mean) / scale with the mean and scale of `columns`, and the logarithm of the scale is subtracted: it is the
    density of x itself. Means of counts start at those of `columns`.

    The decoder gives all parameters in one vector: `kvae.networks.columns_encoder` and `columns_decoder` make networks
    that fit.

    Args:
        likelihoods: {column: likelihood}, with a `Likelihood`, its name, or None for a column that is given and has no
            term, such as an exposure. Columns with one name and those with the same object share a layer, with a
            variance or dispersion for each. A category has a `CategoricalLikelihood(d)`. Or the `kvae.data.Columns` of
            a Stream: "gaussian" for numbers, "negative_binomial" for counts, and categories.
        columns: `kvae.data.Columns`, such as `stream.columns`. Default None: those of `likelihoods`, with mean 0 and
            scale 1. Columns that `likelihoods` leaves out have the default of their kind.
        sizes: {column of counts: column with their sizes}: the mean is size * softplus(raw), as of claims in a time of
            exposure. A reconstruction has the size of its row, and a sample the mean size. Default None: none.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: for unknown columns, and for likelihoods that don't describe a column.

    Example:

    >>> likelihood = kvae.ColumnsLikelihood(
    ...     {"age": "gaussian", "job": kvae.CategoricalLikelihood(12), "visits": "poisson"}
    ... )
    >>> likelihood.build((None, 3))
    >>> p = likelihood.distribution([ops.zeros((1, *likelihood.decoder_shape((3,))))])
    >>> likelihood.columns.decode(p.sample(seed=0))["job"].shape, p.log_prob(ops.array([[0.5, 3.0, 2.0]])).shape
    ((1,), TensorShape([1]))
    """

    parameters = ("raw_columns",)

    def __init__(
        self,
        likelihoods: Mapping[str, Likelihood | str | None] | Columns,
        columns: Columns | None = None,
        sizes: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(likelihoods, Columns):
            likelihoods, columns = {}, likelihoods if columns is None else columns
        given = dict(arguments.instance("likelihoods", likelihoods, Mapping, '{"age": "gaussian"}, or Columns'))
        example = "kvae.data.Columns, as a Stream of from_table has them, or None"
        arguments.instance("columns", columns, Columns | None, example)
        if columns is None:
            columns = Columns([_column(name, likelihood) for name, likelihood in given.items()])
        _validate_names("likelihoods", given, columns)
        self.columns, self.sizes = columns, dict(arguments.instance("sizes", sizes or {}, Mapping, "a dict, or None"))
        _validate_names("sizes", {**self.sizes, **{size: None for size in self.sizes.values()}}, columns)
        self.layers, self._groups = [], []  # _groups: (layer's position or None, names, alias or None)
        for name, likelihood in _grouped({c.name: given.get(c.name, _default(c)) for c in columns}, self.sizes):
            self._add(name, likelihood)
        self.discrete, self.reads_sizes = all(layer.discrete for layer in self.layers), bool(self.sizes)
        kinds: dict[str, list[str]] = {}
        for layer, names in self._constrained():
            is_category = isinstance(layer, CategoricalLikelihood)
            kinds.setdefault("codes of the categories" if is_category else layer.expected, []).extend(names)
        if self.sizes:
            kinds["sizes of at least 0"] = list(dict.fromkeys(self.sizes.values()))
        self.expected = ", and ".join(f"{what} in {_listed(names)}" for what, names in kinds.items()) or None

    def _add(self, names, likelihood):
        if likelihood is None:
            self._groups.append((None, names, None))
            return
        layer, alias = likelihood, None
        if isinstance(likelihood, str):
            layer, alias = _of_name(likelihood, dtype=self.dtype_policy), likelihood
        if not isinstance(layer, Likelihood):
            raise TypeError(
                f"likelihoods has {likelihood!r} for {names[0]!r}; expected a kvae likelihood, or its name."
            )
        if isinstance(layer, CategoricalLikelihood) and layer.levels is None:
            raise ValueError(
                f"likelihoods has a CategoricalLikelihood without levels for {names[0]!r}: give their number."
            )
        if names[0] in self.sizes and not isinstance(layer, CountLikelihood):
            raise ValueError(f"sizes has {names[0]!r}, whose likelihood is {likelihood!r}; expected one of counts.")
        if isinstance(layer, CountLikelihood) and layer.size is not None:
            raise ValueError(f"likelihoods has size={layer.size!r} for {names[0]!r}; expected None, or sizes= here.")
        self._groups.append((len(self.layers), names, alias))
        self.layers.append(layer)

    def _constrained(self):
        """(layer, names of its columns) for the layers that don't take all real numbers."""
        groups = [(self.layers[number], names) for number, names, _ in self._groups if number is not None]
        return [(layer, names) for layer, names in groups if layer.expected is not None]

    def build(self, input_shape: Shape) -> None:
        if tuple(input_shape[1:]) != (len(self.columns),):
            raise ValueError(
                f"x has the shape {tuple(input_shape)}; ColumnsLikelihood expects (n, {len(self.columns)}), the "
                f"columns {list(self.columns.names)}."
            )
        for number, names, _ in self._groups:
            if number is not None and not self.layers[number].built:
                self.layers[number].build((None, len(names)))
        super().build(input_shape)

    def _sizes_of_outputs(self):
        """The lengths of the layers' parameters in the decoder's output."""
        return [
            [int(np.prod(self.layers[number].decoder_shape((len(names),))))] * len(self.layers[number].parameters)
            for number, names, _ in self._groups
            if number is not None
        ]

    def decoder_shape(self, event_shape: Shape) -> Shape:
        if tuple(event_shape) != (len(self.columns),):
            raise ValueError(f"The shape is {tuple(event_shape)}; ColumnsLikelihood expects ({len(self.columns)},).")
        return (sum(map(sum, self._sizes_of_outputs())),)

    def distribution(self, outputs: Sequence[Tensor]) -> ColumnsProduct:
        sizes, parts, start = iter(self._sizes_of_outputs()), [], 0
        for number, names, _ in self._groups:
            positions = tuple(self.columns.names.index(name) for name in names)
            shift, scale, is_density = self._units(number, positions)
            distribution, size = None, None
            if number is not None:
                values = []
                for length in next(sizes):
                    values.append(outputs[0][:, start : start + length])
                    start += length
                distribution = self.layers[number].distribution(values)
                size = self.sizes.get(names[0])
                if isinstance(self.layers[number], CountLikelihood):
                    distribution = distribution.scaled(
                        ops.convert_to_tensor(self._log_starts(positions, size), outputs[0].dtype)
                    )
                size = None if size is None else self.columns.names.index(size)
            parts.append(ColumnsPart(distribution, positions, shift, scale, is_density, size))
        given = np.array([column.mean for column in self.columns])
        return ColumnsProduct(tuple(parts), given)

    def _log_starts(self, positions, size):
        """The logarithms of the counts' means, of each unit of size, over softplus(0): decoders start at 0."""
        means = np.array([self.columns[position].mean or np.log(2.0) for position in positions])
        unit = 1.0 if size is None else next(c.mean for c in self.columns if c.name == size) or 1.0
        return np.log(means / unit / np.log(2.0))

    def _units(self, number, positions):
        """(shift, scale, is it a density) of the columns of a group."""
        columns = [self.columns[position] for position in positions]
        shift, scale = np.zeros(len(columns)), np.ones(len(columns))
        layer: Any = None if number is None else self.layers[number]
        if isinstance(layer, CategoricalLikelihood):
            scale *= int(layer.levels or 2) - 1
        elif layer is not None and not layer.discrete and layer.expected is None:
            shift = np.array([column.mean for column in columns])
            scale = np.array([column.scale for column in columns])
        return shift, scale, layer is not None and not layer.discrete

    def supports(self, x: Tensor) -> Tensor:
        masks = []
        for number, names, _ in self._groups:
            positions = [self.columns.names.index(name) for name in names]
            shift, scale, _ = self._units(number, positions)
            shift, scale = ops.convert_to_tensor(shift, x.dtype), ops.convert_to_tensor(scale, x.dtype)
            u = (take(x, positions) - shift) / scale
            mask = ops.ones_like(u, dtype="bool") if number is None else self.layers[number].supports(u)
            is_size = np.array([name in self.sizes.values() for name in names])
            is_negative = ops.logical_and(take(x, positions) < 0, is_size)
            masks.append(ops.logical_and(ops.broadcast_to(mask, ops.shape(u)), ops.logical_not(is_negative)))
        order = np.argsort([self.columns.names.index(name) for _, names, _ in self._groups for name in names])
        return take(ops.concatenate(masks, axis=1), order.tolist())

    def check_data(self, x: np.ndarray) -> None:
        wrong = ~ops.convert_to_numpy(self.supports(ops.convert_to_tensor(x)))
        for layer, names in self._constrained():
            for name in names:
                position = self.columns.names.index(name)
                if wrong[:, position].any():
                    value = x[wrong[:, position], position][0]
                    raise ValueError(
                        f"Column {name!r} holds the value {value:g}; its likelihood expects {_expected(layer)}."
                    )

    def get_config(self) -> dict[str, Any]:
        likelihoods = [
            [names, alias or (None if number is None else keras.saving.serialize_keras_object(self.layers[number]))]
            for number, names, alias in self._groups
        ]
        config = {"likelihoods": likelihoods, "columns": self.columns.get_config(), "sizes": dict(self.sizes)}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ColumnsLikelihood":
        groups = [(names, keras.saving.deserialize_keras_object(value)) for names, value in config["likelihoods"]]
        likelihoods = {name: likelihood for names, likelihood in groups for name in names}
        return cls(**{**config, "likelihoods": likelihoods, "columns": Columns.from_config(config["columns"])})


def _column(name, likelihood):
    """The column of a likelihood, if nothing more is known of it."""
    if isinstance(likelihood, CategoricalLikelihood) and likelihood.levels is not None:
        return Column(name, "category", categories=tuple(range(likelihood.levels)))
    is_count = isinstance(likelihood, CountLikelihood) or likelihood in ("poisson", "negative_binomial")
    return Column(name, "count" if is_count else "number")


def _default(column):
    """The name of the likelihood of a column."""
    return _OF_KIND.get(column.kind) or f"categorical {max(2, len(column.categories))}"


def _of_name(name, **options):
    """A likelihood for standardized columns, with a variance or a dispersion for each."""
    if name == "gaussian":
        return GaussianLikelihood("pixel", initial_variance=0.5, min_variance=1e-4, **options)
    if name.startswith("categorical "):
        return CategoricalLikelihood(int(name.split()[1]), **options)
    made = importlib.import_module("kvae.likelihoods").get(name)
    return type(made)(**options)


def _grouped(likelihoods, sizes):
    """(names, likelihood) for each name of a likelihood, and each object, and each column of sizes."""
    groups: dict[Any, tuple[list[str], Any]] = {}
    for name, likelihood in likelihoods.items():
        key = (likelihood if isinstance(likelihood, str | None) else id(likelihood), sizes.get(name))
        groups.setdefault(key, ([], likelihood))[0].append(name)
    return list(groups.values())


def _expected(layer):
    """The values that a layer expects of a column, in words."""
    levels: Any = getattr(layer, "levels", None)
    return f"codes 0, ..., {levels - 1}" if isinstance(layer, CategoricalLikelihood) else layer.expected


def _validate_names(argument, names, columns):
    unknown = [name for name in names if name not in columns.names]
    if unknown:
        raise ValueError(f"{argument} has {unknown[0]!r}, which isn't among the columns {list(columns.names)}.")


def _listed(names):
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
