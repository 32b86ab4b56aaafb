import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

# A second device, on the same processor, for what is said of replicas.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def strategy():
    """Two replicas. One strategy serves all tests: TensorFlow mixes up the collectives of two in a process."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """Models made within compute in float64."""
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)  # of a network's inputs
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield
