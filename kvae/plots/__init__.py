"""Pictures of models and their training: an Axes in or a new one, the same Axes out, nothing shown or set globally."""

from kvae.plots.numbers import comparison, history
from kvae.plots.pictures import manifold, reconstructions, samples, traversals
from kvae.plots.points import latents

__all__ = ["comparison", "history", "latents", "manifold", "reconstructions", "samples", "traversals"]
