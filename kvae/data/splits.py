"""The rows of a set for training, validation and test."""

from collections.abc import Mapping

import numpy as np

from kvae.arguments import is_real


def split_rows(rows: Mapping[str, int], validation: float) -> dict[str, tuple[str, int, int] | None]:
    """{"train", "validation", "test": (split, first row, last row + 1), or None for a missing one}.

    A missing split has as many rows of "train", here the last ones: those for test come after those for validation.

    Args:
        rows: {split: its number of rows}.
        validation: the share of "train" for a missing split.

    Raises:
        ValueError: without "train", or if no row of it is left.

    Example:

    >>> from kvae.data.splits import split_rows
    >>> split_rows({"train": 100, "test": 20}, validation=0.1)["validation"]
    ('train', 90, 100)
    """
    if "train" not in rows:
        raise ValueError(f'there is no split "train": found {sorted(rows)}')
    end = rows["train"]
    share = round(end * validation)
    splits = {}
    for name in ("test", "validation"):
        splits[name] = (name, 0, rows[name]) if name in rows else None
        if splits[name] is None and share:
            splits[name] = "train", end - share, end
            end -= share
    if not end:
        raise ValueError(
            f"train has {rows['train']} rows, of which validation={validation} leaves none to train on: give a smaller "
            "share, or 0"
        )
    return {"train": ("train", 0, end), "validation": splits["validation"], "test": splits["test"]}


def random_parts(count: int, sizes: tuple[int, int], groups: np.ndarray | None = None) -> np.ndarray:
    """The part of each of `count` rows, int8: 0 for train, 1 for validation, 2 for test. Every call draws the same.

    Args:
        count: the rows.
        sizes: the rows for validation and test. With groups these are goals: the last group may go beyond them.
        groups: a value for each row, (count,); rows of one value go to one part. None for rows of their own.

    Raises:
        ValueError: if a part gets no group.
    """
    generator, parts = np.random.default_rng(0), np.zeros(count, np.int8)
    if groups is None:
        order = generator.permutation(count)
        parts[order[: sizes[0]]], parts[order[sizes[0] : sum(sizes)]] = 1, 2
        return parts
    values, group_of_row, lengths = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(values))
    part_of_group, missing = np.zeros(len(values), np.int8), list(sizes)
    for group in order:
        part = next((part for part, rows in enumerate(missing) if rows > 0), None)
        if part is None:
            break
        part_of_group[group] = part + 1
        missing[part] -= int(lengths[group])
    wanted = {0, *(part for part, size in enumerate(sizes, start=1) if size)}
    if wanted - set(part_of_group.tolist()):
        raise ValueError(
            f"there are {len(values)} groups, too few for a training, a validation and a test part of these sizes: "
            "give another group, or another validation"
        )
    return part_of_group[group_of_row.reshape(-1)]


def rows_of_part(count: int, part: str | None, validation: float) -> np.ndarray | None:
    """Which of `count` rows are a part's, bool (count,), drawn as `random_parts` draws them; None for all rows.

    Args:
        count: the rows.
        part: "train", "validation" or "test", or None for no split.
        validation: the share of the rows for validation, and for test.

    Raises:
        ValueError: for other parts, a share outside [0, 0.5), and a part without rows.
    """
    names = "train", "validation", "test"
    if part is not None and part not in names:
        raise ValueError(f"part is {part!r}, expected one of {names}, or None for all rows")
    validate_share(validation)
    if part is None:
        return None
    share = round(count * validation)
    if not (share if part != "train" else count - 2 * share):
        raise ValueError(f"{part} would have no rows, of {count} and validation={validation}: give another share")
    return random_parts(count, (share, share)) == names.index(part)


def validate_share(validation: float) -> None:
    """Raise ValueError unless `validation` is a share of the rows below a half."""
    if not is_real(validation, 0) or validation >= 0.5:
        raise ValueError(f"validation is {validation!r}, expected a share of the training images in [0, 0.5)")


def label_names(labels: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """The names of the labels that `load` was asked for. Raises TypeError unless they are texts."""
    names = [labels] if isinstance(labels, str) else () if labels is None else labels
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"labels is {labels!r}; expected the name of a label, a list of names, or None.")
    return list(names)
