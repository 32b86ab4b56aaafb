"""The data set `sprites`: coloured shapes with known, independent factors, made on the spot and stored by tfds."""

import re

import numpy as np
import tensorflow_datasets as tfds

from kvae.data.sprites.render import RANGES, SHAPES, draw_factors, encode_png, render

CHUNK = 128
SPLITS = ("train", "validation", "test")


class SpritesConfig(tfds.core.BuilderConfig):
    """Which sprites: different arguments give different names, hence folders.

    size: height and width in pixels, at least 8. examples: images in "train"; "validation" and "test" have a tenth
    of it each. seed: of the factors; a smaller set is the start of a larger one of the same seed.
    """

    def __init__(self, size=64, examples=20_000, seed=0):
        for name, value, low in ("size", size, 8), ("examples", examples, 1), ("seed", seed, 0):
            if not isinstance(value, int | np.integer) or not low <= value < 2**60:
                raise ValueError(f"{name} of sprites is {value!r}, expected an integer from {low} up")
        suffix = f"_seed{seed}" if seed else ""
        super().__init__(
            name=f"{size}x{size}_{examples}{suffix}",
            description=f"{examples} training images of {size}x{size} pixels, seed {seed}",
        )
        self.size, self.examples, self.seed = int(size), int(examples), int(seed)

    @classmethod
    def from_name(cls, name):
        """The config of a name such as 32x32_5000 or 64x64_20000_seed7, None for other names."""
        found = re.fullmatch(r"(\d+)x\1_(\d+)(?:_seed(\d+))?", name)
        return cls(*(int(number or 0) for number in found.groups())) if found else None


class Sprites(tfds.core.GeneratorBasedBuilder):
    """Anti-aliased colour images of one shape each, whose factors are uniform, independent and stored beside them.

    Features: "image" (size, size, 3) uint8, "shape" (class of `render.SHAPES`) and, float32, "hue", "scale",
    "orientation", "x", "y" (meanings and units: `render.draw_factors`). Every factor can be read off an image
    without ambiguity: hue stops before it is red again, and orientation spans a quarter turn, while the shapes look
    the same after half a turn at the earliest (the triangle nearly so after a third).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        SpritesConfig(size, examples) for size in (64, 32) for examples in (20_000, 200_000, 1_000_000)
    ]

    def _create_builder_config(self, builder_config, version):
        if isinstance(builder_config, str):
            builder_config = SpritesConfig.from_name(builder_config) or builder_config
        if isinstance(builder_config, SpritesConfig):
            return builder_config
        return super()._create_builder_config(builder_config, version)

    def _info(self):
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
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
            files = encode_png(render(factors, config.size))
            for i, file in enumerate(files):
                yield start + i, {"image": file, **{name: values[i] for name, values in factors.items()}}
