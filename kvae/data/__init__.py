"""Streams of images: any tensorflow-datasets set, and `sprites`, which needs no download."""

from kvae.data.files import from_folder, from_hdf5, from_npy, from_parquet
from kvae.data.manifest import verify
from kvae.data.nearest import nearest_sprites
from kvae.data.packing import pack
from kvae.data.sprites import Sprites, SpritesConfig
from kvae.data.stream import Stream, binarize
from kvae.data.tfds_sets import load
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
    "nearest_sprites",
    "pack",
    "verify",
]
