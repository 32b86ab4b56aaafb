"""Image sets of tensorflow-datasets: found, prepared, split, and read as Streams."""

import contextlib
import io
import os
import random
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from kvae import _compat, files
from kvae.data import elements, tfds_records
from kvae.data.drawn_digits import DrawnDigitsConfig
from kvae.data.errors import clear_errors
from kvae.data.provenance import Provenance, tfds_source
from kvae.data.splits import label_names, split_rows
from kvae.data.sprites import FACTORS, SpritesConfig
from kvae.data.stream import Stream

DRAWN = {  # sets that kvae draws: the config and its arguments by keyword
    "sprites": (SpritesConfig, {"size": "size", "examples": "examples", "config_seed": "seed", "pairs": "pairs"}),
    "drawn_digits": (DrawnDigitsConfig, {"examples": "examples", "config_seed": "seed"}),
}


def load(
    name: Any, batch_size: int, *, labels, validation: float, shuffle: int, seed: int | None, data_dir, config: dict
) -> tuple[Stream, Stream | None, Stream | None]:
    """(train, validation, test) of a set of tensorflow-datasets. Arguments as those of `kvae.data.load`."""
    builder = _builder(name, data_dir, config)
    _check_features(builder, labels)
    _prepare(builder)
    splits = _splits(builder, validation)
    scale = 255 if _stores_masks(builder, splits["train"]) else 1

    def in_order(split):
        return None if split is None else _read(builder, split, labels, scale, batch_size)

    train = _read(builder, splits["train"], labels, scale, batch_size, shuffle, seed)
    return train, in_order(splits["validation"]), in_order(splits["test"])


def _builder(name, data_dir, config):
    if name in DRAWN:
        kind, keywords = DRAWN[name]
        if unknown := sorted(set(config) - set(keywords)):
            raise TypeError(f"load({name!r}) takes no {unknown}, only {sorted(keywords)}")
        config = {"config": kind(**{keywords[key]: value for key, value in config.items()})}
    elif config:
        raise TypeError(f"load({name!r}) takes no {sorted(config)}: they are for {' and '.join(DRAWN)} alone")
    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir, **config)  # pyright: ignore[reportArgumentType]
    except tfds.core.DatasetNotFoundError:
        raise ValueError(
            f"found no folder {name!r} that `pack` wrote, and tensorflow-datasets {tfds.__version__} has no set named "
            f"{name!r}: give the path of packed data, or the name of a set"
        ) from None


@contextlib.contextmanager
def _quiet():
    """Context manager. Silences tfds' warnings about its own deprecated names and about folders it will make."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_features(builder, labels):
    features: Any = builder.info.features
    features = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not isinstance(features.get("image"), tfds.features.Image):
        raise ValueError(f'{builder.name} has no image feature "image": found {sorted(features)}')
    if None in features["image"].shape:
        raise ValueError(f"{builder.name}'s images differ in shape: found {features['image'].shape}")
    missing = [label for label in label_names(labels) if label not in features]
    if missing:
        found = sorted(set(features) - {"image"})
        raise ValueError(f"{builder.name} has no feature {missing}: labels can be of {found}")


def _prepare(builder):
    if builder.data_path.exists():
        return
    terminal, offline = sys.stderr.isatty(), _offline(builder)
    # tfds draws random numbers, and Keras draws its seeds from the same ones: a first run would differ from the next.
    state = random.getstate()
    if not terminal:
        tfds.disable_progress_bar()
    try:
        # Ten tries without a network take minutes, and files that were downloaded before need none.
        with _compat.download_retries(0 if offline else None), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except (OSError, AssertionError, RuntimeError, tf.errors.OpError, tfds.download.DownloadError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if any(os.strerror(number) in str(error) for number in files.FULL):
            reason += f"; {shutil.disk_usage(builder.data_path.parents[1]).free:,} bytes are free there, make room"
        elif offline:
            reason = "there is no network"
        raise OSError(
            f"{builder.name} can't be prepared: {reason}; where it can be, tfds.load({builder.name!r}) makes the "
            f"folder that is looked for here as {builder.data_path}"
        ) from None
    finally:
        random.setstate(state)
        if not terminal:
            tfds.enable_progress_bar()


def _offline(builder):
    """Whether a host of the set's files can't be found and there is no proxy."""
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()}
    try:
        for host in hosts - {None}:
            socket.getaddrinfo(host, None)
    except OSError:
        return not urllib.request.getproxies()
    return False


def _splits(builder, validation):
    """{"train", "validation", "test": the split as tfds writes it, such as "train[:90]", or None}."""
    rows = {name: split.num_examples for name, split in builder.info.splits.items()}
    splits = {}
    for name, window in split_rows(rows, validation).items():
        splits[name] = window and window[0]
        if window and window[1:] != (0, rows[window[0]]):
            splits[name] = "{}[{}:{}]".format(*window)
    return splits


def _stores_masks(builder, split):
    """Whether the first 64 uint8 images hold 0 and 1 alone. Scaled, their white would be 1/255."""
    if builder.info.features["image"].np_dtype != np.uint8:
        return False
    with clear_errors(), _quiet():
        return int(tf.reduce_max(tfds_records.first(builder, split, ["image"], 64)["image"])) == 1


def _read(builder, split, labels, scale, batch_size, shuffle=0, seed=None):
    def element(batch):
        image = batch["image"] * scale if scale != 1 else batch["image"]
        if labels is None:
            return image
        if isinstance(labels, str):
            return image, batch[labels]
        return image, {name: batch[name] for name in labels}

    with _quiet():
        names = ["image", *label_names(labels)]
        stream = tfds_records.read(builder, split, names, batch_size, element, shuffle, seed)
    source, license = tfds_source(builder.info)
    stream.provenance = Provenance(
        source["name"],
        source["version"],
        split,
        builder.info.splits[split].num_examples,
        lambda: _read(builder, split, labels, scale, elements.BATCH_SIZE),
        source,
        license,
    )
    if builder.name == "sprites" and not isinstance(labels, str):
        stream.factors = {name: FACTORS[name] for name in label_names(labels) if name in FACTORS} or None
    return stream
