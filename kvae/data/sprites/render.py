"""Draws images of one shape with known factors. Every machine draws the same bits.

From the seed to the pixels there are only +, -, *, /, square roots, comparisons and rounding. IEEE 754 defines each of
them to the last bit, so no mathematical library can change an image.
"""

import math
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

SHAPES = ("rectangle", "ellipse", "triangle", "heart")
PERIODS = (math.pi, math.pi, 2 * math.pi, 2 * math.pi)  # of each shape's orientation: it looks the same again
RANGES = {
    "hue": (0.0, 0.75),
    "scale": (0.16, 0.32),
    "orientation": (-math.pi / 4, math.pi / 4),
    "x": (1 / 3, 2 / 3),
    "y": (1 / 3, 2 / 3),
}
BACKGROUND = (24, 27, 36)
SATURATION, VALUE = 0.75, 0.95
EXTENT = 1.02  # the largest distance from the centroid to the outline of a shape of area 1
WORDS = 8  # random 64-bit words an example, two blocks of Philox


def draw_factors(seed: int, split: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """The factors of the examples start..stop-1. Each is a function of (seed, split, index) alone.

    Args:
        seed, split: ints from 0 to 2^64 - 1.
        start, stop: ints, the range of indices.

    Returns:
        A dict of arrays (stop - start,). "shape": int64, an index into SHAPES, uniform. The others are float32 and
        uniform over their RANGES. "hue" of the HSV color: 0 is red, 0.75 violet. "scale": the square root of the
        area, as a share of the image's side. "orientation": radians, clockwise, 0 is upright. "x", "y": the centroid,
        as a share of the image's side, from the left and from the top.

    Example:

    >>> from kvae.data.sprites.render import draw_factors, render
    >>> factors = draw_factors(seed=0, split=0, start=0, stop=3)
    >>> render(factors, size=16).shape
    (3, 16, 16, 3)
    """
    return _factors(_uniform(seed, split, start, stop))


def draw_partners(factors: Mapping[str, np.ndarray], seed: int, split: int, start: int) -> dict[str, np.ndarray]:
    """The factors of partners of the examples `start` and on, whose `factors` are given: one of each is drawn anew.

    Which one, and its value, are functions of (seed, split, index) alone. A shape may come again.
    """
    uniform = _uniform(seed, split, start, start + len(factors["shape"]), of_partners=1)
    changed = (uniform[:, -1] * len(factors)).astype(np.int64)
    drawn = _factors(uniform)
    return {name: np.where(changed == i, drawn[name], values) for i, (name, values) in enumerate(factors.items())}


def _uniform(seed, split, start, stop, of_partners=0):
    """Numbers from 0 to below 1, (stop - start, WORDS)."""
    counter = np.array([start * WORDS // 4, 0, split, of_partners], np.uint64)
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter).random_raw((stop - start) * WORDS)
    return (bits.reshape(-1, WORDS) >> np.uint64(11)) * 2.0**-53


def _factors(uniform):
    factors: dict[str, np.ndarray] = {"shape": (uniform[:, 0] * len(SHAPES)).astype(np.int64)}
    for column, (name, (low, high)) in enumerate(RANGES.items(), start=1):
        factors[name] = (low + (high - low) * uniform[:, column]).astype(np.float32)
    return factors


def render(factors: Mapping[str, ArrayLike], size: int = 64) -> np.ndarray:
    """Draws images of factors.

    The shape covers 1/2 - d of a pixel, within [0, 1], for the signed distance d in pixels from the pixel's center to
    the outline. The image's edge cuts shapes off.

    Args:
        factors: dict of arrays (n,), as `draw_factors` returns, with any values.
        size: int, height and width in pixels. Default 64.

    Returns:
        Array (n, size, size, 3), uint8.
    """
    shape = np.asarray(factors["shape"])
    hue, scale, orientation, x, y = (np.asarray(factors[name], np.float32) for name in RANGES)
    images = np.empty((len(shape), size, size, 3), np.uint8)
    images[:] = BACKGROUND
    window = min(size, 2 + math.ceil(2 * EXTENT * size * float(scale.max(initial=0))))
    top = np.clip(np.rint(y * size - window / 2), 0, size - window).astype(np.int64)
    left = np.clip(np.rint(x * size - window / 2), 0, size - window).astype(np.int64)
    grid = np.arange(window) + np.float32(0.5)
    rows = (grid + top[:, None] - y[:, None] * size).astype(np.float32)[:, :, None]
    columns = (grid + left[:, None] - x[:, None] * size).astype(np.float32)[:, None, :]
    cosine, sine = (a[:, None, None] for a in _cosine_sine(orientation))
    side = (scale * size)[:, None, None]
    colors = _color(hue) - np.asarray(BACKGROUND, np.float32)

    for kind, distance in enumerate(_DISTANCES):
        chosen = np.flatnonzero(shape == kind)
        if not len(chosen):
            continue
        across = columns[chosen] * cosine[chosen] + rows[chosen] * sine[chosen]
        along = rows[chosen] * cosine[chosen] - columns[chosen] * sine[chosen]
        cover = np.clip(0.5 - distance(across, along, side[chosen]), 0, 1)
        pixels = cover[..., None] * colors[chosen, None, None] + np.asarray(BACKGROUND, np.float32)
        pixels = np.rint(pixels).astype(np.uint8)
        for i, patch in zip(chosen, pixels, strict=True):
            images[i, top[i] : top[i] + window, left[i] : left[i] + window] = patch
    return images


def encode_png(images: np.ndarray) -> list[bytes]:
    """The PNG files of images (n, height, width, 3), uint8: the differences between rows, then zlib."""
    n, height, width, channels = images.shape
    rows = images.reshape(n, height, width * channels)
    filtered = np.empty((n, height, 1 + width * channels), np.uint8)
    filtered[:, :, 0] = 2  # PNG's filter "up"
    filtered[:, 0, 1:] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 1:, 1:])
    head = b"\x89PNG\r\n\x1a\n" + _png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    )
    end = _png_chunk(b"IEND", b"")
    return [head + _png_chunk(b"IDAT", _deflate(image)) + end for image in filtered]


def _deflate(data):
    compressor = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return compressor.compress(data) + compressor.flush()


def _png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


def _cosine_sine(angle):
    """Taylor series in float64, exact to the last bits up to 2 pi."""
    angle = angle.astype(np.float64)
    term, cosine, sine = np.ones_like(angle), np.zeros_like(angle), np.zeros_like(angle)
    for k in range(40):
        sign = 1 - k // 2 % 2 * 2
        cosine, sine = (cosine, sine + sign * term) if k % 2 else (cosine + sign * term, sine)
        term = term * angle / (k + 1)
    return cosine.astype(np.float32), sine.astype(np.float32)


def _color(hue):
    """RGB (n, 3), 0 to 255, of a hue at SATURATION and VALUE."""
    sector = hue[:, None] * 6 + np.array([0, 4, 2], np.float32)
    wave = np.clip(np.abs(sector - 6 * np.floor(sector / 6) - 3) - 1, 0, 1)
    return 255 * VALUE * (1 - SATURATION + SATURATION * wave)


def _rectangle(u, v, side):
    """Twice as high as wide."""
    half = side * math.sqrt(1 / 8)
    return np.maximum(np.abs(u) - half, np.abs(v) - 2 * half)


def _ellipse(u, v, side):
    """Twice as high as wide. The distance f (f - 1) / |grad f^2 / 2| is exact to first order."""
    a = side * math.sqrt(1 / (2 * math.pi))
    u, v = u / a, v / (2 * a)
    squared = u * u + v * v
    gradient = np.sqrt(u * u + v * v / 4) / a
    return (squared - np.sqrt(squared)) / np.maximum(gradient, np.float32(1e-9))


def _triangle(u, v, side):
    """Isosceles with the apex up, 1.15 times as high as wide."""
    width = math.sqrt(2 / 1.15)
    height = 1.15 * width
    slant = math.sqrt(height * height + width * width / 4)
    sides = np.abs(u) * (height / slant) - v * (width / 2 / slant) - side * (width * height / (3 * slant))
    return np.maximum(v - side * (height / 3), sides)


def _heart(u, v, side):
    """A square on its corner, with half-disks on its upper sides."""
    edge = math.sqrt(1 / (1 + math.pi / 4))
    centroid = edge**3 * math.pi / 4 * math.sqrt(1 / 2) * (1 / 2 + 2 / (3 * math.pi))
    quarter = side * (edge * math.sqrt(1 / 8))
    u, v = np.abs(u), v - side * centroid
    square = (u + np.abs(v)) * math.sqrt(1 / 2)
    u, v = u - quarter, v + quarter
    return np.minimum(square, np.sqrt(u * u + v * v)) - side * (edge / 2)


_DISTANCES = (_rectangle, _ellipse, _triangle, _heart)
