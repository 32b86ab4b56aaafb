"""The rows of a set for training, validation and test."""

from collections.abc import Mapping


def split_rows(rows: Mapping[str, int], validation: float) -> dict[str, tuple[str, int, int] | None]:
    """{"train", "validation", "test": (split, first row, last row + 1), or None for a missing one}.

    A missing split is taken from the end of "train": the test rows last, as many as for validation.

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


def label_names(labels: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """The names of the labels that `load` was asked for."""
    return [labels] if isinstance(labels, str) else list(labels or ())
