"""Small models for the tests."""

import keras
import numpy as np

import kvae
from kvae.networks import dense_decoder, dense_encoder


def dense_vae(shape=(6,), latent_dim=2, seed=0, outputs=1, posterior_family=None, activation="relu", **arguments):
    return kvae.VAE(
        dense_encoder(shape, latent_dim, hidden=(8,), activation=activation, posterior_family=posterior_family),
        dense_decoder(shape, latent_dim, hidden=(8,), activation=activation, outputs=outputs),
        posterior_family=posterior_family,
        seed=seed,
        **arguments,
    )


def trained(x, seed=0, fit=None, **compile_arguments):
    keras.utils.set_random_seed(seed)
    model = dense_vae(seed=seed)
    model.compile(keras.optimizers.Adam(1e-2), **compile_arguments)
    history = model.fit(x, **{"epochs": 2, "batch_size": 25, "verbose": 0, **(fit or {})})
    return model, history.history


def same_weights(a, b):
    return all(np.array_equal(v, w) for v, w in zip(a.get_weights(), b.get_weights(), strict=True))


def step_of(x, optimizer, model=None, **fit):
    """How far the weights move in one pass over x in its order, from the same start."""
    keras.utils.set_random_seed(0)
    model = dense_vae() if model is None else model()
    before = model.get_weights()
    model.compile(optimizer)
    model.fit(x, **{"batch_size": 25, "shuffle": False, "verbose": 0, **fit})
    return [after - start for start, after in zip(before, model.get_weights(), strict=True)]


def norm(step):
    return np.sqrt(sum(np.square(part).sum() for part in step))


def dense_vae_compiled():
    model = dense_vae()
    model.compile()
    return model
