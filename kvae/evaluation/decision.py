"""A threshold of scores that keeps its rate of false alarms, and p-values: split-conformal prediction."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special

from kvae import arguments


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The result of `threshold`: a row is odd if its score is below `value`.

    Attributes:
        value: float, a score of the calibration rows.
        rate: float, the false alarms that were asked for.
        expected_rate: float, the expected share of false alarms over calibration sets and new rows: at most `rate`,
            and less than it by less than 1 / (n + 1).
        calibration: the calibration scores in ascending order, (n,).
    """

    value: float
    rate: float
    expected_rate: float
    calibration: np.ndarray

    def is_odd(self, scores: Any) -> np.ndarray:
        """Whether scores (n,) are below the threshold: a bool array (n,)."""
        return _scores("scores", scores) < self.value

    def p_values(self, scores: Any) -> np.ndarray:
        """(1 + number of calibration scores at most as high) / (n + 1) for scores (m,): an array (m,).

        For rows like the calibration's, p is at most t with a probability of at most t, for each t. Rows with
        p <= `rate` are those of `is_odd`.
        """
        at_most = np.searchsorted(self.calibration, _scores("scores", scores), side="right")
        return (1 + at_most) / (len(self.calibration) + 1)

    def interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """The range of the false alarms with this very threshold, by the beta distribution of its rank.

        `expected_rate` is a mean over calibration sets. With scores that differ, the rate of a single one lies in this
        interval with a probability of `confidence`, a number between 0 and 1.
        """
        if not 0 < arguments.real("confidence", confidence) < 1:
            raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1.")
        count, tail = len(self.calibration), (1 - confidence) / 2
        rank = round(self.expected_rate * (count + 1))
        low, high = (float(special.betaincinv(rank, count + 1 - rank, share)) for share in (tail, 1 - tail))
        return low, high


def threshold(scores: Any, rate: float = 0.01) -> Threshold:
    """The threshold below which a share of at most `rate` of new rows will fall, whatever the model.

    The rows of the calibration must be like the new ones, in random order with them (exchangeable), and unknown to the
    model: scores of training rows are too high, and a threshold from them raises more alarms. The guarantee holds for
    any scores, good or bad. It is one of the mean over calibration sets; `Threshold.interval` tells the spread.

    Args:
        scores: (n,), scores of calibration rows, as `model.score_samples` gives them: low for odd rows.
        rate: number between 0 and 1, the false alarms.

    Returns:
        A `Threshold`.

    Raises:
        ValueError: for fewer than 1 / rate - 1 scores, of which no threshold follows, and for scores with NaN.

    Example:
        >>> scores = np.random.default_rng(0).normal(size=999)
        >>> found = kvae.evaluation.threshold(scores, rate=0.05)
        >>> int(found.is_odd(scores).sum()), found.p_values([found.value]).round(3)
        (49, array([0.051]))

    Reference:
        Vovk, Gammerman and Shafer (2005), "Algorithmic learning in a random world", section 4.1; Angelopoulos and Bates
        (2023), "Conformal prediction: a gentle introduction", section 3.2 on the beta distribution.
    """
    calibration = np.sort(_scores("scores", scores))
    if not 0 < arguments.real("rate", rate) < 1:
        raise ValueError(f"rate is {rate!r}; expected a number between 0 and 1.")
    rank = math.floor(rate * (len(calibration) + 1) * (1 + 1e-12))
    if not rank:
        raise ValueError(
            f"There are {len(calibration):,} scores; a rate of {rate:g} needs at least {math.ceil(1 / rate) - 1:,} of "
            "them: give more calibration rows, or a higher rate."
        )
    return Threshold(float(calibration[rank - 1]), float(rate), rank / (len(calibration) + 1), calibration)


def _scores(name, values):
    """Scores as an array (n,). Raises TypeError or ValueError for others."""
    values = arguments.array(name, values)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} is an array of shape {values.shape}; expected one number a row, (n,).")
    if np.isnan(values).any():
        raise ValueError(f"{name} has {np.isnan(values).sum():,} NaN; expected numbers.")
    return values
