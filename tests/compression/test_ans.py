"""The stack of bits and the frequencies that go on it."""

import numpy as np
import pytest
from keras import ops
from scipy import stats

from kvae import distributions
from kvae.compression.ans import PRECISION, Stack
from kvae.compression.symbols import BUCKETS, Buckets, LatentPrior, likelihood_symbols

TOTAL = 1 << PRECISION
RNG = np.random.default_rng(0)


def test_a_stack_returns_symbols_last_in_first_out_and_is_as_long_as_their_information():
    shares = np.array([0.9, 0.06, 0.039, 0.001])
    frequencies = (shares * TOTAL).astype("uint64")
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]]).astype("uint64")
    symbols = RNG.choice(4, p=shares, size=(5_000, 8))
    stack = Stack(lanes=8)
    for row in symbols:
        stack.push(starts[row], frequencies[row])
    information = -np.log2(shares[symbols]).sum()
    bits = 32 * stack.size + np.sum(np.log2(stack.heads.astype(float)) - 32)
    assert abs(bits - information) < 1  # of 24,000
    for row in symbols[::-1]:
        found = np.searchsorted(starts, stack.peek(8), side="right") - 1
        assert np.array_equal(found, row)
        stack.pop(starts[row], frequencies[row])
    assert stack.holds(np.uint32([]))
    with pytest.raises(ValueError, match="no bits left"):
        stack.pop(np.zeros(8, "uint64"), np.full(8, 1, "uint64"))


def test_a_lane_begins_with_a_word_and_ends_with_it():
    words = RNG.integers(0, 1 << 32, 3).astype("uint32")
    stack = Stack(words, lanes=3)
    stack.begin(0, 1)
    stack.begin(1, 3)
    assert stack.size == 0 and np.array_equal(stack.heads[[0, 1, 2]] & np.uint64(2**32 - 1), words[[2, 0, 1]])
    stack.push(np.uint64([5]), np.uint64([9]))
    with pytest.raises(ValueError, match="left over"):
        stack.end(0, 1)
    stack.pop(np.uint64([5]), np.uint64([9]))
    stack.end(1, 3)
    stack.end(0, 1)
    assert stack.holds(words)


def test_a_scrambled_block_pops_uniform_bits_and_pushes_them_back():
    words = np.zeros(4_000, "uint32")  # as far from uniform as can be
    stack, slots = Stack(words, lanes=4), []
    halves = np.full(4, TOTAL // 2, "uint64")
    with stack.scrambled(3, 4, is_popping=True):
        for _ in range(10_000):
            slots.append(stack.peek(4) >= halves)
            stack.pop(slots[-1] * halves, halves)
    assert abs(np.mean(slots) - 0.5) < 0.01
    with stack.scrambled(3, 4, is_popping=False):
        for bits in slots[::-1]:
            stack.push(bits * halves, halves)
    assert stack.holds(words)


POSITIONS = 3
MEANS = RNG.normal(0.5, 0.4, (5, POSITIONS, 1, 2))
DISTRIBUTIONS = {
    "Bernoulli": (distributions.Bernoulli(RNG.normal(size=(5, POSITIONS)) * 4), 2, 1),
    "CategoricalLevels": (distributions.CategoricalLevels(RNG.normal(size=(5, POSITIONS, 7)) * 3), 7, 6),
    "DiscretizedLogisticMixture": (
        distributions.DiscretizedLogisticMixture(
            *(ops.convert_to_tensor(v) for v in (RNG.normal(size=(5, POSITIONS, 2)), MEANS, MEANS - 3)), levels=9
        ),
        9,
        8,
    ),
    "Poisson": (distributions.Poisson(ops.convert_to_tensor(RNG.normal(size=(5, POSITIONS)) + 1)), 60, 1),
    "NegativeBinomial": (
        distributions.NegativeBinomial(*(ops.convert_to_tensor(RNG.normal(size=(5, POSITIONS))) for _ in range(2))),
        4_000,
        1,
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_frequencies_are_the_probabilities_of_the_distribution(name):
    p, levels, scale = DISTRIBUTIONS[name]
    names = [field for field in p.__dataclass_fields__ if field != "levels"]
    parameters = {field: ops.convert_to_numpy(getattr(p, field)) for field in names}
    symbols = likelihood_symbols(type(p), parameters, levels)
    shown = np.arange(min(levels, 30))
    values = np.tile(shown, (POSITIONS, 1))
    log_probs = []
    for value in shown:
        rows = np.full((5, POSITIONS) if "Mixture" not in name else (5, POSITIONS, 1), value / scale)
        log_probs.append(ops.convert_to_numpy(p.log_prob(ops.convert_to_tensor(rows))))
    found = np.zeros((len(shown), 5))
    for position in range(POSITIONS):
        total = np.zeros(5)
        for value in range(levels if levels < 100 else 30):
            start, frequency = symbols.interval(position, np.full(5, value), values)
            assert np.array_equal(start, total.astype("uint64")) and frequency.min() >= 1
            for slot in (start, start + frequency - np.uint64(1)):
                assert np.array_equal(symbols.find(position, slot, values), np.full(5, value))
            total += frequency
            if value < len(shown):
                found[value] += np.log(frequency.astype(float) / TOTAL)
        assert levels > 100 or np.all(total == TOTAL)
    likely = np.array(log_probs) > -9  # the least frequency is 2 of 2^28
    assert likely.sum() >= 5
    np.testing.assert_allclose(found[likely], np.array(log_probs)[likely], atol=2e-3)


def test_channels_share_the_component_of_their_pixel():
    shape = (4, 2, 3)  # rows, pixels, channels
    logits, means, scales = (RNG.normal(size=size) for size in ((4, 2, 5), (*shape, 5), (*shape, 5)))
    p = distributions.DiscretizedLogisticMixture(
        *(ops.convert_to_tensor(v) for v in (logits, means, scales - 3)), levels=9
    )
    x = np.rint(p.sample(seed=0) * 8).astype(int)
    parameters = {"logits": logits, "means": means, "log_scales": scales - 3}
    symbols = likelihood_symbols(type(p), parameters, 9)
    values = x.reshape(4, -1).T
    log_prob = sum(np.log(symbols.interval(k, values[k], values)[1].astype(float) / TOTAL) for k in range(6))
    np.testing.assert_allclose(log_prob, p.log_prob(ops.convert_to_tensor(x / 8)), atol=1e-3)


@pytest.mark.parametrize("mean, log_var", [(0.3, -4.0), (0.0, 0.0), (7.0, -9.0), (-4.0, 2.0)])
def test_buckets_have_the_mass_of_the_posterior_and_of_the_prior(mean, log_var):
    sigma = np.exp(0.35)
    prior = LatentPrior(np.ones(1), np.array([[0.5]]), np.array([[0.7]]))
    q = Buckets(np.array([[mean]]), np.array([[log_var]]), prior)
    edges = stats.norm(0.5, 2 * sigma).ppf(np.arange(BUCKETS + 1) / BUCKETS)
    masses = np.diff(stats.norm(mean, np.exp(log_var / 2)).cdf(edges))
    priors = np.diff(stats.norm(0.5, sigma).cdf(edges))
    for bucket in [0, BUCKETS - 1, int(np.argmax(masses)), *RNG.integers(0, BUCKETS, 20)]:
        frequency = q.interval(0, np.array([bucket]), None)[1]
        assert abs(float(frequency[0]) / TOTAL - masses[bucket]) < 2e-8 and frequency[0] < TOTAL
        start, frequency = prior.interval(0, np.array([bucket]), None)
        assert float(frequency[0]) / TOTAL == pytest.approx(priors[bucket], abs=1.2e-8, rel=1e-3) and frequency[0] > 0
        assert prior.find(0, start + frequency - np.uint64(1), None) == bucket == prior.find(0, start, None)
    np.testing.assert_allclose(
        prior.z(np.array([[0, 7_000, BUCKETS - 1]]))[:, 0],
        stats.norm(0.5, 2 * sigma).ppf((np.array([0, 7_000, BUCKETS - 1]) + 0.5) / BUCKETS),
    )


def test_the_prior_of_a_mixture_is_its_density_one_latent_after_another():
    weights, means, log_vars = np.array([0.2, 0.5, 0.3]), RNG.normal(size=(3, 4)) * 2, RNG.normal(size=(3, 4))
    prior = LatentPrior(weights, means, log_vars)
    mixture = distributions.Mixture(
        distributions.Normal(ops.convert_to_tensor(means), ops.convert_to_tensor(log_vars)),
        ops.convert_to_tensor(np.log(weights)),
    )
    z = ops.convert_to_numpy(mixture.components.sample(seed=0))
    buckets = np.searchsorted(Buckets.EDGES, ((z - prior.mean) / prior.sigma).T, side="right") - 1
    log_prob = np.zeros(3)
    for position in range(4):
        start, frequency = prior.interval(position, buckets[position], buckets)
        assert np.array_equal(prior.find(position, start, buckets), buckets[position])
        widths = prior.sigma[position] * np.diff(Buckets.EDGES)[buckets[position]]
        log_prob += np.log(frequency.astype(float) / TOTAL / widths)
    np.testing.assert_allclose(log_prob, mixture.log_prob(ops.convert_to_tensor(z)), atol=0.01)
