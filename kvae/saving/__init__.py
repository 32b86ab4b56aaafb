"""Saves models with a card, and loads files from strangers: it refuses damaged and harmful ones first."""

from kvae.saving.archive import load, save

__all__ = ["load", "save"]
