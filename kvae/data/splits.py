"""Which rows of a set are for training, validation and test."""


def split_rows(rows, validation):
    """{"train", "validation", "test": (split, first row, last row + 1), or None for what there isn't}.

    What is missing is taken from the end of "train": the test rows last, as many as for validation.

    Args:
        rows: {split: int}.
        validation: the share of "train".

    Raises:
        ValueError: where there is no "train", or no row of it is left.
    """
    if "train" not in rows:
        raise ValueError(f'there is no split "train": found {sorted(rows)}')
    end = rows["train"]
    share = round(end * validation)
    found = {}
    for part in ("test", "validation"):
        found[part] = (part, 0, rows[part]) if part in rows else None
        if found[part] is None and share:
            found[part] = "train", end - share, end
            end -= share
    if not end:
        raise ValueError(
            f"train has {rows['train']} rows, of which validation={validation} leaves none to train on: give a smaller "
            "share, or 0"
        )
    return {"train": ("train", 0, end), "validation": found["validation"], "test": found["test"]}
