"""Streams of images: any tensorflow-datasets set, and `sprites`, which needs no download."""

from kvae.data.loading import load
from kvae.data.sprites import Sprites, SpritesConfig
from kvae.data.streams import image_shape

__all__ = ["Sprites", "SpritesConfig", "image_shape", "load"]
