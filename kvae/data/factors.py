"""Factors of variation: the known attributes of images, and what kind of value each has."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from kvae import arguments

KINDS = ("categorical", "ordered", "periodic")


@dataclasses.dataclass(frozen=True)
class Factor:
    """The kind of a factor's values.

    A periodic factor returns to its start after `period`, in the unit of its values: 1 for a hue, pi for the angle of
    a rectangle. If the period depends on a second factor, as an angle's on the shape, `given` names it.

    Args:
        kind: "categorical" for values without an order, "ordered" for numbers, "periodic" for angles and the like.
        period: of a periodic factor, a number, or {value of the factor `given`: number}.
        given: name of the second factor, or None.

    Raises:
        TypeError, ValueError: for other kinds and periods.

    Example:
        >>> hue = Factor("periodic", period=1.0)
        >>> angle = Factor("periodic", period={0: math.pi / 2, 1: math.pi}, given="shape")
        >>> angle.period_at(1) == math.pi
        True
    """

    kind: str = "ordered"
    period: float | Mapping[Any, float] | None = None
    given: str | None = None

    def __post_init__(self):
        arguments.choice("kind", self.kind, KINDS)
        if not isinstance(self.given, str | None):
            raise TypeError(f"given is {self.given!r}; expected the name of a factor, or None.")
        if (self.kind == "periodic") != (self.period is not None):
            raise ValueError(f"period is {self.period!r} for a {self.kind} factor; a periodic one has a period.")
        if isinstance(self.period, Mapping) != (self.given is not None):
            raise ValueError(f"period is {self.period!r} and given {self.given!r}; a dict of periods needs a factor.")
        periods = self.period.values() if isinstance(self.period, Mapping) else [self.period]
        for period in periods if self.kind == "periodic" else ():
            if arguments.real("period", period) <= 0:
                raise ValueError(f"period is {period!r}; expected a positive number.")

    def period_at(self, value: Any = None) -> float:
        """The period if the factor `given` has this value."""
        if not isinstance(self.period, Mapping):
            return math.inf if self.period is None else float(self.period)
        if value not in self.period:
            raise ValueError(f"period has no value for {self.given} = {value!r}; it has {list(self.period)}.")
        return float(self.period[value])
