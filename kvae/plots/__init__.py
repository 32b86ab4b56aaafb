"""Pictures of models and their training: an Axes in or a new one, the same Axes out, nothing shown or set globally."""

from kvae.plots.densities import aggregate_posterior, posterior
from kvae.plots.maps import code_map
from kvae.plots.matrices import matrix
from kvae.plots.numbers import comparison, history
from kvae.plots.pictures import manifold, reconstructions, samples, traversals
from kvae.plots.points import latents

__all__ = [
    "aggregate_posterior",
    "code_map",
    "comparison",
    "history",
    "latents",
    "manifold",
    "matrix",
    "posterior",
    "reconstructions",
    "samples",
    "traversals",
]
