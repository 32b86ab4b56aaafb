"""The formulas of kvae's objectives, written anew in numpy: an audit of a model compares two of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from scipy import special

from kvae import objectives

# By class: function (objective, arrays of a draw, step) to losses (n,).
_FORMULAS: dict[type, Callable[[Any, dict[str, Any], int], np.ndarray]] = {}


def expected_losses(objective: Any, draw: Any, step: int = 0) -> np.ndarray | None:
    """The losses (n,) of a draw by the objective's formula; None if the objective isn't one of kvae's.

    Args:
        objective: a `kvae.Objective`.
        draw: `kvae.Draw` with its posterior.
        step: int, of the optimizer.
    """
    formula = _FORMULAS.get(type(objective))
    if formula is None:
        return None
    arrays = {
        name: None if getattr(draw, name) is None else ops.convert_to_numpy(getattr(draw, name)).astype("float64")
        for name in ("z", "log_likelihood", "log_prior", "log_posterior", "kl")
    }
    arrays["posterior"] = draw.posterior
    return formula(objective, arrays, step)


def elbo(draw: dict[str, Any]) -> np.ndarray:
    """E_q[log p(x|z)] - KL(q(z|x) || p(z)), (n,)."""
    return draw["log_likelihood"].mean(axis=1) - _kl(draw).sum(axis=1)


def _kl(draw):
    if draw["kl"] is not None:
        return draw["kl"]
    return (draw["log_posterior"] - draw["log_prior"]).mean(axis=1, keepdims=True)


def _at(value: Any, step: Any) -> float:
    number: Any = value(step) if callable(value) else value
    return float(number)


def _of(kind):
    def register(formula):
        _FORMULAS[kind] = formula
        return formula

    return register


@_of(objectives.ELBO)
def _elbo(objective, draw, step):
    kl = np.maximum(_kl(draw), objective.free_bits) if objective.free_bits else _kl(draw)
    return -draw["log_likelihood"].mean(axis=1) + _at(objective.beta, step) * kl.sum(axis=1)


@_of(objectives.IWAE)
def _iwae(objective, draw, step):
    log_weights = draw["log_likelihood"] + draw["log_prior"] - draw["log_posterior"]
    return -np.log(np.mean(np.exp(log_weights - log_weights.max(axis=1, keepdims=True)), axis=1)) - log_weights.max(1)


@_of(objectives.AnnealedCapacity)
def _capacity(objective, draw, step):
    distance = abs(_kl(draw).sum(axis=1).mean() - _at(objective.capacity, step))
    return -draw["log_likelihood"].mean(axis=1) + objective.gamma * distance


@_of(objectives.DIP)
def _dip(objective, draw, step):
    q = draw["posterior"]
    means = ops.convert_to_numpy(q.mean).astype("float64")
    covariance = np.atleast_2d(np.cov(means.T, bias=True))
    if objective.kind == "II":
        cholesky = getattr(q, "cholesky", None)
        roots = np.exp(0.5 * ops.convert_to_numpy(q.log_var).astype("float64"))[..., None] * np.eye(means.shape[1])
        roots = roots if cholesky is None else ops.convert_to_numpy(cholesky).astype("float64")
        covariance = covariance + np.mean(roots @ roots.transpose(0, 2, 1), axis=0)
    penalty = objective.lambda_d * np.sum((np.diag(covariance) - 1) ** 2)
    penalty += objective.lambda_od * np.sum(covariance[~np.eye(len(covariance), dtype=bool)] ** 2)
    return -elbo(draw) + penalty


@_of(objectives.BetaTCVAE)
def _total_correlation(objective, draw, step):
    q, z = draw["posterior"], draw["z"]
    mean, sigma = (ops.convert_to_numpy(v).astype("float64") for v in (q.mean, ops.exp(0.5 * q.log_var)))
    n, total = len(mean), objective.examples
    losses = -elbo(draw)
    for row, sample in np.ndindex(*z.shape[:2]):
        standardized = (z[row, sample] - mean) / sigma  # (n, latent_dim)
        logs = -0.5 * standardized**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
        if objective.sampling == "weighted":
            weights = np.full(n, 1 / (total * n))
        else:
            weights = np.full(n, (total - 1) / (total * max(n - 1, 1)))
            weights[row] = 1 / total
        log_q = special.logsumexp(logs.sum(axis=1), b=weights)
        log_marginals = np.sum(special.logsumexp(logs, b=weights[:, None], axis=0))
        terms = [
            (objective.alpha, draw["log_posterior"][row, sample] - log_q),
            (_at(objective.beta, step), log_q - log_marginals),
            (objective.gamma, log_marginals - draw["log_prior"][row, sample]),
        ]
        losses[row] += sum((weight - 1) * term for weight, term in terms) / z.shape[1]
    return losses
