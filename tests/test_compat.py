"""Each private name of another package still does what kvae uses it for."""

import keras
import numpy as np
import tensorflow as tf

from kvae import _compat


def test_adams_moments_are_those_of_the_variable():
    first, second = keras.Variable([1.0]), keras.Variable([1.0, 2.0])
    adam = keras.optimizers.Adam(beta_1=0.5, beta_2=0.5)
    adam.apply([tf.constant([4.0]), tf.constant([2.0, 6.0])], [first, second])
    momentum, velocity = _compat.adam_moments(adam, second)
    np.testing.assert_allclose(momentum, [1, 3])
    np.testing.assert_allclose(velocity, [2, 18])


def test_an_optimizers_clipping_can_be_asked_for():
    optimizer, gradients = keras.optimizers.SGD(global_clipnorm=1.0), [tf.constant([3.0]), tf.constant([4.0])]
    clipped = _compat.clip_gradients(optimizer, gradients)
    np.testing.assert_allclose(np.concatenate(clipped), [0.6, 0.8])


def test_variables_are_updated_in_a_condition_outside_of_a_strategy_and_not_in_a_mirrored_one(strategy):
    assert _compat.updates_variables_in_a_condition()
    with strategy.scope():
        assert not _compat.updates_variables_in_a_condition()
