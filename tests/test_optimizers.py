import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import thorough
from small_models import dense_vae, dense_vae_compiled

import kvae

ARGUMENTS = [
    {},
    {"learning_rate": keras.optimizers.schedules.CosineDecay(1e-2, 20), "beta_1": 0.8, "beta_2": 0.99},
    {"epsilon": 1e-2, "weight_decay": 0.1, "clipnorm": 0.1, "use_ema": True, "ema_momentum": 0.5},
    {"gradient_accumulation_steps": 2},
    {"amsgrad": True},
]


def updated(start, optimizer, gradients):
    """The values `start` after a step with each of the gradients."""
    variables = [keras.Variable(value) for value in start]
    optimizer.build(variables)

    @tf.function
    def step(*gradients):
        optimizer.apply(list(gradients), variables)

    for each in gradients:
        step(*map(tf.constant, each))
    return [np.array(variable) for variable in variables]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_its_updates_are_those_of_keras_adam(rng, arguments):
    start = [rng.normal(size=shape).astype("float32") for shape in ((6, 4), (4,))]
    gradients = [[rng.normal(size=value.shape).astype("float32") for value in start] for _ in range(50)]
    optimizers = [
        kind(**{"learning_rate": 1e-2, **arguments}) for kind in (kvae.optimizers.Adam, keras.optimizers.Adam)
    ]
    found = [updated(start, optimizer, gradients) for optimizer in optimizers]
    for ours, theirs, before in zip(*found, start, strict=True):
        assert np.abs(theirs - before).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("arguments", [ARGUMENTS[2], thorough(ARGUMENTS[3])])
def test_a_model_trains_as_with_keras_adam(rng, arguments):
    x, weights = rng.random((100, 6)).astype("float32"), []
    for optimizer in (keras.optimizers.Adam, kvae.optimizers.Adam):
        keras.utils.set_random_seed(0)
        model = dense_vae()
        model.compile(optimizer(**{"learning_rate": 1e-2, **arguments}), run_eagerly=True)
        model.fit(x, epochs=2, batch_size=25, verbose=0)
        weights.append(model.get_weights())
    start = dense_vae().get_weights()
    for ours, theirs, before in zip(*weights, start, strict=True):
        assert np.abs(theirs - before).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_it_is_what_adam_means_here_and_is_saved(tmp_path, rng):
    model = dense_vae_compiled()
    model.fit(rng.random((50, 6)).astype("float32"), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.optimizer) is kvae.optimizers.Adam
    for one, other in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
