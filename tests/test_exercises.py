"""The exercises' checks pass the notebooks' own solutions, and tell common mistakes by a hint."""

import importlib
import re

import harness
import numpy as np
import pytest
from scipy.special import logsumexp

from kvae import exercises

SOLUTIONS = {}
for path in sorted(harness.SOURCES.glob("[0-9]*.py")):
    for cell in harness.read(path.stem).cells:
        for code in re.findall(r"<details>.*?```python\n(def (\w+).*?)```", cell.source, re.S):
            SOLUTIONS[code[1]] = code[0]
NAMES = {"np": np, "logsumexp": logsumexp}


def said(source, capsys):
    names = dict(NAMES)
    exec(source, names)
    name = re.search(r"def (\w+)", source)[1]
    getattr(exercises, name)(names[name])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_notebooks_solution_is_right(name, capsys):
    assert said(SOLUTIONS[name], capsys) == "right\n"


PARTS = """log_mixture(z, weights, means, variances):
    squares = (z[:, None] - means) ** 2 / variances
    parts = -0.5 * (squares + np.log(2 * np.pi * variances)).sum(axis=2)
    """
WRONG = [
    ("message_bits(a, b, c): return c - a - b", "these are nats"),
    ("message_bits(a, b, c): return -(a + b) / np.log(2)", "come back"),
    ("explained(x, k): ...", "replace the dots"),
    (
        "explained(x, k): return np.sort(np.linalg.eigvalsh(np.cov(x.T)))[:k].sum() / np.cov(x.T).trace()",
        "largest first",
    ),
    ("explained(x, k): v = np.linalg.svd(x)[1] ** 2; return v[:k].sum() / v.sum()", "mean off"),
    ("explained(x, k): return np.sort(x.var(axis=0))[::-1][:k].sum() / x.var(axis=0).sum()", "turning"),
    ("covariance(batches): return np.cov(np.concatenate(list(batches)).T)", "in memory at once"),
    ("covariance(batches): return np.mean([np.cov(b.T, bias=True) for b in batches], axis=0)", "isn't the covariance"),
    ("covariance(batches): return sum(b.T @ b for b in batches) / 1000", "take the means off"),
    ("nearest(pictures, images): return ((pictures[:, None] - images) ** 2).sum(axis=(2, 3, 4)).min()", "one number"),
    (
        "nearest(pictures, images): return ((pictures[:, None] - images) ** 2).sum(axis=(2, 3, 4)).min(axis=1) ** 0.5",
        "squared",
    ),
    (
        "nearest(pictures, images): return ((pictures[:, None] - images) ** 2).mean(axis=(2, 3, 4)).min(axis=1)",
        "sum the squares",
    ),
    ("draw_codes(codes, count): return codes[np.random.randint(len(codes), size=count)]", "draw new ones"),
    (
        "draw_codes(codes, count): return np.random.normal(codes.mean(axis=0), codes.std(axis=0), (count, 3))",
        "correlated",
    ),
    (
        "draw_codes(codes, count): return np.random.multivariate_normal(0 * codes[0], np.cov(codes.T), count)",
        "mean isn't",
    ),
    ("kl(m, v): return 0.5 * np.mean(m**2 + np.exp(v) - 1 - v, axis=1)", "sum over"),
    ("kl(m, v): return 0.5 * np.sum(m**2 + np.exp(2 * v) - 1 - 2 * v, axis=1)", "logarithm of the variance"),
    ("kl(m, v): return 0.5 * np.sum(m**2 + np.exp(v) - v, axis=1)", "costs nothing"),
    ("k_sample_bound(log_w): return log_w.mean(axis=1)", "ELBO"),
    ("k_sample_bound(log_w): return logsumexp(log_w, axis=1)", "mean is the weight"),
    ("k_sample_bound(log_w): return np.log(np.mean(np.exp(log_w), axis=1))", "logsumexp"),
    ("reparameterize(m, v, eps): return m + np.exp(v) * eps", "square root"),
    ("reparameterize(m, v, eps): return m + np.exp(0.5 * v.mean()) * eps", "own sigma"),
    ("reparameterize(m, v, eps): return m + np.exp(0.5 * v) * np.random.normal(size=eps.shape)", "z is mean"),
    ("score_gradient(f, mu, sigma, z): return np.mean(f(z) * (z - mu) / sigma)", "sigma = 0.5"),
    ("score_gradient(f, mu, sigma, z): return np.mean((f(z + 1e-4) - f(z)) / 1e-4)", "a step"),
    ("score_gradient(f, mu, sigma, z): return f(z) * (z - mu) / sigma**2", "stopped with"),
    ("gaussian_nats(x, mean, v): return 0.5 * ((x - mean) ** 2).sum(axis=(1, 2, 3)) / v", "constant"),
    (
        "gaussian_nats(x, mean, v): return ((x - mean) ** 2 / v + np.log(2 * np.pi * v)).mean(axis=(1, 2, 3)) / 2",
        "silent beta",
    ),
    ("best_variance(x, mean): return np.mean((x - mean) ** 2) ** 0.5", "not sigma"),
    ("best_variance(x, mean): return np.mean(np.sum((x - mean) ** 2, axis=(1, 2, 3)))", "of a pixel"),
    ("best_variance(x, mean): return np.var(x - mean)", "mean of squares"),
    (PARTS + "return logsumexp(parts, axis=1)", "have weights"),
    (PARTS + "return parts @ weights", "mean of logarithms"),
    (PARTS + "return np.log(np.exp(parts) @ weights)", "far from all"),
    (
        PARTS.replace("squares", "variances = variances**2; squares", 1) + "return logsumexp(parts, b=weights, axis=1)",
        "not sigmas",
    ),
    (PARTS + "return logsumexp(parts, b=weights)", "one number"),
    ("free_bits(kl, bits): return np.maximum(kl.sum(axis=1), bits)", "not for their sum"),
    ("free_bits(kl, bits): return np.maximum(kl - bits, 0).sum(axis=1)", "don't subtract"),
    ("free_bits(kl, bits): return np.minimum(kl, bits).sum(axis=1)", "without free bits"),
    ("free_bits(kl, bits): return np.maximum(kl, bits)", "one number"),
    ("paired(a, b): return np.mean(a - b), np.std(a - b) / len(a) ** 0.5", "the mean of b - a"),
    ("paired(a, b): return np.mean(b - a), np.std(b - a)", "divide by"),
    ("paired(a, b): return np.mean(b - a), np.hypot(np.std(a), np.std(b)) / len(a) ** 0.5", "differences first"),
    ("paired(a, b): return np.mean(b - a), np.var(b - a) / len(a)", "standard deviation"),
    ("class_posterior(nats): return np.exp(nats)", "equally well"),
    ("class_posterior(nats): return nats / nats.sum(axis=1, keepdims=True)", "equally well"),
    ("class_posterior(nats): p = np.exp(nats); return p / p.sum()", "equally well"),
    ("class_posterior(nats): p = np.exp(nats); return p / p.sum(axis=1, keepdims=True)", "largest off"),
]


@pytest.mark.parametrize(("source", "hint"), WRONG)
def test_a_wrong_answer_gets_a_hint(source, hint, capsys):
    text = said("def " + source, capsys)
    assert text.startswith("not yet: ") and hint in text


def test_every_check_has_a_solution_and_a_mistake():
    checks = set(exercises.__all__)
    assert checks == {source.partition("(")[0] for source, _ in WRONG}
    assert checks == set(SOLUTIONS)


def test_without_linux_the_cap_shows_the_numbers_of_another_machine(monkeypatch, capsys):
    monkeypatch.syspath_prepend(harness.SOURCES.parent)
    under_a_cap = importlib.import_module("under_a_cap")
    monkeypatch.setattr(under_a_cap.sys, "platform", "darwin")
    lines = under_a_cap.measure("/tmp/16.npy")
    assert "needs Linux" in capsys.readouterr().out
    last = {name: outcome for name, rows, growth, outcome in lines}
    assert {name for name in last if last[name] == "done"} == set(under_a_cap.STREAMS)
    assert set(last) == {*under_a_cap.STREAMS, *under_a_cap.ARRAYS, *under_a_cap.HOLDING}
