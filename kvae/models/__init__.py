from kvae.models.autoencoder import Autoencoder
from kvae.models.conditional import ConditionalVAE
from kvae.models.hierarchical import HierarchicalVAE
from kvae.models.pca import PCA
from kvae.models.quantised import VQVAE
from kvae.models.vae import VAE

__all__ = ["PCA", "VAE", "VQVAE", "Autoencoder", "ConditionalVAE", "HierarchicalVAE"]
