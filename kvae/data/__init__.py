"""Data as Streams: packed data, sets of tensorflow-datasets, `sprites`, folders of images, files of arrays, tables."""

import importlib

from kvae import arguments
from kvae.columns import Column, Columns
from kvae.data.factors import Factor
from kvae.data.files import from_hdf5, from_npy
from kvae.data.folder import from_folder
from kvae.data.loading import load
from kvae.data.packed import pack, verify
from kvae.data.parquet import from_parquet
from kvae.data.sprites import Sprites, SpritesConfig
from kvae.data.stream import Stream, binarize
from kvae.data.tables import from_table
from kvae.data.validation import image_shape

__all__ = [
    "Column",
    "Columns",
    "Factor",
    "Sprites",
    "SpritesConfig",
    "Stream",
    "binarize",
    "from_folder",
    "from_hdf5",
    "from_npy",
    "from_parquet",
    "from_table",
    "image_shape",
    "load",
    "pack",
    "verify",
]


__getattr__ = arguments.renamed_in_module(
    __name__,
    {
        "nearest_sprites": (
            "kvae.evaluation.nearest_sprites",
            lambda: importlib.import_module("kvae.evaluation").nearest_sprites,
        )
    },
)
