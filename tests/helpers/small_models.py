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


_SHARED = {}


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def state(model):
    return [np.array(variable) for variable in variables(model)]


def shared(key, make):
    """The compiled model of make(), one for all tests that give this key, as it was when it was made.

    Its `fit` and `evaluate` are traced once, which is most of what a small model costs. The next call with the key
    puts it back, so a test that compares two runs keeps the first one's weights.
    """
    if key not in _SHARED:
        keras.utils.set_random_seed(0)
        model = make()
        model.optimizer.build(model.trainable_variables)
        _SHARED[key] = model, state(model)
    model, start = _SHARED[key]
    put_back(model, start)
    return model


def put_back(model, start):
    """Let a model begin anew in the state `start`, with Keras' seeds as they were."""
    for variable, value in zip(variables(model), start, strict=True):
        variable.assign(value)
    model.record = type(model.record)()
    keras.utils.set_random_seed(0)


def compiled(seed=0, **arguments):
    """A small VAE with the arguments of `compile`, as `trained` trains it."""
    keras.utils.set_random_seed(seed)
    model = dense_vae(seed=seed)
    model.compile(**{"optimizer": keras.optimizers.Adam(1e-2), **arguments})
    return model


def trained(x, fit=None, **arguments):
    """(the shared model that `compile` was given these arguments, trained anew, its history)."""
    model = shared(("dense_vae", *sorted(arguments.items())), lambda: compiled(**arguments))
    history = model.fit(x, **{"epochs": 2, "batch_size": 25, "verbose": 0, **(fit or {})})
    return model, history.history


def weights_after(x, fit=None, **arguments):
    return trained(x, fit, **arguments)[0].get_weights()


def same_weights(a, b):
    """Whether two models, or what `get_weights` gave, are equal to the bit."""
    a, b = (each.get_weights() if isinstance(each, keras.Model) else each for each in (a, b))
    return all(np.array_equal(v, w) for v, w in zip(a, b, strict=True))


def step_of(x, optimizer, model=None, run_eagerly=True, **fit):
    """How far the weights move in one pass over x in its order, from the same start."""
    keras.utils.set_random_seed(0)
    model = dense_vae() if model is None else model()
    before = model.get_weights()
    model.compile(optimizer, run_eagerly=run_eagerly)
    model.fit(x, **{"batch_size": 25, "shuffle": False, "verbose": 0, **fit})
    return [after - start for start, after in zip(before, model.get_weights(), strict=True)]


def norm(step):
    return np.sqrt(sum(np.square(part).sum() for part in step))


def dense_vae_compiled():
    """A shared small VAE with the defaults of `compile`."""
    return shared("dense_vae, adam", lambda: compiled(optimizer="adam"))
