"""Any image set of tensorflow-datasets as three streams of batches."""

import contextlib
import io
import random
import socket
import sys
import urllib.parse
import urllib.request

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from kvae import _compat
from kvae.data import elements, packed, tfds_records
from kvae.data.errors import clear_errors
from kvae.data.packed import salvage
from kvae.data.provenance import Provenance, tfds_source
from kvae.data.splits import split_rows
from kvae.data.sprites import SpritesConfig
from kvae.data.validation import validate_batch_size, validate_shuffle

SPRITES_KEYWORDS = {"size": "size", "examples": "examples", "config_seed": "seed"}


def load(
    name,
    batch_size=128,
    *,
    labels=None,
    validation=0.1,
    shuffle=10_000,
    seed=0,
    damaged="error",
    data_dir=None,
    **config,
):
    """(train, validation, test) of the folder `name` that `pack` wrote, or of the tensorflow-datasets set `name`.

    Each is a `Stream` of known length, of batches of uint8 images (n, height, width, channels), the last batch
    smaller where they don't divide; sets that store 0 and 1 (dsprites) give 0 and 255, packed ones what was packed.
    A set is prepared if it isn't yet.

    labels: None for images alone; a feature's name for (x, y); names for (x, {name: y}).
    validation: where the set has no "validation", this share of "train" is it, taken from the end of the stored
        order (which tfds shuffles once for all); "test", where that is missing as well, is as large and comes
        last. With 0 what is missing is None.
    shuffle: images in the shuffling buffer, held as compressed files, as pixels where they are packed; 0 keeps the
        stored order. Only train is shuffled: its files or blocks, then its images, anew in each epoch.
    seed: an integer, which alone decides on that order, epoch by epoch; None draws one.
    damaged: "error", or "skip", of packed data alone, to read all files now and leave out the blocks of some 256 KB
        that aren't as they were written. A warning says what and how many rows; the rest stays in the part (train,
        validation or test) where it was.
    data_dir: where tfds keeps its sets; None for its default.
    config: for "sprites" alone: size, examples, config_seed (see `SpritesConfig`).

    Raises ValueError for sets without images of one shape, unknown labels, a share outside [0, 0.5) or that leaves
    nothing to train on, TypeError for keywords it doesn't take, OSError where the set can't be prepared or files
    aren't as they were written.
    """
    validate_batch_size(batch_size)
    validate_shuffle(shuffle)
    if not 0 <= validation < 0.5:
        raise ValueError(f"validation is {validation}, expected a share of the training images in [0, 0.5)")
    salvage.validate(damaged)
    if packed.is_packed(name):
        if config or data_dir:
            raise TypeError(f"load of packed data takes no {sorted(config) or ['data_dir']}")
        return packed.load(
            name, batch_size, labels=labels, validation=validation, shuffle=shuffle, seed=seed, damaged=damaged
        )
    if damaged == "skip":
        raise ValueError(
            "damaged='skip' is for packed data alone: where files of a tensorflow-datasets set are damaged, delete its "
            "folder and load prepares it again"
        )
    builder = _builder(name, data_dir, config)
    _check_features(builder, labels)
    _prepare(builder)
    parts = _parts(builder, validation)
    files = {name: part and tfds_records.files_of(builder, part) for name, part in parts.items()}
    scale = 255 if _stores_masks(builder, files["train"]) else 1
    train = _read(builder, parts["train"], files["train"], labels, scale, batch_size, shuffle, seed)
    rest = [
        parts[part] and _read(builder, parts[part], files[part], labels, scale, batch_size)
        for part in ("validation", "test")
    ]
    return train, *rest


def _builder(name, data_dir, config):
    if config and name != "sprites":
        raise TypeError(f"load({name!r}) takes no {sorted(config)}: they are for sprites alone")
    unknown = sorted(set(config) - set(SPRITES_KEYWORDS))
    if unknown:
        raise TypeError(f"load('sprites') takes no {unknown}, only {sorted(SPRITES_KEYWORDS)}")
    if name == "sprites":
        config = {"config": SpritesConfig(**{SPRITES_KEYWORDS[key]: value for key, value in config.items()})}
    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir, **config)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(
            f"found no folder {name!r} that `pack` wrote, and tensorflow-datasets {tfds.__version__} has no set named "
            f"{name!r}: give the path of packed data, or the name of a set"
        ) from None


@contextlib.contextmanager
def _quiet():
    """Without tfds' warnings: of its own use of deprecated names, of folders that it is about to make."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_features(builder, labels):
    features = builder.info.features
    features = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not isinstance(features.get("image"), tfds.features.Image):
        raise ValueError(f'{builder.name} has no image feature "image": found {sorted(features)}')
    if None in features["image"].shape:
        raise ValueError(f"{builder.name}'s images differ in shape: found {features['image'].shape}")
    missing = [label for label in packed.label_names(labels) if label not in features]
    if missing:
        found = sorted(set(features) - {"image"})
        raise ValueError(f"{builder.name} has no feature {missing}: labels can be of {found}")


def _prepare(builder):
    if builder.data_path.exists():
        return
    terminal, offline = sys.stderr.isatty(), _offline(builder)
    state = random.getstate()  # tfds draws from it, and Keras its seeds: a first run would differ from the next
    if not terminal:
        tfds.disable_progress_bar()
    try:
        # Ten tries without a network take minutes, and files that were downloaded before need none.
        with _compat.download_retries(0 if offline else None), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        reason = "there is no network" if offline else " ".join(str(error).split())[:300] or type(error).__name__
        raise OSError(
            f"{builder.name} can't be prepared: {reason}; where it can be, tfds.load({builder.name!r}) makes the "
            f"folder that is looked for here as {builder.data_path}"
        ) from None
    finally:
        random.setstate(state)
        if not terminal:
            tfds.enable_progress_bar()


def _offline(builder):
    """Whether the name of a host of the set's files is not found, and no proxy might find it."""
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()}
    try:
        for host in hosts - {None}:
            socket.getaddrinfo(host, None)
    except OSError:
        return not urllib.request.getproxies()
    return False


def _parts(builder, validation):
    """What tfds is asked to read as train, validation and test; None for what there isn't."""
    rows = {name: split.num_examples for name, split in builder.info.splits.items()}
    return {
        name: part and (part[0] if part[1:] == (0, rows[part[0]]) else f"{part[0]}[{part[1]}:{part[2]}]")
        for name, part in split_rows(rows, validation).items()
    }


def _stores_masks(builder, files):
    """Whether uint8 images hold 0 and 1, by the first sixty-four: white would be 1/255 once they are scaled."""
    if builder.info.features["image"].np_dtype != np.uint8:
        return False
    with clear_errors(), _quiet():
        return int(tf.reduce_max(tfds_records.first(builder, files, ["image"], 64)["image"])) == 1


def _read(builder, part, files, labels, scale, batch_size, shuffle=0, seed=None):
    def element(batch):
        image = batch["image"] * scale if scale != 1 else batch["image"]
        if labels is None:
            return image
        if isinstance(labels, str):
            return image, batch[labels]
        return image, {name: batch[name] for name in labels}

    with _quiet():
        names = ["image", *packed.label_names(labels)]
        stream = tfds_records.read(builder, part, names, batch_size, element, shuffle, seed, files)
    source, license = tfds_source(builder.info)
    stream.provenance = Provenance(
        source["name"],
        source["version"],
        part,
        sum(file[2] for file in files),
        lambda: _read(builder, part, files, labels, scale, elements.BATCH_SIZE),
        source,
        license,
    )
    return stream
