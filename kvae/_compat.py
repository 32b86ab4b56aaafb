"""The private names of Keras, TensorFlow and tensorflow-datasets in kvae. No other file uses any."""

import atexit
import contextlib
import functools
import gc
import inspect
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from keras.src.backend.tensorflow import trainer
from keras.src.saving import saving_lib
from tensorflow.python.data.ops.iterator_ops import OwnedIterator
from tensorflow_datasets.core.download import downloader

# Missing in the type stubs
fold_in = tf.random.experimental.stateless_fold_in  # pyright: ignore[reportAttributeAccessIssue]
stateless_shuffle = tf.random.experimental.stateless_shuffle  # pyright: ignore[reportAttributeAccessIssue]

# tf.data and tensorflow-datasets ------------------------------------------------------------------------------------


class WrappedDataset(tf.data.Dataset):
    """A stand-in for `dataset`: tf.data's transformations read `dataset`, an iteration may read another one."""

    element_spec: Any = None

    def __init__(self, dataset: tf.data.Dataset):
        self._dataset, self.element_spec = dataset, dataset.element_spec
        super().__init__(dataset._variant_tensor)  # pyright: ignore[reportCallIssue]

    def _inputs(self):
        return [self._dataset]


def sources(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The dataset and all its inputs."""
    return [dataset, *(source for made_from in dataset._inputs() for source in sources(made_from))]


def shuffles(dataset: tf.data.Dataset) -> bool:
    """Whether the dataset is the result of a `shuffle`."""
    return "Shuffle" in type(dataset).__name__


def shuffles_unseeded(dataset: tf.data.Dataset) -> bool:
    """Whether the dataset is the result of a `shuffle` with neither its own seed nor the global one."""
    seeds = getattr(dataset, "_seed", None), getattr(dataset, "_seed2", None)
    return shuffles(dataset) and not any(seed is None or int(seed) for seed in seeds)


class _IteratorWithin(OwnedIterator):
    """TensorFlow's iterator, with a context manager around each step."""

    def __next__(self):
        with self._context():
            return super().__next__()


def iterate_within(context: Callable, dataset: tf.data.Dataset) -> Any:
    """Return an iterator over a dataset whose steps are taken within `context()`."""
    iterator: Any = iter(dataset)
    if type(iterator) is OwnedIterator:
        iterator.__class__ = _IteratorWithin
        iterator._context = context
    return iterator


@contextlib.contextmanager
def download_retries(number: int | None):
    """Within it tensorflow-datasets tries a download again so many times; None for the usual number."""
    before = downloader.MAX_RETRIES
    downloader.MAX_RETRIES = before if number is None else number
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before


def chosen_features(features: Any, names: Iterable[str]) -> Any:
    """The features of these names alone. No other feature is decoded."""
    return tfds.decode.PartialDecoding(dict.fromkeys(names, True)).extract_features(features)


class ConfigsByName:
    """Mixin of a tfds builder: CONFIG_CLASS.from_name makes a config of any name, or returns None for others."""

    CONFIG_CLASS: type

    def _create_builder_config(self, builder_config, version):
        if isinstance(builder_config, str):
            builder_config = self.CONFIG_CLASS.from_name(builder_config) or builder_config
        if isinstance(builder_config, self.CONFIG_CLASS):
            return builder_config
        return super()._create_builder_config(builder_config, version)  # type: ignore[misc]


def load_model(file: BinaryIO) -> Any:
    """Return the model of an open .keras file, as `keras.saving.load_model` reads one of a path."""
    return saving_lib.load_model(file, safe_mode=True)


def call_shapes(shapes: Callable[[Any], list]) -> Any:
    """Return a property for a model's class: what Keras reads there as the shapes of `call`'s inputs, for `export`.

    Keras notes the argument of `build` in it, the shape of x alone.

    Args:
        shapes: function from the built model to the shapes of all inputs.
    """
    return property(
        lambda model: {"inputs": shapes(model)} if model.built else None, lambda model, noted_by_keras: None
    )


def scratch_graph():
    """Return a context manager: tensors made in it have their shapes, and take no memory."""
    return tf.__internal__.FuncGraph("scratch").as_default()


def numpy_function(function, inputs, dtypes):
    """`tf.numpy_function` of a function that lives as long as the graphs in which it is called.

    TensorFlow 2.21 keeps it, and all that it closes over, until the process ends: arrays of gigabytes.
    """
    release_iterators_apart()
    kept: Any = weakref.WeakMethod(function) if inspect.ismethod(function) else weakref.ref(function)
    graph = tf.compat.v1.get_default_graph()
    while isinstance(graph, tf.__internal__.FuncGraph):
        graph._kept_functions = [*getattr(graph, "_kept_functions", ()), function]
        graph = graph.outer_graph
    return tf.numpy_function(lambda *values: kept()(*values), inputs, dtypes)


@functools.cache
def release_iterators_apart():
    """From now on an iterator that dies in another thread than its own is destroyed in a thread for this alone.

    The destruction waits for the iterator's threads. Python's garbage collector may run in one of them, within a
    Python function that tf.data calls. It would then wait for itself for ever, if it found that very iterator.
    Iterators that only the collector can find are destroyed before Python ends: later their functions can't run.
    """
    released, create = queue.SimpleQueue(), OwnedIterator._create_iterator
    destroying = threading.Event()

    def release(resource, thread):
        if threading.get_ident() != thread:
            released.put(resource)  # `put` may run within the collector

    def create_and_watch(iterator, dataset):
        create(iterator, dataset)
        if tf.executing_eagerly():
            resource = iterator._iterator_resource
            weakref.finalize(iterator, release, resource, threading.get_ident()).atexit = False

    def let_go():
        gc.collect()
        for _ in range(500):  # five seconds at most
            if released.empty() and not destroying.is_set():
                break
            time.sleep(0.01)

    def destroy():
        while True:
            destroying.clear()
            resource = released.get()
            destroying.set()
            if sys.getrefcount(resource) > 2:  # the dying iterator has it too, and must not be the last to let go
                time.sleep(0.01)
                released.put(resource)
            del resource

    OwnedIterator._create_iterator = create_and_watch
    threading.Thread(target=destroy, daemon=True, name="kvae destroys iterators").start()
    # Before Python ends its pools of threads, in which fsspec's reads wait for a server's address
    getattr(threading, "_register_atexit", atexit.register)(let_go)


# Optimizers and replicas -----------------------------------------------------------------------------------------


def adam_moments(optimizer):
    """Return a built Adam's running averages and their order.

    Returns:
        (m, v, index): lists of Keras variables, the averages of the gradients and of the squared gradients, and the
        function from a trained variable to its number in both lists.
    """
    return optimizer._momentums, optimizer._velocities, optimizer._get_variable_index


def reduce_logs(logs, strategy):
    """Return the means over all replicas of their logs, as Keras' own steps do."""
    return trainer.reduce_per_replica(logs, strategy, reduction="auto")


def clip_gradients(optimizer, gradients):
    """Return the gradients clipped by the optimizer's clipnorm, global_clipnorm or clipvalue."""
    return optimizer._clip_gradients(gradients)


def updates_variables_in_a_condition():
    """Return whether variables may be updated in a branch of `tf.cond` under the current strategy."""
    return tf.__internal__.distribute.strategy_supports_no_merge_call()


# Models --------------------------------------------------------------------------------------------------------------


def compiled_metrics(model):
    """Return a list with the one Keras metric that holds all metrics of `compile(metrics=...)`, or an empty list."""
    return [] if model._compile_metrics is None else [model._compile_metrics]


def drop_loss_tracker(model):
    """Take from a compiled model the metric that Keras adds to it as "loss"."""
    model._loss_tracker = None


def open_for_state(model):
    """Let a built model take further layers, weights and metrics, as a subclass' constructor adds them."""
    model._tracker.unlock()


def close_for_state(model):
    """Let a model take no more layers, weights or metrics."""
    model._tracker.lock(
        "fit, evaluate and predict have built the model's graph, and layers or weights that come later would be "
        "neither trained nor saved: make them in the constructor."
    )


def layers_within(layer: Any) -> Iterator[Any]:
    """The layers in a layer or model, and those within these."""
    for inner in getattr(layer, "_layers", ()):
        yield inner
        yield from layers_within(inner)


def last_activations(network):
    """Return the name of the activation that each output of a functional network ends in, "" for none.

    Layers that only move values, such as Reshape, may follow it. Of other networks the list is empty.
    """
    return [_last_activation(output) for output in getattr(network, "outputs", None) or []]


def _last_activation(tensor):
    operation, node_index, tensor_index = tensor._keras_history
    if isinstance(operation, keras.Model):
        activations = last_activations(operation)
        return activations[tensor_index] if activations else ""
    activation = getattr(operation, "activation", None)
    name = type(operation).__name__ if activation is None else getattr(activation, "__name__", "")
    if getattr(operation, "negative_slope", 0):
        return ""  # a leaky ReLU
    if name in _MOVING_VALUES:
        return _last_activation(operation._inbound_nodes[node_index].input_tensors[0])
    return "" if name == "linear" else name.lower()


_MOVING_VALUES = (
    *("Reshape", "Flatten", "Permute", "Cropping1D", "Cropping2D", "Cropping3D", "Identity", "Dropout"),
    *("UpSampling1D", "UpSampling2D", "UpSampling3D", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Cast"),
)
