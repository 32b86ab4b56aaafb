"""`load`: a folder of packed data, or an image set of tensorflow-datasets, as three Streams."""

import os

from kvae import arguments
from kvae.data import packed, tfds_sets
from kvae.data.elements import validate_batch_size, validate_damaged, validate_shuffle
from kvae.data.packed.stores import CACHE_BYTES
from kvae.data.splits import label_names, validate_share
from kvae.data.stream import Stream


def load(
    name: str | os.PathLike,
    batch_size: int = 128,
    *,
    labels: str | list[str] | tuple[str, ...] | None = None,
    validation: float = 0.1,
    shuffle: int = 10_000,
    seed: int | None = 0,
    damaged: str = "error",
    split: str = "random",
    group: str | None = None,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    cache_bytes: int = CACHE_BYTES,
    **config,
) -> tuple[Stream, Stream | None, Stream | None]:
    """(train, validation, test) of packed data or of an image set of tensorflow-datasets.

    Each is a `Stream` of known length with batches of uint8 images (n, height, width, channels). The last batch may be
    smaller. Sets that store 0 and 1 (dsprites) give 0 and 255. Packed data keep their shape and dtype. A
    set is prepared first if it isn't yet.

    Args:
        name: a folder written by `pack`, a path or an address such as s3://bucket/folder, or the name of a set, such
            as "mnist". Two need no download: "sprites", colored shapes, and "drawn_digits", grey images of 28x28
            pixels, are drawn by kvae.
        batch_size: int. Default 128.
        labels: None for x alone, the name of a feature for (x, y), several names for (x, {name: y}).
        validation: the share of "train" for validation if the set has no such split, in [0, 0.5). A missing "test"
            has the same size. 0 leaves out missing splits: they are None. Default 0.1.
        split: how missing splits of packed data are taken from "train". "random" draws their rows, the same in every
            call (of more than a gigabyte, blocks of 256 KB, so that no part reads the others' rows). "end" takes the
            last rows: those of the last classes, if the rows are sorted by class. Sets of tensorflow-datasets, which
            are shuffled when they are prepared, always give their last rows.
        group: None, or the name of a column of packed data: rows with the same number there, such as a person's or a
            film's, go to the same part, which is then drawn by group.
        shuffle: images in the shuffle buffer for train; validation and test keep the stored order. Sets of
            tensorflow-datasets hold them as compressed files, packed data as pixels. Files or blocks of them are
            shuffled as well. 0 keeps the stored order. Default 10,000.
        seed: int, decides on the order with the epoch; None draws one.
        damaged: "error", or "skip" for packed data alone. "skip" reads all files at once and leaves out damaged
            blocks of some 256 KB. A warning says how many rows are missing. The other rows stay in their split.
        data_dir: the folder of tensorflow-datasets; None for its default.
        cache_dir: for packed data at an address, a local folder that keeps blocks of them for later epochs. Default
            None: every epoch reads all from there.
        cache_bytes: int, the most bytes in it. Default 16 GiB.
        config: size, examples, config_seed and pairs of "sprites" (see `SpritesConfig`); examples and config_seed of
            "drawn_digits". With pairs=True and labels="partner" the sprites come in pairs, for `kvae.AdaGVAE`.

    Raises:
        TypeError: for unknown keywords.
        ValueError: for a set without images of one shape, unknown labels, or a share outside [0, 0.5) or too large
            to leave anything to train on.
        OSError: if the set can't be prepared, or if files are damaged.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kvae.data.pack(np.zeros((100, 8, 8, 1), "uint8"), folder, progress=False)
    ...     [stream.num_batches for stream in kvae.data.load(folder, batch_size=20)]
    [4, 1, 1]
    """
    validate_batch_size(batch_size)
    validate_shuffle(shuffle)
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name is {name!r}, expected a folder or the name of a set")
    validate_share(validation)
    validate_damaged(damaged)
    if not isinstance(data_dir, str | os.PathLike | None):
        raise TypeError(f"data_dir is {data_dir!r}, expected a folder")
    if not isinstance(group, str | None):
        raise TypeError(f"group is {group!r}, expected the name of a column of packed data, or None")
    label_names(labels)
    arguments.integer_at_least("cache_bytes", cache_bytes, 1)
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise TypeError(f"cache_dir is {cache_dir!r}, expected a folder, or None")
    options = {"labels": labels, "validation": validation, "shuffle": shuffle, "seed": seed}
    if split not in ("random", "end") or (group is not None and split == "end"):
        raise ValueError(f'split is {split!r} and group {group!r}, expected "random", or "end" without a group')
    if packed.is_packed(name):
        if config or data_dir:
            raise TypeError(f"load of packed data takes no {sorted(config) or ['data_dir']}")
        cache = {"cache_dir": cache_dir, "cache_bytes": cache_bytes}
        return packed.load(name, batch_size, damaged=damaged, split=split, group=group, **cache, **options)
    if cache_dir is not None:
        raise ValueError("cache_dir is for packed data at an address alone: sets are prepared in data_dir")
    if group is not None:
        raise ValueError("group is for packed data alone: pack the set with this feature as a label")
    if damaged == "skip":
        raise ValueError(
            "damaged='skip' is for packed data alone: where files of a tensorflow-datasets set are damaged, delete its "
            "folder and load prepares it again"
        )
    if data_dir is not None and "://" not in os.fspath(data_dir):
        data_dir = os.path.abspath(data_dir)  # a later change of the working folder leaves it as it is
    return tfds_sets.load(name, batch_size, data_dir=data_dir, config=config, **options)
