"""Every public method of every model that reads data, with every kind of data that any of them takes."""

import inspect
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import thorough
from keras import layers
from small_models import dense_vae

import kvae
from kvae.data import arrays
from kvae.networks import dense_decoder, dense_encoder

ROWS, LABELS = 8, 3
X = np.random.default_rng(0).random((ROWS, 6)).astype("float32")
Y = np.arange(ROWS) % LABELS
PIXELS = (X * 255).astype("uint8")


def autoencoder():
    return kvae.Autoencoder(dense_encoder((6,), 2, hidden=(4,)), dense_decoder((6,), 2, hidden=(4,)))


def vq_vae():
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Reshape((2, 2))])
    decoder = keras.Sequential([keras.Input((2, 2)), layers.Flatten(), layers.Dense(6)])
    return kvae.VQVAE(encoder, decoder, codes=4, seed=0)


def conditional_vae():
    x, y, z = keras.Input((6,)), keras.Input((LABELS,)), keras.Input((2,))
    h, g = layers.Concatenate()([x, y]), layers.Concatenate()([z, y])
    encoder, decoder = (
        keras.Model([x, y], [layers.Dense(2)(h), layers.Dense(2)(h)]),
        keras.Model([z, y], layers.Dense(6)(g)),
    )
    return kvae.ConditionalVAE(encoder, decoder, LABELS, seed=0)


def hierarchical_vae():
    def normal(size, *inputs):
        symbols = [keras.Input((n,)) for n in inputs]
        h = layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0]
        return keras.Model(symbols, [layers.Dense(size)(h), layers.Dense(size)(h)])

    z1, z2 = keras.Input((3,)), keras.Input((2,))
    decoder = keras.Model([z1, z2], layers.Dense(6)(layers.Concatenate()([z1, z2])))
    return kvae.HierarchicalVAE(layers.Identity(), [normal(3, 6, 2), normal(2, 6)], [normal(3, 2)], decoder, seed=0)


MAKE = {
    "VAE": dense_vae,
    "Autoencoder": autoencoder,
    "VQVAE": vq_vae,
    "HierarchicalVAE": hierarchical_vae,
    "ConditionalVAE": conditional_vae,
    "PCA": lambda: kvae.PCA(2).fit(X, verbose=0),
}


class OnDisk:
    """As h5py's datasets."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows):
        return self.array[rows]


class Frame:
    """As pandas' tables and series."""

    def __init__(self, array):
        self.array = array

    def to_numpy(self):
        return self.array


class Batches(keras.utils.PyDataset):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 2

    def __getitem__(self, number):
        batch = tuple(part[4 * number : 4 * number + 4] for part in self.parts)
        return batch if len(batch) > 1 else batch[0]


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4)


def without_shapes(*parts):
    """As after tf.py_function."""
    types = [tf.as_dtype(part.dtype) for part in parts]

    def read(number):
        batch = tf.numpy_function(lambda n: [part[4 * n : 4 * n + 4] for part in parts], [number], types)
        return tuple(batch) if len(batch) > 1 else batch[0]

    return tf.data.Dataset.range(2).map(read)


# Functions of (x,) or (x, y).
KINDS = {
    "array": lambda *parts: parts if len(parts) > 1 else parts[0],
    "tuple": lambda *parts: parts,
    "tensor": lambda *parts: tuple(map(tf.constant, parts)) if len(parts) > 1 else tf.constant(parts[0]),
    "big-endian": lambda *parts: tuple(part.astype(part.dtype.newbyteorder(">")) for part in parts),
    "on disk": lambda *parts: tuple(map(OnDisk, parts)),
    "dataset": dataset,
    "dataset of unknown length": lambda *parts: dataset(*parts).filter(lambda *batch: True),
    "dataset without shapes": without_shapes,
    "Stream": lambda *parts: arrays.from_arrays(parts, 4, shuffle=False),
    "mapped Stream": lambda *parts: arrays.from_arrays(parts, 4, shuffle=False).map(
        lambda *batch: batch if len(batch) > 1 else batch[0]
    ),
    "tfds": lambda *parts: tf.data.Dataset.from_tensor_slices(
        {"image": parts[0], "label": parts[-1] if len(parts) > 1 else Y}
    ).batch(4),
    "PyDataset": Batches,
    "DataFrame": lambda *parts: tuple(map(Frame, parts)) if len(parts) > 1 else Frame(parts[0]),
}
NOT_OF_DATA = {
    "build",
    "call",
    "compute_loss",
    "compute_metrics",
    "draw",
    "encode",
    "impute",
    "log_likelihood",
    "log_prob",
} | {
    *("losses_per_example", "posterior", "vectors", "stateless_call", "symbolic_call", "compute_mask", "quantize"),
    *("train_on_batch", "test_on_batch", "predict_on_batch", "compute_output_spec", "compute_output_shape"),
}


def methods_of_data(model):
    """The public methods whose first argument is x, without those of one tensor."""
    for name in dir(type(model)):
        method = inspect.getattr_static(type(model), name)
        if name.startswith("_") or not inspect.isfunction(method) or name in NOT_OF_DATA:
            continue
        if list(inspect.signature(method).parameters)[1:2] == ["x"]:
            yield name


def called(model, start, method, data):
    """What a method gives for the data: numbers or an array."""
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    if model.optimizer is not None:
        for variable in model.optimizer.variables:
            variable.assign(tf.zeros_like(variable)) if "learning_rate" not in variable.path else None
    keras.utils.set_random_seed(0)
    options = {}
    if method == "fit":
        options = {"verbose": 0} if isinstance(model, kvae.PCA) else {"verbose": 0, "shuffle": False, "batch_size": 4}
        options = {name: value for name, value in options.items() if not (name != "verbose" and is_stream(data))}
    elif method in ("evaluate", "predict"):
        options = {"verbose": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = getattr(model, method)(data, **options)
    if method == "fit":
        return np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    return np.asarray(answer)


def is_stream(data):
    return isinstance(data, tf.data.Dataset | keras.utils.PyDataset)


EACH = list(enumerate(itertools.product(MAKE, ("floats", "pixels"))))


@pytest.mark.parametrize(
    "name, values, first, stride",
    [
        pytest.param("ConditionalVAE", "pixels", 0, 3, id="a third of the pairs"),
        *(thorough(name, values, number, 3, id=f"{name}-{values}, a third") for number, (name, values) in EACH),
        *(
            pytest.param(name, values, 0, 1, id=f"{name}-{values}", marks=pytest.mark.slow)
            for _, (name, values) in EACH
        ),
    ],
)
def test_all_methods_answer_alike_for_all_kinds_of_data(name, values, first, stride):
    """Of each `stride` kinds, one a method, in turn from the `first` on."""
    model = MAKE[name]()
    if name != "PCA":
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        model.build((None, 6))
        model.optimizer.build(model.trainable_variables)
    start = [np.array(variable) for variable in model.variables]
    x = X if values == "floats" else PIXELS
    parts = (x, Y) if name == "ConditionalVAE" else (x,)
    methods = list(methods_of_data(model))
    assert {"fit", "evaluate", "predict", "transform", "reconstruct"} <= set(methods)
    differing = []
    for number, method in enumerate(methods):
        expected = called(model, start, method, KINDS["dataset"](*parts))
        for kind, make in list(KINDS.items())[(number + first) % stride :: stride]:
            try:
                answer = called(model, start, method, make(*parts))
                np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
            except Exception as error:
                differing.append((method, kind, type(error).__name__, " ".join(str(error).split())[:160]))
    assert not differing, "\n".join(map(str, differing))
