"""The images show their factors; the factors are what they say; the stored set is the rendered one."""

import colorsys
import hashlib
import io
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import kvae
from kvae.data import SpritesConfig
from kvae.data.sprites.render import (
    BACKGROUND,
    RANGES,
    SATURATION,
    SHAPES,
    VALUE,
    draw_factors,
    draw_partners,
    encode_png,
    render,
)

SIZE = 64


@pytest.fixture(scope="module")
def factors():
    return draw_factors(seed=3, split=0, start=0, stop=2000)


@pytest.fixture(scope="module")
def images(factors):
    return render(factors, SIZE)


@pytest.fixture(scope="module")
def cover(factors, images):
    """Each pixel's share of the shape, by projection on the line from the background to the shape's colour."""
    rgb = [colorsys.hsv_to_rgb(hue, SATURATION, VALUE) for hue in factors["hue"]]
    colour = (255 * np.array(rgb) - BACKGROUND)[:, None, None]
    return ((images - np.array(BACKGROUND)) * colour).sum(-1) / (colour**2).sum(-1)


def one(**changed):
    default = {"shape": 0, "hue": 0.3, "scale": 0.25, "orientation": 0.0, "x": 0.5, "y": 0.5}
    return {name: np.array([value]) for name, value in (default | changed).items()}


def inside(shape, u, v):
    """Whether points, in the shape's own frame and with its area as unit, lie within it."""
    if shape == "rectangle":
        return (np.abs(u) < math.sqrt(1 / 8)) & (np.abs(v) < math.sqrt(1 / 2))
    if shape == "ellipse":
        return u**2 + v**2 / 4 < 1 / (2 * math.pi)
    if shape == "triangle":
        base = math.sqrt(2 / 1.15)
        height = 1.15 * base
        from_apex = v + height * 2 / 3
        return (from_apex < height) & (np.abs(u) < from_apex / height * base / 2)
    edge = 1 / math.sqrt(1 + math.pi / 4)
    lobes, lobe = math.pi / 4 / (1 + math.pi / 4), math.sqrt(1 / 2) * (1 / 2 + 2 / (3 * math.pi))
    v = v / edge - lobes * lobe
    u = np.abs(u) / edge
    corner, centre = math.sqrt(1 / 2), math.sqrt(1 / 8)
    return (u + np.abs(v) < corner) | ((u - centre) ** 2 + (v + centre) ** 2 < 1 / 4)


@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_the_covered_share(shape, size):
    fine = 16
    for orientation, scale, x, y in (0.0, 0.25, 0.5, 0.5), (0.6, 0.32, 0.41, 0.62), (-0.3, 0.2, 0.6, 0.37):
        image = render(one(shape=SHAPES.index(shape), scale=scale, orientation=orientation, x=x, y=y), size)[0]
        across, down = np.meshgrid(*[(np.arange(size * fine) + 0.5) / (size * fine)] * 2)
        across, down = (across - x) / scale, (down - y) / scale
        cosine, sine = math.cos(orientation), math.sin(orientation)
        mask = inside(shape, across * cosine + down * sine, down * cosine - across * sine)
        share = mask.reshape(size, fine, size, fine).mean((1, 3))
        colour = 255 * np.array(colorsys.hsv_to_rgb(0.3, SATURATION, VALUE))
        error = np.abs(image - (BACKGROUND + share[..., None] * (colour - BACKGROUND))) / 255
        assert error.max() < 0.25 and error[share > 0].mean() < 0.013


def test_area_is_scale_squared(factors, cover):
    area = cover.sum((1, 2)) / (factors["scale"] * SIZE) ** 2
    assert abs(area.mean() - 1) < 0.003 and np.abs(area - 1).max() < 0.02
    assert (cover[:, [0, -1]] < 1e-6).all() and (cover[:, :, [0, -1]] < 1e-6).all()


def test_centroid_is_x_y(factors, cover):
    centres = (np.arange(SIZE) + 0.5) / SIZE
    total = cover.sum((1, 2))
    assert np.abs(cover.sum(1) @ centres / total - factors["x"]).max() * SIZE < 0.1
    assert np.abs(cover.sum(2) @ centres / total - factors["y"]).max() * SIZE < 0.1


def test_colour_is_hue(factors, images):
    for i in range(0, 2000, 20):
        pixel = images[i, int(factors["y"][i] * SIZE), int(factors["x"][i] * SIZE)] / 255
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        found = hue, saturation, value
        assert found == pytest.approx((factors["hue"][i], SATURATION, VALUE), abs=0.006)


def test_long_axis_is_orientation(factors, cover):
    centres = (np.arange(SIZE) + 0.5) / SIZE
    across, down = centres - factors["x"][:, None], centres - factors["y"][:, None]
    second = [np.einsum("nij,nj,ni->n", cover, across**p, down**q) for p, q in ((2, 0), (1, 1), (0, 2))]
    angle = np.arctan2(-2 * second[1], second[2] - second[0]) / 2
    elongated = factors["shape"] < 2
    assert np.abs(angle - factors["orientation"])[elongated].max() < math.radians(2)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_no_two_orientations_look_alike(shape):
    angles = np.linspace(*RANGES["orientation"], 19)
    turned = {name: np.repeat(value, 19) for name, value in one(shape=shape).items()} | {"orientation": angles}
    flat = render(turned, SIZE).reshape(19, -1) / 255
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert distance[np.triu_indices(19, 1)].min() > 0.5


def test_factors_are_uniform_and_independent():
    n = 40_000
    factors = draw_factors(seed=11, split=0, start=0, stop=n)
    assert np.abs(np.bincount(factors["shape"]) / n - 1 / len(SHAPES)).max() < 4 * math.sqrt(0.1875 / n)
    unit = {"shape": (factors["shape"] + 0.5) / len(SHAPES)}
    for name, (low, high) in RANGES.items():
        values = factors[name]
        assert values.dtype == np.float32 and low <= values.min() and values.max() <= np.float32(high)
        unit[name] = (values.astype(float) - low) / (high - low)
        assert np.abs(np.sort(unit[name]) - np.linspace(0, 1, n)).max() < 1.95 / math.sqrt(n)
    for power in 1, 2:
        correlation = np.corrcoef([np.abs(values - 0.5) ** power for values in unit.values()])
        correlation_of_signed = np.corrcoef(list(unit.values()))
        assert np.abs(correlation - np.eye(6)).max() < 4.5 / math.sqrt(n)
        assert np.abs(correlation_of_signed - np.eye(6)).max() < 4.5 / math.sqrt(n)


def test_an_example_depends_on_seed_split_and_index_alone():
    whole = draw_factors(seed=5, split=1, start=0, stop=1000)
    part = draw_factors(seed=5, split=1, start=317, stop=400)
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][317:400])
    seen = set(whole["hue"])
    for seed, split in (6, 1), (5, 0), (5, 2):
        assert len(seen & set(draw_factors(seed, split, 0, 1000)["hue"])) < 3
    few = {name: values[500:503] for name, values in whole.items()}
    np.testing.assert_array_equal(render(few), render(whole)[500:503])


@pytest.mark.parametrize(("size", "digest"), [(64, "c35398abec589df3"), (32, "0e1ab679281cbcc5")])
def test_the_images_never_change(size, digest):
    images = render(draw_factors(seed=0, split=0, start=0, stop=200), size)
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("shape", [(5, 20, 31, 3), (1, 1, 1, 3)])
def test_png_holds_the_pixels(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for image, file in zip(images, encode_png(images), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), image)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    tfds.disable_progress_bar()
    made = tfds.builder("sprites/16x16_50_seed9", data_dir=tmp_path_factory.mktemp("tfds"))
    made.download_and_prepare()
    tfds.enable_progress_bar()
    return made


@pytest.mark.parametrize(("number", "split", "examples"), [(0, "train", 50), (1, "validation", 5), (2, "test", 5)])
def test_stored_is_rendered(builder, number, split, examples):
    stored = next(iter(builder.as_dataset(split=split).batch(100).as_numpy_iterator()))
    order = np.argsort(stored["hue"])
    expected = draw_factors(seed=9, split=number, start=0, stop=examples)
    by_hue = np.argsort(expected["hue"])
    for name, values in expected.items():
        np.testing.assert_array_equal(stored[name][order], values[by_hue])
    np.testing.assert_array_equal(stored["image"][order], render(expected, 16)[by_hue])


def test_tfds_knows_sprites(builder):
    again = tfds.builder("sprites", config=SpritesConfig(16, 50, 9), data_dir=builder.data_path.parents[2])
    assert again.data_path == builder.data_path and again.info.splits["train"].num_examples == 50
    assert again.info.features["shape"].names == list(SHAPES)
    assert tfds.builder("sprites").builder_config.name == "64x64_20000"
    assert tfds.builder("sprites", config=SpritesConfig(32, 200_000)).builder_config.size == 32
    with pytest.raises(ValueError, match="not found"):
        tfds.builder("sprites/enormous")


def test_pairs_differ_in_one_factor_and_are_stored_beside_their_images(tmp_path):
    factors = draw_factors(seed=3, split=0, start=0, stop=4_000)
    partners = draw_partners(factors, seed=3, split=0, start=0)
    differ = np.stack([partners[name] != values for name, values in factors.items()])
    assert differ.sum(axis=0).max() == 1 and differ.dtype == bool
    np.testing.assert_allclose(differ.mean(axis=1) * len(differ), [0.75, 1, 1, 1, 1, 1], atol=0.12)  # shapes may recur
    tail = draw_partners({name: values[128:] for name, values in factors.items()}, seed=3, split=0, start=128)
    for name, values in partners.items():
        assert values.dtype == factors[name].dtype
        np.testing.assert_array_equal(tail[name], values[128:])
    given = {"size": 8, "examples": 150, "config_seed": 3, "data_dir": tmp_path, "shuffle": 0}
    train, validation, _ = kvae.data.load("sprites", 200, pairs=True, labels="partner", **given)
    x, partner = next(train.as_numpy_iterator())
    alone = next(kvae.data.load("sprites", 200, **given)[0].as_numpy_iterator())
    in_order = [np.sort(images.reshape(len(images), -1), axis=0) for images in (x, alone)]
    np.testing.assert_array_equal(*in_order)  # tensorflow-datasets shuffles the rows of the two sets apart
    stored = {image.tobytes(): other for image, other in zip(x, partner, strict=True)}
    drawn = [render({name: each[name][:150] for name in each}, 8) for each in (factors, partners)]
    for image, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(stored[image.tobytes()], other)
    kvae.data.pack(train, tmp_path / "packed", progress=False)
    packed = kvae.data.load(tmp_path / "packed", 30, labels="label", shuffle=0, validation=0)[0]
    assert next(packed.as_numpy_iterator())[1].shape == (30, 8, 8, 3) and validation is not None
    labelled = kvae.data.load("sprites", 50, pairs=True, labels=["partner", "hue"], **given)[0]
    assert labelled.factors.keys() == {"hue"}


def test_configs():
    arguments = [(64, 10, 0), (32, 10, 0), (64, 100, 0), (64, 10, 1), (64, 10, 0, True), (64, 10, 1, True)]
    names = {SpritesConfig(*each).name for each in arguments}
    assert len(names) == 6
    for name in names:
        assert SpritesConfig.from_name(name).name == name
    assert SpritesConfig.from_name("64x32_10") is None
    for arguments in (4, 10, 0), (64, 0, 0), (64, 10, -1), (64, 10.5, 0):
        with pytest.raises(ValueError, match="expected an integer"):
            SpritesConfig(*arguments)
