"""The columns of a table: their names, their kinds, and what one pass over the training rows says of their values."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import keras
import numpy as np

from kvae import arguments

KINDS = "number", "integer", "count", "category", "date"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: str.
        kind: "number"; "integer", a number whose values are whole; "count", a whole number >= 0; "category", of which x
            has the code, its position in `categories`; or "date", of which x has the days since 1970-01-01.
        mean, scale: mean and standard deviation in the training rows, in the unit of x. The scale of a constant column
            is 1.
        missing: the share of the training rows without a value.
        categories: tuple of the category's values, texts, numbers or bools, in the order of their codes.

    Example:

    >>> kvae.data.Column("job", "category", categories=("cook", "nurse")).categories[1]
    'nurse'
    """

    name: str
    kind: str = "number"
    mean: float = 0.0
    scale: float = 1.0
    missing: float = 0.0
    categories: tuple = ()

    def __post_init__(self):
        arguments.instance("name", self.name, str, "a text")
        arguments.choice("kind", self.kind, KINDS)
        arguments.real("mean", self.mean)
        arguments.real("missing", self.missing, 0)
        if arguments.real("scale", self.scale) <= 0:
            raise ValueError(f"scale is {self.scale!r}; expected a positive number.")
        arguments.instance("categories", self.categories, list | tuple, "a tuple of texts, numbers or bools")
        object.__setattr__(self, "categories", tuple(self.categories))

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Values of x as they were in the table: texts, integers, dates. NaN becomes None or NaT.

        Args:
            values: array of floats (n,). Integers and counts stay floats if there is a NaN among them.
        """
        is_missing = np.isnan(values)
        if self.kind == "category":
            codes = np.clip(np.nan_to_num(np.rint(values)), 0, len(self.categories) - 1).astype(int)
            decoded = np.array(self.categories)[codes]
            if is_missing.any():
                decoded = decoded.astype(object)
                decoded[is_missing] = None
            return decoded
        if self.kind == "date":
            seconds = np.rint(np.nan_to_num(np.asarray(values, "float64")) * 86_400).astype("datetime64[s]")
            return np.where(is_missing, np.datetime64("NaT", "s"), seconds)
        if self.kind in ("integer", "count"):
            whole = np.rint(values)
            return whole if is_missing.any() else whole.astype(np.int64)
        return np.asarray(values)


@keras.saving.register_keras_serializable("kvae")
class Columns(Sequence):
    """The columns of x, fitted to the training rows: a sequence of `Column`.

    `kvae.data.from_table` makes them, and a Stream keeps them as `columns`. A `ColumnsLikelihood` saves them with its
    model, so that a loaded model's `likelihood.columns` read new files as the training file was read:
    `kvae.data.from_table("new.csv", columns=model.likelihood.columns)`.

    Args:
        columns: sequence of `Column`, in the order of x's last axis.
        labels: sequence of `Column`, those of y. Default (): none.

    Raises:
        TypeError: for other things than columns.
        ValueError: for a name that is given twice.

    Example:

    >>> columns = kvae.data.Columns([
    ...     kvae.data.Column("age", "integer"), kvae.data.Column("job", "category", categories=("cook", "nurse"))
    ... ])
    >>> columns.names, columns.decode(np.array([[31.2, 1.0]]))
    (('age', 'job'), {'age': array([31]), 'job': array(['nurse'], dtype='<U5')})
    """

    def __init__(self, columns: Sequence[Column], labels: Sequence[Column] = ()):
        for name, given in (("columns", columns), ("labels", labels)):
            arguments.instance(name, given, list | tuple, 'a list of columns, such as [kvae.data.Column("age")]')
        for column in (*columns, *labels):
            arguments.instance("columns", column, Column, 'a kvae.data.Column, such as Column("age")')
        self.columns, self.labels = tuple(columns), tuple(labels)
        validate_unique([column.name for column in (*self.columns, *self.labels)], "columns")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @overload
    def __getitem__(self, index: int) -> Column: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Column, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        return self.columns[index]

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and (self.columns, self.labels) == (other.columns, other.labels)

    def __hash__(self) -> int:
        return hash((self.columns, self.labels))

    def __repr__(self) -> str:
        return f"Columns({', '.join(f'{column.name}: {column.kind}' for column in self.columns)})"

    def decode(self, x: Any) -> dict[str, np.ndarray]:
        """The columns of x by name, as they were in the table: {name: array (n,)}. `pandas.DataFrame` takes it.

        Args:
            x: array (n, columns), such as a model's `sample(n, noise=True)` gives.

        Raises:
            ValueError: for an array of another shape.
        """
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self):
            raise ValueError(f"x has the shape {x.shape}; expected (n, {len(self)}), a value for each of the columns.")
        return {column.name: column.decode(x[:, number]) for number, column in enumerate(self.columns)}

    def get_config(self) -> dict[str, Any]:
        """Keras' hook: the arguments, for JSON."""
        parts = {"columns": self.columns, "labels": self.labels}
        return {part: [_config(column) for column in columns] for part, columns in parts.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Columns":
        """Keras' hook: the Columns of a `config` from `get_config`."""
        return cls(**{part: [Column(**column) for column in columns] for part, columns in config.items()})


def _config(column):
    return {**dataclasses.asdict(column), "categories": list(column.categories)}


def validate_unique(names: Sequence[str], source: Any) -> None:
    """Raise ValueError for a name that stands twice."""
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ValueError(f"{source} has two columns named {twice!r}: give each a name of its own")
