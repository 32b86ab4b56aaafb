from kvae.models.autoencoder import Autoencoder
from kvae.models.pca import PCA
from kvae.models.vae import VAE

__all__ = ["PCA", "VAE", "Autoencoder"]
