"""Saved models that come from elsewhere: damage and harm are refused before anything is made of a file."""

from kvae.saving.archive import load

__all__ = ["load"]
