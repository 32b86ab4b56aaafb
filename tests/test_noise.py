import numpy as np
import pytest
import scipy.stats

from kvae.noise import indexed_normal, philox


@pytest.mark.parametrize(
    "key, counter, block, expected",
    [
        (0, 0, 0, (0xFF1DAE59, 0x6CD10DF2)),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        (0x13198A2E, 0x243F6A88, 0x85A308D3, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_gives_the_known_answers_of_random123(key, counter, block, expected):
    left, right = philox(key, np.array([counter]), np.array([block]))
    assert (int(left[0]), int(right[0])) == expected


def test_noise_is_standard_normal_and_uncorrelated():
    eps = np.asarray(indexed_normal(np.arange(50_000), 5))
    assert scipy.stats.kstest(eps.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(eps.T) - np.eye(5)).max() < 0.02
    assert abs(np.corrcoef(eps[:-1, 0], eps[1:, 0])[0, 1]) < 0.02


def test_noise_is_a_function_of_the_index_alone():
    whole = np.asarray(indexed_normal(np.arange(100), 7))
    np.testing.assert_array_equal(indexed_normal(np.array([41, 3, 99]), 7), whole[[41, 3, 99]])
    assert not np.any(np.asarray(indexed_normal(np.arange(100), 7, key=1)) == whole)
