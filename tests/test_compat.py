"""Each private name of another package still does what kvae uses it for."""

import gc
import inspect
import threading
import weakref

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from keras.src.export import export_utils
from tensorflow_datasets.core.download import downloader

from kvae import _compat


def test_adams_moments_are_those_of_the_variable():
    first, second = keras.Variable([1.0]), keras.Variable([1.0, 2.0])
    adam = keras.optimizers.Adam(beta_1=0.5, beta_2=0.5)
    adam.apply([tf.constant([4.0]), tf.constant([2.0, 6.0])], [first, second])
    momentums, velocities, index = _compat.adam_moments(adam)
    np.testing.assert_allclose(momentums[index(second)], [1, 3])
    np.testing.assert_allclose(velocities[index(second)], [2, 18])


def test_an_optimizers_clipping_can_be_asked_for():
    optimizer, gradients = keras.optimizers.SGD(global_clipnorm=1.0), [tf.constant([3.0]), tf.constant([4.0])]
    clipped = _compat.clip_gradients(optimizer, gradients)
    np.testing.assert_allclose(np.concatenate(clipped), [0.6, 0.8])


def test_variables_are_updated_in_a_condition_outside_of_a_strategy_and_not_in_a_mirrored_one(strategy):
    assert _compat.updates_variables_in_a_condition()
    with strategy.scope():
        assert not _compat.updates_variables_in_a_condition()


def test_a_wrapped_dataset_takes_the_place_of_its_own_in_a_transformation():
    dataset = tf.data.Dataset.range(3)
    wrapped = _compat.WrappedDataset(dataset)
    assert wrapped.element_spec == dataset.element_spec and int(wrapped.cardinality()) == 3
    mapped = wrapped.map(lambda number: number + 1)
    assert list(mapped.as_numpy_iterator()) == [1, 2, 3]
    assert [dataset in _compat.sources(each) for each in (mapped, wrapped, dataset)] == [True] * 3


def test_a_shuffle_and_its_seed_are_seen():
    keras.backend.clear_session()
    tf.random.set_seed(None)
    dataset = tf.data.Dataset.range(3)
    unseeded, seeded = dataset.shuffle(3), dataset.shuffle(3, seed=1)
    assert [_compat.shuffles(each) for each in (dataset, unseeded, seeded)] == [False, True, True]
    assert [_compat.shuffles_unseeded(each) for each in (dataset, unseeded, seeded)] == [False, True, False]


def test_downloads_are_tried_again_so_many_times():
    before = downloader.MAX_RETRIES
    with _compat.download_retries(0):
        assert downloader.MAX_RETRIES == 0
    with _compat.download_retries(None):
        assert downloader.MAX_RETRIES == before > 0
    source = inspect.getsource(downloader)
    assert source.count("MAX_RETRIES") > 1


def test_chosen_features_are_those_alone():
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(2, 2, 1)), "label": np.int64})
    assert list(_compat.chosen_features(features, ["label"])) == ["label"]


def test_a_scratch_graph_gives_shapes_and_computes_nothing():
    with _compat.scratch_graph():
        tensor = tf.zeros((10**9, 10**9))  # which no machine could hold
    assert tensor.shape == (10**9, 10**9)
    assert tf.executing_eagerly()


def test_a_config_is_made_from_a_name_that_no_list_holds():
    class Config(tfds.core.BuilderConfig):
        @classmethod
        def from_name(cls, name):
            return cls(name=name) if name == "made" else None

    class Base:
        def _create_builder_config(self, builder_config, version):
            return "listed", builder_config

    class Builder(_compat.ConfigsByName, Base):
        CONFIG_CLASS = Config

    assert hasattr(tfds.core.DatasetBuilder, "_create_builder_config")
    builder, config = Builder(), Config(name="given")
    assert builder._create_builder_config("made", None).name == "made"
    assert builder._create_builder_config(config, None) is config
    assert builder._create_builder_config("other", None) == ("listed", "other")


def test_export_reads_the_shapes_of_all_inputs_where_build_takes_one():
    class Sum(keras.Model):
        _build_shapes_dict = _compat.call_shapes(lambda self: [(None, 2), (None, 2)])

        def build(self, input_shape):
            self.built = True

        def call(self, inputs):
            return inputs[0] + inputs[1]

    model = Sum()
    assert model._build_shapes_dict is None
    model.build((None, 2))
    assert [
        [tuple(spec.shape) for spec in specs] for specs in export_utils._infer_input_signature_from_model(model)
    ] == [[(None, 2), (None, 2)]]


def test_a_model_can_do_without_keras_own_mean_of_the_loss():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(metrics=["mse"])
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
    _compat.drop_loss_tracker(model)
    assert model.metrics == _compat.compiled_metrics(model)
    assert _compat.compiled_metrics(keras.Sequential()) == []


def test_a_built_model_may_be_opened_for_layers_and_closed_again():
    class Model(keras.Model):
        def build(self, shape):
            self.built = True

    model = Model()
    model.build((None, 1))
    with np.testing.assert_raises(ValueError):
        model.other = keras.layers.Dense(1)
    _compat.open_for_state(model)
    model.other = keras.layers.Dense(1)
    _compat.close_for_state(model)
    with np.testing.assert_raises_regex(ValueError, "make them in the constructor"):
        model.another = keras.layers.Dense(1)


def test_the_last_activation_of_each_output_is_seen():
    x = keras.Input((4,))
    sigmoid = keras.layers.Reshape((2, 2))(keras.layers.Dense(4, "sigmoid")(x))
    nested = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])(x)
    model = keras.Model(x, [sigmoid, nested, keras.layers.Dense(2)(x), keras.ops.exp(x)])
    assert _compat.last_activations(model) == ["sigmoid", "relu", "", "exp"]
    assert _compat.last_activations(keras.layers.Dense(1)) == []


def test_layers_within_are_all_that_a_model_has():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model = keras.Sequential([inner, keras.layers.ReLU()])
    assert set(_compat.layers_within(model)) >= {inner, inner.layers[0], model.layers[1]}
    assert not list(_compat.layers_within(keras.layers.Dense(1)))


def test_a_numpy_function_keeps_nothing_alive():
    class Reader:
        def read(self, number):
            return np.float32(2 * number)

    reader = Reader()
    watched = weakref.ref(reader)
    assert float(_compat.numpy_function(reader.read, [tf.constant(3)], tf.float32)) == 6
    del reader
    assert watched() is None


def test_an_iterator_may_be_found_by_the_garbage_collector_in_one_of_its_own_threads():
    """Without `release_iterators_apart` the thread waits for its own end."""
    in_thread, dropped, collected = threading.Event(), threading.Event(), threading.Event()

    def read(number):
        if number == 1:
            in_thread.set()
            dropped.wait()
            gc.collect()
            collected.set()
        return number

    dataset = tf.data.Dataset.range(9).map(lambda number: _compat.numpy_function(read, [number], tf.int64)).prefetch(2)
    iterator = iter(dataset)
    next(iterator)
    assert in_thread.wait(60)
    alive, cycle = weakref.ref(iterator), [iterator]
    cycle.append(cycle)
    del iterator, cycle
    dropped.set()
    assert collected.wait(60) and alive() is None
