"""Packed data: any stream written once to a folder, in blocks that are read back in any order and checked."""

from kvae.data.packed.format import is_packed, verify
from kvae.data.packed.reader import label_names, load
from kvae.data.packed.writer import pack, write_columns

__all__ = ["is_packed", "label_names", "load", "pack", "verify", "write_columns"]
