"""Lossless compression with a VAE: a file is as long as the ELBO says."""

from kvae.compression.files import Compressed, compress, decompress

__all__ = ["Compressed", "compress", "decompress"]
