"""Annealed importance sampling and simulation-based calibration, where the truth is known."""

import linear_gaussian
import numpy as np
import pytest
from scipy import stats

import kvae
from kvae import evaluation
from kvae.evaluation import calibration
from kvae.networks import dense_decoder, dense_encoder

X = np.zeros((4, 12), "float32")
NUMBERS = [
    (evaluation.annealed_importance_sampling, (X,), ("steps", "chains", "leapfrogs", "batch_size")),
    (evaluation.bidirectional, (), ("examples", "steps", "chains", "leapfrogs")),
    (evaluation.simulation_based_calibration, (), ("runs", "num_draws", "bins")),
    (evaluation.aggregate_posterior, (X,), ("components",)),
]


def test_annealing_brackets_log_p_of_x():
    x = linear_gaussian.data(500).astype("float64")
    pca = kvae.PCA(3).fit(x, verbose=0)
    found = evaluation.bidirectional(pca, examples=60, steps=300, leapfrogs=8)
    truth = pca.evaluate(found.x, return_dict=True, verbose=0)["log_likelihood"]
    assert truth - 0.05 < np.mean(found.lower) < truth + 0.01
    assert truth - 0.01 < np.mean(found.upper) < truth + 0.05
    exact = pca.log_prob(found.x).numpy()
    assert np.std(found.lower - exact) < 0.2 and np.std(found.upper - exact) < 0.2


def test_few_steps_still_give_unbiased_estimates_of_p_of_x_and_its_inverse():
    x = linear_gaussian.data(500).astype("float64")
    pca = kvae.PCA(2).fit(x, verbose=0)
    found = evaluation.bidirectional(pca, examples=1_000, steps=5, chains=8, leapfrogs=4)
    exact = pca.log_prob(found.x).numpy()
    assert np.mean(found.lower) < np.mean(exact) - 0.02 and np.mean(found.upper) > np.mean(exact) + 0.02
    for ratios in (np.exp(found.lower - exact), np.exp(exact - found.upper)):
        assert abs(np.mean(ratios) - 1) < 4 * np.std(ratios) / np.sqrt(1_000)


def test_annealing_needs_no_posterior():
    model, log_p = linear_gaussian.model(shift=50.0)
    x = linear_gaussian.data(20)
    found = evaluation.annealed_importance_sampling(model, x, steps=200, leapfrogs=8, batch_size=16)
    np.testing.assert_allclose(found, log_p(x), atol=0.5)
    assert np.mean(found) == pytest.approx(np.mean(log_p(x)), abs=0.1)
    assert evaluation.log_likelihood(model, x, samples=200).mean < np.mean(log_p(x)) - 100


def test_calibration_passes_the_exact_posterior_and_finds_an_error_of_a_tenth():
    exact, _ = linear_gaussian.model()
    found = evaluation.simulation_based_calibration(exact, runs=10_000)
    assert found.calibrated
    assert found.ranks.shape == (10_000, 3) and found.ranks.min() == 0 and found.ranks.max() == 99
    for error in ({"spread": 0.9}, {"spread": 1.1}, {"shift": 0.1}):
        planted, _ = linear_gaussian.model(**error)
        wrong = evaluation.simulation_based_calibration(planted, runs=10_000)
        assert not wrong.calibrated and np.max(wrong.p_values) < 1e-4, error


@pytest.mark.parametrize("check, data, names", NUMBERS, ids=lambda value: getattr(value, "__name__", None))
def test_what_makes_no_sense_is_refused_in_a_sentence(check, data, names):
    model, _ = linear_gaussian.model()
    for name in names:
        for value in (0, 2.5):
            with pytest.raises(ValueError, match=f"{name} is {value}; expected an integer of at least [12]"):
                check(model, *data, **{name: value})
    with pytest.raises(ValueError, match=r"seed is 1.5; expected an integer from 0 to 2\*\*32 - 1"):
        check(model, *data, seed=1.5)
    autoencoder = kvae.Autoencoder(dense_encoder((12,), 2, (8,)), dense_decoder((12,), 2, (8,)))
    with pytest.raises(TypeError, match=r"Autoencoder has no (p\(z\)|posterior) to draw from; expected a VAE"):
        check(autoencoder, *data)
    with pytest.raises(ValueError, match=r"hasn't been fitted|doesn't know its images' shape yet: call fit"):
        check(kvae.PCA(2), *data)


def test_the_old_name_of_the_number_of_draws_still_works():
    exact, _ = linear_gaussian.model()
    with pytest.warns(DeprecationWarning, match="draws= is now num_draws="):
        old = evaluation.simulation_based_calibration(exact, runs=20, draws=19)
    new = evaluation.simulation_based_calibration(exact, runs=20, num_draws=19)
    np.testing.assert_array_equal(old.ranks, new.ranks)


def test_p_values_of_ranks_are_scipys(rng):
    counts = rng.integers(20, 60, (5, 20))
    np.testing.assert_allclose(calibration._p_values(counts), stats.chisquare(counts, axis=1).pvalue, rtol=1e-12)
