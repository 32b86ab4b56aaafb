"""Autoencoders and variational autoencoders in Keras, for data larger than memory."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"kvae needs Keras on TensorFlow, but here Keras runs on {keras.backend.backend()}: set the environment "
        'variable KERAS_BACKEND to tensorflow (or "backend" in ~/.keras/keras.json) before Python imports Keras.'
    )

from kvae import (
    callbacks,
    compression,
    data,
    distributions,
    evaluation,
    flows,
    networks,
    optimizers,
    plots,
    posteriors,
    schedules,
    widgets,
)
from kvae.auditing import Audit, Finding, audit, audit_model
from kvae.layers import Sampling
from kvae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ColumnsLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from kvae.models import PCA, VAE, VQVAE, AdaGVAE, Autoencoder, ConditionalVAE, FactorVAE, HierarchicalVAE, fit_prior
from kvae.objectives import DIP, ELBO, IWAE, AnnealedCapacity, BetaTCVAE, Draw, Objective
from kvae.priors import FlowPrior, MixtureOfGaussians, Prior, StandardNormal, VampPrior
from kvae.saving import load

__version__ = "0.1.0"

__all__ = [
    "DIP",
    "ELBO",
    "IWAE",
    "PCA",
    "VAE",
    "VQVAE",
    "AdaGVAE",
    "AnnealedCapacity",
    "Audit",
    "Autoencoder",
    "BernoulliLikelihood",
    "BetaTCVAE",
    "CategoricalLikelihood",
    "ColumnsLikelihood",
    "ConditionalVAE",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "Draw",
    "FactorVAE",
    "Finding",
    "FlowPrior",
    "GaussianLikelihood",
    "HierarchicalVAE",
    "Likelihood",
    "MixtureOfGaussians",
    "NegativeBinomialLikelihood",
    "Objective",
    "PoissonLikelihood",
    "Prior",
    "Sampling",
    "StandardNormal",
    "VampPrior",
    "audit",
    "audit_model",
    "callbacks",
    "compression",
    "data",
    "distributions",
    "evaluation",
    "fit_prior",
    "flows",
    "load",
    "networks",
    "optimizers",
    "plots",
    "posteriors",
    "schedules",
    "widgets",
]
