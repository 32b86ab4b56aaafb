import numpy as np
import pytest

import kvae
from kvae.data import binarize
from kvae.data.files import from_npy

GREYS = np.repeat(np.array([0, 1, 100, 254, 255], np.uint8), 4_000)[:, None, None, None]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("greys") / "greys.npy"
    np.save(path, np.repeat(GREYS, 3, axis=1))
    return from_npy(path, batch_size=500)


def rows(batches):
    return np.concatenate([batch.numpy() for batch in batches])


def test_a_pixel_is_white_as_often_as_it_is_bright(stream):
    drawn = rows(binarize(stream, seed=1).epoch(0))
    assert drawn.dtype == bool
    shares = drawn.reshape(5, -1).mean(axis=1)
    np.testing.assert_allclose(shares, np.array([0, 1, 100, 254, 255]) / 255, atol=4 * 0.5 / 12_000**0.5)
    assert shares[0] == 0 and shares[4] == 1


def test_draws_are_a_function_of_seed_and_epoch(stream):
    drawn = binarize(stream, seed=1)
    first = rows(drawn.epoch(0))
    np.testing.assert_array_equal(first, rows(binarize(stream, seed=1).epoch(0)))
    np.testing.assert_array_equal(first[1_500:], rows(drawn.epoch(0, skip=3)))
    for other in (drawn.epoch(1), binarize(stream, seed=2).epoch(0)):
        assert 0.4 < (rows(other) != first)[8_000:12_000].mean() < 0.6  # 2 p (1 - p) = 0.48 of pixels at 100
    batches = first[8_000:12_000].reshape(8, -1)
    assert np.abs(np.corrcoef(batches) - np.eye(8)).max() < 0.15


def test_any_number_of_workers_draw_the_same(stream):
    drawn = binarize(stream.skip(30), seed=1)
    thirds = [drawn.epoch(2, skip=1, shard_index=i, num_shards=3) for i in range(3)]
    together = [np.concatenate(batch) for batch in zip(*thirds, strict=True)]
    np.testing.assert_array_equal(np.concatenate(together), rows(drawn.epoch(2, skip=1)))


def test_data_for_validation_are_drawn_once(stream):
    once = binarize(stream, seed=1, anew=False)
    np.testing.assert_array_equal(rows(once.epoch(0)), rows(once.epoch(5)))


def test_only_grey_images_are_drawn_from(stream):
    for data in (GREYS, binarize(stream)):
        with pytest.raises(TypeError, match=r"expected a kvae\.data\.Stream of uint8 images"):
            binarize(data)
    assert kvae.data.image_shape(binarize(stream)) == (3, 1, 1)
