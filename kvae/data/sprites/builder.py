"""The data set `sprites`: colored shapes with known, independent factors. kvae draws them, tfds stores them."""

import re

import numpy as np
import tensorflow_datasets as tfds

from kvae import _compat, arguments
from kvae.data.factors import Factor
from kvae.data.sprites.render import PERIODS, RANGES, SHAPES, draw_factors, draw_partners, encode_png, render

CHUNK = 128
FACTORS = {
    "shape": Factor("categorical"),
    "hue": Factor("periodic", 1.0),
    "scale": Factor("ordered"),
    "orientation": Factor("periodic", dict(enumerate(PERIODS)), given="shape"),
    "x": Factor("ordered"),
    "y": Factor("ordered"),
}
SPLITS = ("train", "validation", "test")


class SpritesConfig(tfds.core.BuilderConfig):
    """Size and number of the sprites. Different arguments give different names, and so different folders.

    Args:
        size: int, height and width in pixels, at least 8. Default 64.
        examples: int, images in "train". "validation" and "test" have a tenth of it each. Default 20,000.
        seed: int, seed of the factors. A smaller set is the start of a larger one with the same seed. Default 0.
        pairs: bool, whether each image has a "partner" in which one factor is drawn anew, for `kvae.AdaGVAE`. (A shape
            may come again.) Default False.

    Raises:
        ValueError: if an argument isn't an integer in its range, or `pairs` no bool.

    Example:

    >>> import kvae
    >>> kvae.data.SpritesConfig(size=32, examples=5_000, seed=7).name
    '32x32_5000_seed7'
    """

    def __init__(self, size: int = 64, examples: int = 20_000, seed: int = 0, pairs: bool = False):
        for name, value, low in ("size", size, 8), ("examples", examples, 1), ("seed", seed, 0):
            if not arguments.is_integer(value, low) or value >= 2**60:
                raise ValueError(f"{name} of sprites is {value!r}, expected an integer from {low} up")
        self.pairs = arguments.boolean("pairs of sprites", pairs)
        suffix = (f"_seed{seed}" if seed else "") + ("_pairs" if pairs else "")
        super().__init__(
            name=f"{size}x{size}_{examples}{suffix}",
            description=f"{examples} training images of {size}x{size} pixels, seed {seed}",
        )
        self.size, self.examples, self.seed = int(size), int(examples), int(seed)

    @classmethod
    def from_name(cls, name: str) -> "SpritesConfig | None":
        """The config with a name such as 32x32_5000 or 64x64_20000_seed7, or None for other names."""
        match = re.fullmatch(r"(\d+)x\1_(\d+)(?:_seed(\d+))?(_pairs)?", name)
        size, examples, seed = (int(number or 0) for number in match.groups()[:3]) if match else (0, 0, 0)
        return cls(size, examples, seed, bool(match[4])) if match else None


class Sprites(_compat.ConfigsByName, tfds.core.GeneratorBasedBuilder):
    """Anti-aliased color images of one shape each, whose factors are uniform, independent and stored beside them.

    Features: "image" (size, size, 3) uint8; "shape", a class of `render.SHAPES`; and, float32, "hue", "scale",
    "orientation", "x" and "y" (meanings and units: `render.draw_factors`). With pairs also "partner", an image
    in which one of them is drawn anew. Every image shows its factors without ambiguity: hue stops before it is red
    again. Orientation spans a quarter turn, and no shape looks the same before half a turn (the triangle nearly so
    after a third).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012
    CONFIG_CLASS = SpritesConfig
    BUILDER_CONFIGS = [  # noqa: RUF012
        SpritesConfig(size, examples) for size in (64, 32) for examples in (20_000, 200_000, 1_000_000)
    ]

    def _info(self):
        size, kinds = self.builder_config.size, ["image", *["partner"] * self.builder_config.pairs]
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    **{kind: tfds.features.Image(shape=(size, size, 3), encoding_format="png") for kind in kinds},
                    "shape": tfds.features.ClassLabel(names=SHAPES),
                    **{name: np.float32 for name in RANGES},
                }
            ),
            supervised_keys=("image", "shape"),
        )

    def _split_generators(self, dl_manager):
        train = self.builder_config.examples
        held_out = max(1, train // 10)
        sizes = (train, held_out, held_out)
        return {
            split: self._generate_examples(number, examples)
            for number, (split, examples) in enumerate(zip(SPLITS, sizes, strict=True))
        }

    def _generate_examples(self, split, examples):
        config = self.builder_config
        for start in range(0, examples, CHUNK):
            stop = min(start + CHUNK, examples)
            factors = draw_factors(config.seed, split, start, stop)
            images = {"image": factors}
            if config.pairs:
                images["partner"] = draw_partners(factors, config.seed, split, start)
            features = {kind: encode_png(render(each, config.size)) for kind, each in images.items()} | factors
            for i in range(stop - start):
                yield start + i, {name: values[i] for name, values in features.items()}
