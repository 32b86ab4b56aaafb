"""The data set `sprites`: colored shapes with known factors, made on the spot."""

from kvae.data.sprites.builder import FACTORS, Sprites, SpritesConfig

__all__ = ["FACTORS", "Sprites", "SpritesConfig"]
