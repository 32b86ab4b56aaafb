"""Search for the sprite nearest to an image: the distance from a model's samples to the data's manifold."""

import numpy as np
from numpy.typing import ArrayLike

from kvae import arguments
from kvae.data.sprites.render import RANGES, SHAPES, draw_factors, render

STARTS, WIDEST, NARROWEST = 4096, 0.2, 0.01


def nearest_sprites(images: ArrayLike, rounds: int = 100, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Find the sprite nearest to each image: min over factors of ||image - render(factors)||^2.

    The search has 4,096 random starts. For each shape it takes the nearest start and tries random steps of the other
    factors, from a fifth of each factor's range down to a hundredth. Its error is an upper bound of the true minimum.
    With 100 rounds it takes a CPU second for about 40 images of 32x32 pixels.

    Args:
        images: (n, size, size, 3), uint8, or floats with 1 for white.
        rounds: steps for each image and shape. 0 gives the best of the starts.
        seed: of starts and steps, an int.

    Returns:
        {factor: (n,)}, as `draw_factors` gives them, and the squared errors (n,), summed over an image in [0, 1].

    Raises:
        ValueError: for images of another shape.

    Example:
        >>> sprites = render(draw_factors(0, 0, 0, 3), 16)  # three of the search's own starts
        >>> factors, errors = nearest_sprites(sprites, rounds=0)
        >>> errors
        array([0., 0., 0.], dtype=float32)
    """
    arguments.integer_at_least("rounds", rounds, 0)
    seed = arguments.seed(seed, random=False)
    pixels = arguments.array("images", images)
    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2] or pixels.shape[3] != 3:
        raise ValueError(f"images have the shape {pixels.shape}; expected (n, size, size, 3).")
    pixels = pixels / np.float32(255 if pixels.dtype == np.uint8 else 1)
    generator = np.random.default_rng(seed)
    factors = draw_factors(seed, 0, 0, STARTS)
    results = []
    for shape in range(len(SHAPES)):
        starts = {name: values[factors["shape"] == shape] for name, values in factors.items()}
        nearest = _nearest(pixels, _rendered(starts, pixels))
        best = {name: values[nearest] for name, values in starts.items()}
        results.append(_search(pixels, best, rounds, generator))
    errors = np.stack([error for _, error in results])
    shape, image = errors.argmin(axis=0), np.arange(len(pixels))
    best = {name: np.stack([best[name] for best, _ in results])[shape, image] for name in factors}
    return best, errors[shape, image]


def _search(images, best, rounds, generator):
    error = _errors(images, best)
    for width in np.geomspace(WIDEST, NARROWEST, rounds):
        candidate = dict(best)
        for name, (low, high) in RANGES.items():
            step = width * (high - low) * generator.standard_normal(len(images))
            candidate[name] = np.clip(best[name] + step, low, high).astype(np.float32)
        candidate_error = _errors(images, candidate)
        best = {name: np.where(candidate_error < error, candidate[name], best[name]) for name in best}
        error = np.minimum(candidate_error, error)
    return best, error


def _rendered(factors, images):
    return render(factors, images.shape[1]) / np.float32(255)


def _errors(images, factors):
    return np.sum((images - _rendered(factors, images)) ** 2, axis=(1, 2, 3))


def _nearest(images, sprites):
    """The index of the sprite nearest to each image. ||image||^2 is the same for all sprites and left out."""
    sprites = sprites.reshape(len(sprites), -1)
    products = images.reshape(len(images), -1) @ sprites.T
    return np.argmin(np.sum(sprites**2, axis=1) - 2 * products, axis=1)
