"""Streams from a folder of images."""

import collections
import functools
import os
import pathlib
import re
import warnings
import weakref
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kvae import _compat, files
from kvae.data.decoding import Decoder, listed, validate_size
from kvae.data.elements import validate_batch_size, validate_damaged, validate_shuffle
from kvae.data.splits import label_names, rows_of_part
from kvae.data.stream import Stream, resolve_seed, rows_of_shard

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_OTHER_IMAGES = re.compile(
    r"\.(avif|dng|exr|heic|heif|ico|j2k|jfif|jp2|jpe|jxl|pbm|pcx|pgm|ppm|psd|svg|tga|tiff?|webp)", re.IGNORECASE
)
_LABELS = "label", "path"


def from_folder(
    path: str | os.PathLike,
    batch_size: int = 128,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    labels: bool | str | Sequence[str] = False,
    class_names: Sequence[str] | None = None,
    shuffle: int = 0,
    seed: int | None = 0,
    damaged: str = "error",
    part: str | None = None,
    validation: float = 0.1,
) -> Stream:
    """A Stream of the images in a folder and its subfolders, batches (n, height, width, channels) of uint8.

    Its `class_names` are the names of the folders that number the classes. Give those of the training images to the
    streams of validation and test images, so that a number means the same class in all of them.

    Args:
        path: the folder. Files with other suffixes than .bmp, .gif, .jpeg, .jpg and .png are left out; a warning names
            other images among them. Names that begin with a dot are left out too.
        batch_size: int. Default 128.
        size: (height, width) for resizing all images; None if they have one size.
        channels: 1, 3 or 4, for converting all images; None if they have the same number. Of an animation the first
            picture is read.
        labels: False for x alone; True or "label" for (x, y), y (int64) being the classes' numbers; "path" for y with
            the files' paths within `path`, strings; a tuple of both names for (x, {name: y}). Classes are the folders
            directly in `path`.
        class_names: the classes' names in the order of their numbers. Default None: the names of all folders in `path`,
            also of those without images, sorted.
        shuffle: 0 keeps the order of the paths. Every other number shuffles all images in each epoch, as only their
            names are in memory.
        seed: int, decides on the order with the epoch; None draws one.
        damaged: "error", or "skip" to decode all files once, now, and leave out those without a readable image. A
            warning says how many.
        part, validation: as for `from_npy`; images are drawn by their number in the order of the paths.

    Raises:
        OSError: without such a folder; for a file without a readable image, when it is read. The error names all that
            a minute's search finds.
        ValueError: for a folder without images, for folders that `class_names` lacks, and for an image of another shape
            than the first, when it is read.

    Example:

    >>> import pathlib, tempfile, keras, numpy as np, kvae
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cats/0.png", "cats/1.png", "dogs/0.png"):
    ...         (pathlib.Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         keras.utils.save_img(pathlib.Path(folder) / name, np.zeros((8, 6, 3)))
    ...     stream = kvae.data.from_folder(folder, batch_size=2, labels=True)
    ...     stream.class_names, [(x.shape, y.tolist()) for x, y in stream.as_numpy_iterator()]
    (('cats', 'dogs'), [((2, 8, 6, 3), [0, 0]), ((1, 8, 6, 3), [1])])
    """
    validate_batch_size(batch_size)
    validate_shuffle(shuffle)
    validate_damaged(damaged)
    validate_size(size, channels)
    path, wanted = files.absolute(path, "path"), _wanted(labels)
    class_names = _texts(class_names)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")
    found = _images(path, in_folders=wanted is not None and "label" in wanted)
    class_names = _class_names(path, found, class_names) if wanted and "label" in wanted else None
    names = np.array([str(path / file) for file in found])
    chosen = rows_of_part(len(names), part, validation)
    if chosen is not None:
        found, names = [file for file, keep in zip(found, chosen, strict=True) if keep], names[chosen]
    advice = "" if damaged == "skip" else ', or give damaged="skip"'
    alive = weakref.ref(names)  # TensorFlow keeps the decoder for ever
    if damaged == "skip":
        kept = _readable(path, names, size, channels)
        found, names = [file for file, keep in zip(found, kept, strict=True) if keep], names[kept]
        alive = weakref.ref(names)
    decode = Decoder(
        names[0].encode("utf-8", "surrogateescape"), tf.io.read_file, os.fsdecode, size, channels, alive, advice
    )
    columns = {"path": np.array(list(map(str, found)))}
    if class_names is not None:
        number = {name: i for i, name in enumerate(class_names)}
        columns["label"] = np.array([number[file.parts[0]] for file in found], np.int64)
    seed, num_batches = resolve_seed(seed, shuffle), -(-len(names) // batch_size)

    def batches(epoch, skip, shard_index, num_shards, shuffle=shuffle):
        rows = tf.range(len(names), dtype=tf.int64)
        rows = _compat.stateless_shuffle(rows, [seed, epoch]) if shuffle else rows

        def batch(number):
            chosen = rows[number * batch_size : (number + 1) * batch_size]
            chosen = rows_of_shard(chosen, shard_index, num_shards)
            y = {name: tf.gather(columns[name], chosen) for name in wanted or ()}
            x = tf.gather(names, chosen)
            return (x,) if wanted is None else (x, y[wanted[0]] if isinstance(labels, bool | str) else y)

        # The dataset begins with the batches' numbers, since tf.data service deals these out to its workers.
        return decode(tf.data.Dataset.range(skip, num_batches).map(batch)).prefetch(2)

    batches = tf.autograph.experimental.do_not_convert(batches)
    stream = Stream(batches, num_batches, seed)
    if shuffle:
        stream._unshuffled = lambda: Stream(functools.partial(batches, shuffle=0), num_batches, seed)
    stream.class_names = class_names
    return stream


def _wanted(labels):
    """The names of the labels, or None."""
    if not isinstance(labels, bool | np.bool_ | str | list | tuple | None):
        raise TypeError(f"labels is {labels!r}, expected False, True, one of {_LABELS} or a tuple of both")
    if isinstance(labels, bool | np.bool_) or labels is None:
        return ["label"] if labels else None
    names = label_names(labels)
    if not names or set(names) - set(_LABELS):
        raise ValueError(f"labels is {labels!r}, expected False, True, one of {_LABELS} or a tuple of both")
    return names


def _images(path, in_folders):
    """The images' paths within a folder, sorted. Warns of other images."""
    found, others = [], collections.Counter()
    example: dict[str, pathlib.Path] = {}
    for folder, folders, names in os.walk(path, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        parent = pathlib.Path(folder).relative_to(path)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or (in_folders and parent == pathlib.Path(".")):
                continue
            if suffix in SUFFIXES and os.path.isfile(os.path.join(folder, name)):
                found.append(parent / name)
            elif _OTHER_IMAGES.fullmatch(suffix):
                others[suffix] += 1
                example.setdefault(suffix, parent / name)
    if others:
        kinds = ", ".join(f"{count:,} {suffix} (such as {example[suffix]})" for suffix, count in others.items())
        warnings.warn(f"{path}: images of other kinds are left out: {kinds}; convert them to PNG or JPEG", stacklevel=3)
    if not found:
        where = "folders in it" if in_folders else "folder"
        raise ValueError(f"{path} holds no images: expected files that end in {', '.join(SUFFIXES)} in the {where}")
    return sorted(found)


def _texts(class_names):
    """The class names as a tuple, or None. Raises ValueError unless they are texts, each once."""
    if class_names is None:
        return None
    given = (class_names,) if isinstance(class_names, str) else class_names
    is_sequence = isinstance(given, Sequence) and all(isinstance(name, str) for name in given)
    if not is_sequence or len(set(given)) < len(given):
        raise ValueError(f"class_names is {class_names!r}, expected the names of folders, each once")
    return tuple(given)


def _class_names(path, found, class_names):
    """The classes' names in the order of their numbers. Raises ValueError if a folder with images isn't among them."""
    if class_names is None:
        return tuple(sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."))
    given = class_names
    if unknown := sorted({file.parts[0] for file in found} - set(given)):
        raise ValueError(f"{path} has folders that class_names lacks: {listed(unknown)}; expected among {list(given)}")
    return given


def _readable(path, names, size, channels):
    """Which files hold an image, bool (n,). Warns of the others. Raises OSError if none does."""
    for first in names:
        try:
            decode = Decoder(first.encode("utf-8", "surrogateescape"), tf.io.read_file, os.fsdecode, size, channels)
            break
        except OSError:
            continue
    else:
        raise OSError(f"{path} holds {len(names):,} images, none of which can be decoded: restore them")
    damaged, unlike, _ = decode.faults(names)
    if unlike:
        raise ValueError(decode.describe_unlike(unlike))
    if damaged:
        left_out = f"{len(damaged):,} of {len(names):,} files are left out, since they can't be decoded"
        warnings.warn(f"{path}: {left_out}: {listed([os.path.relpath(name, path) for name in damaged])}", stacklevel=3)
    return ~np.isin(names, damaged)
