"""The sprite nearest to any picture, found by search: how far what a model makes up is from what there is."""

import numpy as np

from kvae.data.sprites.render import RANGES, SHAPES, draw_factors, render

STARTS, WIDEST, NARROWEST = 4096, 0.2, 0.01


def nearest_sprites(images, rounds=100, seed=0):
    """(factors, squared error) of the sprite nearest to each image: min over factors of ||image - render(factors)||^2.

    For each shape it starts from the nearest of its share of 4,096 random sprites and tries other factors about the
    best ones so far, from a fifth of each factor's range down to a hundredth. What it finds is an upper bound of the
    true minimum. Time grows with the images and rounds: about 40 images a CPU second of 32x32 pixels, 100 rounds.

    Args:
        images: (n, size, size, 3), uint8, or floats where 1 is white.
        rounds: trials for each image and shape; 0 gives the best of the starts.
        seed: int, of starts and trials.

    Returns:
        a dict of arrays (n,) as `render.draw_factors` gives them, and the errors (n,), summed over an image in [0, 1].

    Raises:
        ValueError: for images of another shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise ValueError(f"images have the shape {images.shape}; expected (n, size, size, 3).")
    images = images / np.float32(255 if images.dtype == np.uint8 else 1)
    generator = np.random.default_rng(seed)
    factors = draw_factors(seed, 0, 0, STARTS)
    found = []
    for shape in range(len(SHAPES)):
        starts = {name: values[factors["shape"] == shape] for name, values in factors.items()}
        chosen = _nearest(images, _rendered(starts, images))
        best = {name: values[chosen] for name, values in starts.items()}
        found.append(_searched(images, best, rounds, generator))
    errors = np.stack([error for _, error in found])
    winner, each = errors.argmin(axis=0), np.arange(len(images))
    return {name: np.stack([best[name] for best, _ in found])[winner, each] for name in factors}, errors[winner, each]


def _searched(images, best, rounds, generator):
    error = _errors(images, best)
    for width in np.geomspace(WIDEST, NARROWEST, rounds):
        tried = dict(best)
        for name, (low, high) in RANGES.items():
            step = width * (high - low) * generator.standard_normal(len(images))
            tried[name] = np.clip(best[name] + step, low, high).astype(np.float32)
        now = _errors(images, tried)
        best = {name: np.where(now < error, tried[name], best[name]) for name in best}
        error = np.minimum(now, error)
    return best, error


def _rendered(factors, images):
    return render(factors, images.shape[1]) / np.float32(255)


def _errors(images, factors):
    return np.sum((images - _rendered(factors, images)) ** 2, axis=(1, 2, 3))


def _nearest(images, sprites):
    """The index of the nearest sprite for each image; ||a||^2 is the same for all and left out."""
    sprites = sprites.reshape(len(sprites), -1)
    products = images.reshape(len(images), -1) @ sprites.T
    return np.argmin(np.sum(sprites**2, axis=1) - 2 * products, axis=1)
