"""An audit of anyone's VAE loss: what it really minimizes, by its values at chosen points."""

from kvae.auditing.findings import Audit, Check, Finding
from kvae.auditing.losses import audit
from kvae.auditing.networks import audit_model

__all__ = ["Audit", "Check", "Finding", "audit", "audit_model"]
