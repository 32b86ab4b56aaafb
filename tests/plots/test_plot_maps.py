"""The map's dots lie on the tiles that decode their codes."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kvae
from kvae import plots

SIDE, SIZE = 4, 9


@pytest.fixture(scope="module")
def pca_and_images():
    """Grey images in a plane, 0.1 to 0.9, and the PCA that decodes this plane exactly."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.normal(size=(SIDE * SIDE, 2)))[0].T
    x = 0.5 + generator.uniform(-0.3, 0.3, (200, 2)) * [1.0, 0.5] @ axes
    x = (x + generator.normal(0, 1e-4, x.shape)).reshape(-1, SIDE, SIDE, 1).astype("float32")
    return kvae.PCA(2).fit(x, verbose=0), x


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_dot_lies_on_the_tile_most_like_its_image(pca_and_images):
    pca, x = pca_and_images
    ax = plots.code_map(pca, x, size=SIZE)
    board = np.ma.filled(ax.images[0].get_array(), np.nan)
    tiles = board.reshape(SIZE, SIDE, SIZE, SIDE).swapaxes(1, 2).reshape(SIZE * SIZE, -1)
    distance = ((x.reshape(len(x), 1, -1) - tiles) ** 2).sum(axis=-1)
    column, row = np.asarray(ax.collections[0].get_offsets()).T
    nearest = np.rint(row).astype(int) * SIZE + np.rint(column).astype(int)
    each = np.arange(len(x))
    assert np.mean(distance[each, nearest] <= distance.min(axis=1) + 1e-6) > 0.95


def test_the_board_goes_a_tenth_beyond_the_codes_and_has_round_ticks(pca_and_images):
    pca, x = pca_and_images
    ax = plots.code_map(pca, x, size=SIZE)
    shown = [float(label.get_text().replace("−", "-")) for label in ax.get_xticklabels()]
    slope = (shown[-1] - shown[0]) / (ax.get_xticks()[-1] - ax.get_xticks()[0])
    codes = pca.transform(x)[:, 0]
    margin = 0.1 * (codes.max() - codes.min())
    start = shown[0] - slope * ax.get_xticks()[0]
    np.testing.assert_allclose([start, start + slope * (SIZE - 1)], [codes.min() - margin, codes.max() + margin])
    assert ax.get_xlabel() == "z0" and "200 images" in ax.get_title()


def test_it_draws_where_it_is_told(pca_and_images):
    ax = plt.subplots()[1]
    assert plots.code_map(*pca_and_images, ax=ax) is ax


def test_other_codes_and_sizes_are_refused(pca_and_images):
    pca, x = pca_and_images
    with pytest.raises(ValueError, match="drawn for 2 latents"):
        plots.code_map(kvae.PCA(3).fit(x, verbose=0), x)
    with pytest.raises(ValueError, match="size"):
        plots.code_map(pca, x, size=1)
