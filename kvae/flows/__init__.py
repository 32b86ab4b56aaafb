"""Flows: invertible maps of the latents with known log-determinants, for posteriors and priors."""

from kvae.flows.affine import Coupling, InverseAutoregressive
from kvae.flows.base import Flow, Transformed
from kvae.flows.planar import Planar

__all__ = ["Coupling", "Flow", "InverseAutoregressive", "Planar", "Transformed"]
