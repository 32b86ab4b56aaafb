"""Streams of images: any tensorflow-datasets set, and `sprites`, which needs no download."""

import importlib
import warnings

from kvae.data.files import from_folder, from_hdf5, from_npy
from kvae.data.loading import load
from kvae.data.packed import pack, verify
from kvae.data.parquet import from_parquet
from kvae.data.sprites import Sprites, SpritesConfig
from kvae.data.stream import Stream, binarize
from kvae.data.validation import image_shape

__all__ = [
    "Sprites",
    "SpritesConfig",
    "Stream",
    "binarize",
    "from_folder",
    "from_hdf5",
    "from_npy",
    "from_parquet",
    "image_shape",
    "load",
    "pack",
    "verify",
]


def __getattr__(name):
    if name == "nearest_sprites":
        message = "kvae.data.nearest_sprites is now kvae.evaluation.nearest_sprites; the old name goes with 0.3."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return importlib.import_module("kvae.evaluation").nearest_sprites
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
