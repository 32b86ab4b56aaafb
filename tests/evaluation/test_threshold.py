"""A threshold keeps its rate of false alarms for any scores, and p-values are uniform or larger."""

import numpy as np
import pytest
import scipy.stats

from kvae.evaluation import threshold


@pytest.mark.parametrize("rate, count", [(0.01, 99), (0.01, 250), (0.05, 100), (0.3, 7)])
def test_the_mean_of_false_alarms_is_the_expected_rate_and_no_more_than_asked(rng, rate, count):
    """Over many calibration sets, of scores with a tail: the rate is exact, and of distinct scores no less."""
    runs = 2000
    scores, new = rng.standard_t(2, size=(runs, count)), rng.standard_t(2, size=(runs, 50))
    found = [threshold(each, rate) for each in scores]
    alarms = np.array([each.is_odd(x).mean() for each, x in zip(found, new, strict=True)])
    expected = found[0].expected_rate
    assert rate - 1 / (count + 1) < expected <= rate
    assert abs(alarms.mean() - expected) < 4 * alarms.std() / np.sqrt(runs)
    low, high = found[0].interval(0.9)
    true = np.array([scipy.stats.t(2).cdf(each.value) for each in found])
    assert abs(np.mean((low <= true) & (true <= high)) - 0.9) < 0.02


def test_p_values_are_uniform_and_agree_with_the_threshold(rng):
    found = threshold(rng.normal(size=999), 0.05)
    new = rng.normal(size=5000)
    p = found.p_values(new)
    assert np.array_equal(p <= 0.05, found.is_odd(new))
    assert scipy.stats.kstest(p, "uniform").statistic < 0.05
    assert found.p_values([-np.inf, np.inf]).tolist() == [1 / 1000, 1.0]


def test_ties_raise_no_more_alarms():
    found = threshold(np.repeat([0.0, 1.0], 100), 0.1)
    assert not found.is_odd([0.0, 1.0]).any() and found.is_odd([-0.1]).all()
    assert found.p_values([0.0])[0] == 101 / 201


def test_too_few_scores_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"There are 98 scores; a rate of 0\.01 needs at least 99"):
        threshold(np.arange(98.0), 0.01)
    assert threshold(np.arange(99.0), 0.01).value == 0
    with pytest.raises(ValueError, match="scores has 1 NaN"):
        threshold([0.0, np.nan])
    with pytest.raises(ValueError, match=r"rate is 1\.0"):
        threshold(np.arange(99.0), 1.0)
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        threshold(np.zeros((3, 2)))
