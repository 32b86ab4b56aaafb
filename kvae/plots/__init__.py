"""Pictures of models and their training. Each function draws in the Axes `ax`, or a new one, and returns it."""

from kvae.plots.codes import latents
from kvae.plots.densities import aggregate_posterior, posterior
from kvae.plots.numbers import comparison, disentanglement, history, matrix
from kvae.plots.overview import overview
from kvae.plots.pictures import code_map, manifold, reconstructions, samples, traversals

__all__ = [
    "aggregate_posterior",
    "code_map",
    "comparison",
    "disentanglement",
    "history",
    "latents",
    "manifold",
    "matrix",
    "overview",
    "posterior",
    "reconstructions",
    "samples",
    "traversals",
]
