"""One pass over the training rows of a table: means, standard deviations and categories."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kvae import arguments
from kvae.columns import Column
from kvae.data.tables.values import CellError, arrow, categories, matrix

MOST_CATEGORIES = 1_000
_EXACT, _EXACT_LABELS = 2**24, 2**53  # up to here float32, and float64, holds all whole numbers


class Fit:
    """What one pass over the training rows says of the columns.

    Args:
        columns: the columns, with their names and kinds, those of labels last.
        labels: int, the number of labels. They need a value in every row.
    """

    def __init__(self, columns: Iterable[Column], labels: int = 0):
        self.columns, self.labels = list(columns), labels
        self.first_label = len(self.columns) - labels
        self.numeric = [number for number, column in enumerate(self.columns) if column.kind != "category"]
        size = len(self.numeric)
        self.count, self.mean, self.squares = np.zeros(size), np.zeros(size), np.zeros(size)
        self.least, self.largest = np.full(size, np.inf), np.full(size, -np.inf)
        self.is_whole = np.ones(size, bool)
        self.rounded = {}  # for columns with whole numbers or times that float32 doesn't hold, one of them
        self.values = {number: set() for number, column in enumerate(self.columns) if column.kind == "category"}
        self.present, self.rows = dict.fromkeys(self.values, 0), 0

    def add(self, arrays: Any, chosen: np.ndarray | None, locate: Callable[[int], str]) -> None:
        """Count in the rows of a block.

        Args:
            arrays: an array (n, columns) of numbers, or a list of columns.
            chosen: the rows that count, bool (n,); None for all.
            locate: function from a row of the block to its file and number, for errors.
        """
        found = matrix(arrays, self.columns, locate, self.numeric)
        for place, number in enumerate(self.numeric):
            self._require(np.isnan(found[:, place]), number, locate)
        found = found if chosen is None else found[chosen]
        self.rows += len(found)
        for number, values in self.values.items():
            try:
                values = categories(arrays[number] if isinstance(arrays, list) else arrays[:, number])
            except CellError as error:
                raise ValueError(f"{locate(error.row)}: column {self.columns[number].name!r} {error}") from None
            self._require(values.is_null().to_numpy(zero_copy_only=False), number, locate)
            values = values if chosen is None else values.filter(arrow(chosen))
            self.present[number] += len(values) - values.null_count
            self.values[number].update(values.drop_null().unique().to_pylist())
            if len(self.values[number]) > MOST_CATEGORIES:
                name = self.columns[number].name
                raise ValueError(
                    f"{locate(0).rsplit(', row', 1)[0]}: column {name!r} has more than {MOST_CATEGORIES:,} categories, "
                    "as names of people or rows have: leave it out with columns="
                )
        if not len(found) or not self.numeric:
            return
        is_present = ~np.isnan(found)
        count = is_present.sum(0)
        mean = np.where(is_present, found, 0).sum(0) / np.maximum(count, 1)
        squares = np.where(is_present, np.square(found - mean), 0).sum(0)
        total = np.maximum(self.count + count, 1)
        shift = np.where(count > 0, mean - self.mean, 0)
        self.squares += squares + np.square(shift) * self.count * count / total  # Chan, Golub and LeVeque 1979
        self.mean += shift * count / total
        self.count += count
        self.least = np.minimum(self.least, np.where(is_present, found, np.inf).min(0))
        self.largest = np.maximum(self.largest, np.where(is_present, found, -np.inf).max(0))
        self._note_rounded(found)
        self.is_whole &= (~is_present | (found == np.rint(found))).all(0)

    def _note_rounded(self, found):
        is_large = np.maximum(self.largest, -self.least) > _EXACT
        for place, number in enumerate(self.numeric):
            is_date = self.columns[number].kind == "date"
            if number >= self.first_label or number in self.rounded or not (is_date or is_large[place]):
                continue
            values = found[:, place]
            error = np.abs(values.astype("float32") - values)
            wrong = error > 1 / 86_400 if is_date else (error > 0) & (values == np.rint(values))
            if wrong.any():
                self.rounded[number] = float(values[np.argmax(wrong)])

    def _require(self, is_missing, number, locate):
        if number >= self.first_label and is_missing.any():
            name = self.columns[number].name
            raise ValueError(f"{locate(int(np.argmax(is_missing)))}: label {name!r} has no value: leave the row out")

    def fitted(self, source: Any) -> list[Column]:
        """The columns with their statistics. Raises ValueError for one without a value, warns of constant ones."""
        columns, constant = [], []
        for number, column in enumerate(self.columns):
            options: dict[str, Any] = {"name": column.name, "kind": column.kind}
            if column.kind == "category":
                known: Any = self.values[number]
                present = self.present[number]
                if all(isinstance(value, float) and value.is_integer() for value in known):
                    known = {int(value) for value in known}  # integers beside missing values
                if all(isinstance(value, str) and value.lower() in ("false", "true") for value in known):
                    known = {value.lower() == "true" for value in known}  # however they are spelled
                _warn_of_spellings(source, column.name, known)
                options["categories"] = tuple(sorted(known))
                is_constant = len(known) == 1
            else:
                place = self.numeric.index(number)
                present = self.count[place]
                is_constant = self.least[place] == self.largest[place]
                scale = 1.0 if is_constant else float(np.sqrt(self.squares[place] / max(present, 1)))
                if column.kind == "number" and self.is_whole[place]:
                    options["kind"] = "integer"
                options.update(mean=float(self.mean[place]), scale=scale or 1.0)
            if number >= self.first_label and options["kind"] in ("integer", "count") and self._beyond(number):
                raise ValueError(
                    f"{source}: label {column.name!r} holds whole numbers of 2^53 and more, which aren't read exactly: "
                    "give it as texts, or leave it out"
                )
            if not present:
                raise ValueError(
                    f"{source}: column {column.name!r} has no value in the {self.rows:,} training rows: leave it out "
                    "with columns="
                )
            constant += [column.name] if is_constant and number < self.first_label else []
            columns.append(Column(missing=1 - float(present) / self.rows, **options))
        self._warn_of_rounded(source, columns)
        if constant:
            arguments.warn(
                f"{source}: column {constant[0]!r}{f' and {len(constant) - 1} more' if constant[1:] else ''} "
                "holds one value in all training rows and tells nothing of a row: leave it out with columns=."
            )
        return columns

    def _beyond(self, number):
        place = self.numeric.index(number)
        return max(self.largest[place], -self.least[place]) >= _EXACT_LABELS

    def _warn_of_rounded(self, source, columns):
        for number, value in self.rounded.items():
            column, stored = columns[number], float(np.float32(value))
            if column.kind in ("integer", "count"):
                arguments.warn(
                    f"{source}: column {column.name!r} holds {value:.0f}, which x, of float32, holds as {stored:.0f}: "
                    "names and keys of rows become alike. Leave them out with columns=, or make them categories."
                )
            if column.kind == "date":
                seconds = 86_400 * abs(stored - value)
                arguments.warn(
                    f"{source}: column {column.name!r} holds times, which x, days of float32, rounds, here by "
                    f"{seconds:.0f} s: give a number of hours or seconds since a date of your own."
                )


def _warn_of_spellings(source, name, known):
    """Warn of texts that differ in their case alone."""
    spellings: dict[str, str] = {}
    for value in sorted(known) if all(isinstance(value, str) for value in known) else ():
        other = spellings.setdefault(value.casefold(), value)
        if other != value:
            arguments.warn(
                f"{source}: column {name!r} has the categories {other!r} and {value!r}, which differ in their case "
                "alone: write them alike if they are one."
            )
            return
