from kvae.models.ada_gvae import AdaGVAE
from kvae.models.autoencoder import Autoencoder
from kvae.models.conditional import ConditionalVAE
from kvae.models.factor_vae import FactorVAE
from kvae.models.fitted_prior import fit_prior
from kvae.models.hierarchical import HierarchicalVAE
from kvae.models.pca import PCA
from kvae.models.vae import VAE
from kvae.models.vq_vae import VQVAE

__all__ = [
    "PCA",
    "VAE",
    "VQVAE",
    "AdaGVAE",
    "Autoencoder",
    "ConditionalVAE",
    "FactorVAE",
    "HierarchicalVAE",
    "fit_prior",
]
