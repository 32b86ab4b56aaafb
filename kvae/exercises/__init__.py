"""Checks of the notebooks' exercises: each tries properties of a reader's function, and says "right" or gives a hint.

Every check has the name of the function that a notebook asks for, and takes it as its argument.
"""

from kvae.exercises.practice import class_posterior, free_bits, log_mixture, message_bits, paired
from kvae.exercises.theory import (
    best_variance,
    covariance,
    draw_codes,
    explained,
    gaussian_nats,
    k_sample_bound,
    kl,
    nearest,
    reparameterize,
    score_gradient,
)

__all__ = [
    "best_variance",
    "class_posterior",
    "covariance",
    "draw_codes",
    "explained",
    "free_bits",
    "gaussian_nats",
    "k_sample_bound",
    "kl",
    "log_mixture",
    "message_bits",
    "nearest",
    "paired",
    "reparameterize",
    "score_gradient",
]
