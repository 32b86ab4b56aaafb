"""Packed data: any stream written once to a folder, and read back in any order of its blocks, each of them checked."""

from kvae.data.packed.format import is_packed, verify
from kvae.data.packed.reader import load
from kvae.data.packed.together import write_shares
from kvae.data.packed.writer import pack, write_columns

__all__ = ["is_packed", "load", "pack", "verify", "write_columns", "write_shares"]
