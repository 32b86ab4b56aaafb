"""The data set `drawn_digits`: 28x28 digits that look handwritten, drawn on the spot from strokes of a pen.

From the seed to the pixels there are only +, -, *, /, square roots, comparisons and rounding, as for sprites, so every
machine draws the same bits.
"""

import re

import numpy as np
import tensorflow_datasets as tfds

from kvae import _compat, arguments
from kvae.data.sprites.render import encode_png

SIZE = 28
POINTS = 80  # of the pen on its way
WORDS = 48  # random 64-bit words an image, twelve blocks of Philox
CHUNK = 64
SPLITS = ("train", "validation", "test")
# Ways to write each digit. Four figures are a point: percent of the height from the left, then from the top. A repeated
# point is a corner, a slash lifts the pen.
STYLES = (
    ("3500 0555 3599 6545 3500", "4200 0840 2899 6460 4200", "5812 3000 0445 2699 6270 4806"),
    ("3500 3450 3399", "1228 3800 3800 3750 3699", "1226 3800 3800 3852 3899 / 1299 3898 6299", "4200 3550 2899"),
    (
        "0522 2500 5810 6035 3565 0298 0298 3597 7096",
        "0620 3000 6015 5050 2085 0494 0880 3085 5097 7290",
        "0812 3502 6022 4055 0599 0599 3893 6898",
    ),
    (
        "0612 3500 6017 4542 2548 2548 5555 6678 4099 0390",
        "0503 6202 6202 3040 3040 6055 6285 3099 0290",
        "0818 3000 5215 4436 2044 4748 6272 3898 0782",
    ),
    (
        "1000 0530 0856 0856 3555 6850 / 5505 5250 5099",
        "5000 2530 0062 0062 3562 7260 / 5000 5050 4899",
        "0802 0428 1548 3850 5840 / 6200 5830 5265 4899",
    ),
    (
        "1002 0822 0644 0644 3536 6255 6082 3299 0290 / 1002 4002 6400",
        "6202 1504 1504 1042 1042 4038 6262 4892 2099 0288",
        "6006 3802 1810 1438 3444 5864 4894 1299",
    ),
    (
        "5000 2025 0460 1292 3899 6282 5258 2856 0875",
        "3000 1040 0375 2599 5592 6068 3855 1068",
        "5805 3202 1028 0470 2598 5290 6066 4254 1462",
    ),
    (
        "0305 3504 6602 6602 4545 2599",
        "0305 3504 6602 6602 4545 2599 / 2050 4049 6147",
        "0520 0704 0704 3605 6404 6404 5035 3565 3099",
        "0810 3503 6010 5240 3570 2099",
    ),
    (
        "5510 3000 1020 3045 5870 4098 1085 1560 4042 6020 5510",
        "3500 1022 3546 6022 3500 / 3546 0574 3599 6674 3546",
        "5812 3200 1216 2840 5666 4895 1894 0868 3046 5428 5812",
    ),
    (
        "6012 3500 0620 1546 4245 6015 6015 5850 5299",
        "6020 3502 0625 2550 5535 6215 6215 6260 4595 1292",
        "5808 2800 0822 2246 5036 5808 5808 4650 3099",
    ),
)


class DrawnDigitsConfig(tfds.core.BuilderConfig):
    """Number of the digits: `examples` in "train", a tenth of it in "validation" and "test", drawn from `seed`."""

    def __init__(self, examples: int = 20_000, seed: int = 0):
        for name, value, low in ("examples", examples, 1), ("seed", seed, 0):
            if not arguments.is_integer(value, low) or value >= 2**60:
                raise ValueError(f"{name} of drawn_digits is {value!r}, expected an integer from {low} up")
        description = f"{examples} training images, seed {seed}"
        super().__init__(name=f"{examples}" + f"_seed{seed}" * (seed > 0), description=description)
        self.examples, self.seed = int(examples), int(seed)

    @classmethod
    def from_name(cls, name: str) -> "DrawnDigitsConfig | None":
        """The config with a name such as 5000 or 20000_seed7, or None for other names."""
        match = re.fullmatch(r"(\d+)(?:_seed(\d+))?", name)
        return cls(*(int(number or 0) for number in match.groups())) if match else None


class DrawnDigits(_compat.ConfigsByName, tfds.core.GeneratorBasedBuilder):
    """Grey images of the ten digits, white on black, in several ways of writing each and with a pen that wobbles.

    Features: "image" (28, 28, 1) uint8 and "label", uniform. A smaller set is the start of a larger one.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012
    CONFIG_CLASS = DrawnDigitsConfig
    BUILDER_CONFIGS = [DrawnDigitsConfig(examples) for examples in (20_000, 200_000)]  # noqa: RUF012

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=len(STYLES)),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        train = self.builder_config.examples
        sizes = zip(SPLITS, (train, max(1, train // 10), max(1, train // 10)), strict=True)
        return {split: self._generate_examples(number, size) for number, (split, size) in enumerate(sizes)}

    def _generate_examples(self, split, examples):
        for start in range(0, examples, 1024):
            images, labels = draw(self.builder_config.seed, split, start, min(start + 1024, examples))
            for i, file in enumerate(encode_png(images)):
                yield start + i, {"image": file, "label": labels[i]}


def draw(seed: int, split: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits start..stop-1 of a split. Each is a function of (seed, split, index) alone.

    Args:
        seed, split: ints from 0 to 2^64 - 1.
        start, stop: ints, the range of indices.

    Returns:
        Images (n, 28, 28, 1), uint8, and labels (n,), int64, uniform from 0 to 9.

    Example:

    >>> from kvae.data.drawn_digits import draw
    >>> images, labels = draw(seed=0, split=0, start=0, stop=5)
    >>> images.shape, labels
    ((5, 28, 28, 1), array([0, 7, 6, 3, 4]))
    """
    counter = np.array([start * WORDS // 4, 0, split, 0], np.uint64)
    bits = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter).random_raw((stop - start) * WORDS)
    uniform = (bits.reshape(-1, WORDS) >> np.uint64(11)) * 2.0**-53
    labels = (uniform[:, 0] * len(STYLES)).astype(np.int64)
    images = np.empty((len(labels), SIZE, SIZE, 1), np.uint8)
    for digit, skeletons in enumerate(_SKELETONS):
        style = (uniform[:, 1] * len(skeletons)).astype(np.int64)
        for number, skeleton in enumerate(skeletons):
            chosen = np.flatnonzero((labels == digit) & (style == number))
            for first in range(0, len(chosen), CHUNK):
                rows = chosen[first : first + CHUNK]
                images[rows, :, :, 0] = _render(2 * uniform[rows, 2:].T - 1, *skeleton)
    return images, labels


def _render(numbers, control, weights):
    """Images (n, 28, 28) of one skeleton, bent by `numbers` (46, n) between -1 and 1: the hand's, then the points'."""
    hand, wobble = numbers[:12], numbers[12:].reshape(-1, 2, numbers.shape[1])
    x, y = (
        sum(
            weight[:, None] * (point[axis] + 0.075 * noise[axis])
            for weight, point, noise in zip(weights.T, control, wobble[: len(control)], strict=True)
        )
        for axis in (0, 1)
    )
    x, y = x - 0.35, y - 0.5
    y = y + 0.22 * hand[0] * (0.25 - y * y)  # a large head or a large belly
    x = (x + 0.3 * hand[1] * x * y + 0.25 * hand[2] * y * y) * (0.95 + 0.35 * hand[3])
    x = x - y * (0.15 + 0.4 * hand[4])  # slant
    x, y = x - 0.2 * hand[5] * y, y + 0.2 * hand[5] * x
    side = 18 + 1.8 * hand[6]
    x, y = ((a - a.sum(axis=0) / POINTS) * side + SIZE / 2 + 1.3 * shift for a, shift in ((x, hand[7]), (y, hand[8])))
    way, width = np.linspace(-1, 1, POINTS)[:, None], 1.35 + 0.45 * hand[9]
    radius = width * (1 + 0.2 * hand[10] * way + 0.2 * hand[11] * (way * way - 0.5))  # the pen's pressure
    grid = np.arange(SIZE) + 0.5
    across, down = ((((grid - a[..., None]) / radius[..., None]) ** 2).astype(np.float32) for a in (x, y))
    nearest = np.full((x.shape[1], SIZE, SIZE), np.inf, np.float32)  # squared distance to the pen, in radii
    for squares in zip(across[:, :, None, :], down[:, :, :, None], strict=True):
        np.minimum(nearest, np.add(*squares), out=nearest)
    cover = 0.5 + (1 - np.sqrt(nearest)) * width.astype(np.float32)[:, None, None]
    return np.rint(255 * np.clip(cover, 0, 1)).astype(np.uint8)


def _skeleton(text):
    """(control points (k, 2), weights (POINTS, k) of the pen's points in them): a Catmull-Rom curve at even steps."""
    strokes = [[(int(word[:2]) / 100, int(word[2:]) / 100) for word in part.split()] for part in text.split(" / ")]
    points = list(dict.fromkeys(point for stroke in strokes for point in stroke))
    control, fine = np.array(points), []
    for stroke in strokes:
        corners = [i for i in range(1, len(stroke)) if stroke[i] == stroke[i - 1]]
        for start, stop in zip([0, *corners], [*corners, len(stroke)], strict=True):
            curve = np.eye(len(points))[[points.index(point) for point in stroke[start:stop]]]
            before, after = 2 * curve[0] - curve[1], 2 * curve[-1] - curve[-2]
            if stroke[start] == stroke[stop - 1]:  # closed
                before, after = curve[-2], curve[1]
            a, b, c, d = (np.vstack([before, curve, after])[i : i + len(curve) - 1] for i in range(4))
            t = np.linspace(0, 1, 20)[:, None, None]
            bent = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
            fine.append(bent.transpose(1, 0, 2).reshape(-1, len(points)))
    lengths = [np.r_[0, np.cumsum(np.sqrt((np.diff(curve @ control, axis=0) ** 2).sum(axis=1)))] for curve in fine]
    counts = [max(2, round(POINTS * length[-1] / sum(each[-1] for each in lengths))) for length in lengths]
    counts[np.argmax(counts)] += POINTS - sum(counts)
    even = [np.linspace(0, length[-1], count) - 1e-9 for length, count in zip(lengths, counts, strict=True)]
    steps = [curve[np.searchsorted(*both)] for curve, *both in zip(fine, lengths, even, strict=True)]
    return control, np.concatenate(steps)


_SKELETONS = [[_skeleton(text) for text in styles] for styles in STYLES]
