"""Numbers about a trained model, from a stream."""

from kvae.evaluation.aggregate import ActiveUnits, AggregatePosterior, active_units, aggregate_posterior
from kvae.evaluation.annealing import Bracket, annealed_importance_sampling, bidirectional
from kvae.evaluation.calibration import Calibration, simulation_based_calibration
from kvae.evaluation.columns import ColumnScores, column_scores
from kvae.evaluation.comparison import compare, squared_error
from kvae.evaluation.decision import Threshold, threshold
from kvae.evaluation.decomposition import Decomposition, RateDistortion, elbo_decomposition, rate_distortion
from kvae.evaluation.disentanglement import Disentanglement, Score, disentanglement
from kvae.evaluation.importance import LogLikelihood, log_likelihood
from kvae.evaluation.quadrature import ExactPosterior, exact_posterior
from kvae.evaluation.reporting import Report, report
from kvae.evaluation.sprite_search import nearest_sprites

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "Bracket",
    "Calibration",
    "ColumnScores",
    "Decomposition",
    "Disentanglement",
    "ExactPosterior",
    "LogLikelihood",
    "RateDistortion",
    "Report",
    "Score",
    "Threshold",
    "active_units",
    "aggregate_posterior",
    "annealed_importance_sampling",
    "bidirectional",
    "column_scores",
    "compare",
    "disentanglement",
    "elbo_decomposition",
    "exact_posterior",
    "log_likelihood",
    "nearest_sprites",
    "rate_distortion",
    "report",
    "simulation_based_calibration",
    "squared_error",
    "threshold",
]
