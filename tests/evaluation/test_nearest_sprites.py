"""The search finds sprites that are there, and never says nearer than the truth."""

import numpy as np
import pytest

import kvae
from kvae.data.sprites.render import BACKGROUND, draw_factors, render
from kvae.evaluation import nearest_sprites

SIZE = 24


@pytest.fixture(scope="module")
def planted():
    """Sprites that are none of the search's own starts."""
    return draw_factors(seed=11, split=2, start=0, stop=40)


def test_sprites_are_found_with_their_factors(planted):
    found, error = nearest_sprites(render(planted, SIZE))
    assert np.mean(error) < 0.5, "of some 30, the mean image's"
    shape = found["shape"] == planted["shape"]
    assert shape.mean() > 0.8
    for name, close in {"hue": 0.02, "scale": 0.01, "x": 0.01, "y": 0.01, "orientation": 0.1}.items():
        assert np.median(np.abs(found[name] - planted[name])[shape]) < close, name


def test_the_error_is_that_of_the_factors(planted):
    images = render(planted, SIZE) / np.float32(255) * 0.7
    found, error = nearest_sprites(images, rounds=10)
    again = ((render(found, SIZE) / 255 - images) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(error, again, rtol=1e-4)


def test_more_rounds_are_nearer_and_equal_seeds_equal(planted):
    images = render(planted, SIZE)[:8]
    errors = [nearest_sprites(images, rounds)[1] for rounds in (0, 30, 30)]
    assert (errors[1] <= errors[0]).all() and (errors[1] < errors[0]).any()
    np.testing.assert_array_equal(errors[1], errors[2])


def test_two_sprites_in_one_image_are_as_far_as_the_one_left_out():
    factors = {name: values[:1].repeat(2) for name, values in draw_factors(3, 0, 0, 1).items()}
    factors |= {"shape": np.array([0, 0]), "scale": np.full(2, 0.2), "x": np.array([0.2, 0.8]), "y": np.full(2, 0.5)}
    left, right = render(factors, SIZE) / np.float32(255)
    ground = np.array(BACKGROUND, np.float32) / 255
    error = nearest_sprites((left + right - ground)[None])[1]
    assert error[0] > 0.5 * ((left - ground) ** 2).sum()


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1), (2, 8, 9, 3)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(n, size, size, 3\)"):
        nearest_sprites(np.zeros(shape))


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match=r"kvae\.evaluation\.nearest_sprites"):
        assert kvae.data.nearest_sprites is nearest_sprites
