"""Work as users reported it, of kvae and of its field: each once failed, or meant something else in silence."""

import gc
import itertools
import pathlib
import re
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some, thorough
from keras import layers
from small_models import dense_vae, dense_vae_compiled, put_back, state

import kvae
from kvae.data import arrays, elements, provenance
from kvae.models.step import ExampleMeans
from kvae.models.vq_vae import Perplexity
from kvae.networks import dense_decoder, dense_encoder
from kvae.schedules import LinearWarmUp
from kvae.training import advice


@pytest.fixture
def x(rng):
    return rng.random((16, 6)).astype("float32")


def autoencoder():
    return kvae.Autoencoder(dense_encoder((6,), 2, hidden=(8,)), dense_decoder((6,), 2, hidden=(8,)))


def vq_vae():
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Reshape((2, 2))])
    decoder = keras.Sequential([keras.Input((2, 2)), layers.Flatten(), layers.Dense(6)])
    return kvae.VQVAE(encoder, decoder, codes=4)


def eager(model, **arguments):
    model.compile(run_eagerly=True, **arguments)
    return model


MODELS = {
    "VAE": lambda: eager(dense_vae()),
    "Autoencoder": lambda: eager(autoencoder()),
    "VQVAE": lambda: eager(vq_vae()),
    "PCA": lambda: kvae.PCA(2).fit(np.random.default_rng(1).random((32, 6)), verbose=0),
    "VAE with a metric": lambda: eager(dense_vae(), metrics=["mse"]),
}


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_list_of_evaluate_begins_with_the_loss_and_has_the_names_of_metrics_names(name, x):
    model = MODELS[name]()
    numbers, by_name = model.evaluate(x, verbose=0), model.evaluate(x, verbose=0, return_dict=True)
    assert model.metrics_names[0] == "loss" and len(numbers) == len(model.metrics_names)
    assert dict(zip(model.metrics_names, numbers, strict=True)) == pytest.approx(by_name, nan_ok=True)


def test_the_list_of_train_on_batch_begins_with_the_loss(x):
    model = eager(dense_vae())
    losses = model.losses_per_example(x, index=np.arange(16))[0]
    assert model.test_on_batch(x)[0] == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_means_of_no_examples_are_nan():
    means = ExampleMeans(("loss", "elbo"))
    assert all(np.isnan(value) for value in means.result().values())
    means.update_state(tf.constant([1.0, 3.0]), {"elbo": tf.constant([2.0, 2.0])}, tf.constant([0.0, 0.0]))
    assert all(np.isnan(value) for value in means.result().values())  # nothing was weighted
    assert np.isnan(Perplexity(4).result())


def test_an_epoch_without_a_step_is_not_the_best(x, tmp_path):
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "b.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True
    )
    model = eager(dense_vae(), skip_nonfinite=100)
    broken = tf.data.Dataset.from_tensors(x).concatenate(tf.data.Dataset.from_tensors(np.nan * x).repeat(1))
    with pytest.warns(UserWarning, match="skipped 1 of 1"):
        losses = model.fit(broken, steps_per_epoch=1, epochs=2, callbacks=[best], verbose=0).history["loss"]
    assert np.isnan(losses[1]) and best.best == losses[0]


def test_losses_per_example_before_compile_says_what_to_do(x):
    with pytest.raises(ValueError, match="call compile"):
        dense_vae().losses_per_example(x)


@pytest.mark.parametrize("make", [dense_vae, autoencoder, vq_vae], ids=["VAE", "Autoencoder", "VQVAE"])
def test_losses_of_uint8_are_those_of_scaled_floats(make, rng):
    model = eager(make())
    pixels = rng.integers(0, 256, (4, 6)).astype("uint8")
    losses = [model.losses_per_example(values, index=np.arange(4))[0] for values in (pixels, pixels / np.float32(255))]
    np.testing.assert_allclose(*losses, rtol=1e-5)


# Data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shuffle, dtype",
    some(
        list(itertools.product([False, True], [">f8", ">f4", ">f2", ">i2", ">u2", ">i4", ">u4", ">i8", "<f8", "bool"])),
        *((False, dtype) for dtype in (">f8", ">f4", ">i2", "<f8")),
        *((True, dtype) for dtype in (">f2", ">u4", "bool")),
    ),
)
def test_bytes_of_another_order_are_swapped(dtype, shuffle):
    values = (np.arange(12).reshape(6, 2) * 3).astype(dtype)
    stream = arrays.from_arrays((values, values[:, 0]), 4, shuffle=shuffle)
    native = arrays.from_arrays((values.astype(elements.native_dtype(values.dtype)), values[:, 0]), 4, shuffle=shuffle)
    for (batch, y), (expected, _) in zip(stream.epoch(1), native.epoch(1), strict=True):
        np.testing.assert_array_equal(batch, expected)
        np.testing.assert_array_equal(batch[:, 0], y)
    for batch in arrays.batches(values, 6):
        np.testing.assert_array_equal(batch, values)


def test_evaluate_reads_weights_and_x_of_another_order_of_bytes(x):
    model, weights = eager(dense_vae()), np.linspace(0, 1, 16)
    expected = model.evaluate((x, None, weights), verbose=0)
    assert model.evaluate((x.astype(">f8"), None, weights.astype(">f8")), verbose=0) == pytest.approx(expected)


class Watched(np.ndarray):
    """An array that a weak reference can watch."""


@pytest.mark.parametrize("use", ["evaluate", "predict", "fit", "transform"])
def test_an_array_is_let_go_after_its_use(use, x):
    model = eager(dense_vae())
    array = np.tile(x, (2, 1)).view(Watched)
    watcher = weakref.ref(array)
    options = {} if use == "transform" else {"verbose": 0}
    getattr(model, use)(array, **options)
    del array
    gc.collect()
    if use == "fit":  # the model's record describes the last data until it is read
        assert model.record.data
        model.fit(x, verbose=0)
        gc.collect()
    assert watcher() is None


def test_an_iterator_outlives_its_stream(x):
    iterator = iter(arrays.from_arrays((x,), 4, shuffle=False).epoch(0))
    gc.collect()
    np.testing.assert_array_equal(np.concatenate(list(iterator)), x)


def test_what_tensorflow_computes_with_rows_does_not_reach_the_array(x):
    before = x.copy()
    for batch in arrays.from_arrays((x,), 4, shuffle=False).epoch(0).map(lambda rows: tf.exp(rows * 2 + 1)):
        assert batch.shape == (4, 6)
    model = dense_vae_compiled()
    model.fit(x, shuffle=False, verbose=0)
    model.evaluate(x, verbose=0)
    np.testing.assert_array_equal(x, before)


class OnDisk:
    """As h5py's datasets: a shape, a dtype, and rows by slices or by increasing numbers."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all()
        self.most = max(self.most, len(self.array[rows]))
        return self.array[rows]


@pytest.mark.parametrize("use", ["fit", "evaluate", "predict", "reconstruct"])
def test_a_dataset_on_disk_is_read_a_part_at_a_time(use, x, monkeypatch):
    monkeypatch.setattr(elements, "BLOCK_BYTES", 2**10)  # of the search for NaN
    monkeypatch.setattr(arrays, "_AT_ONCE", 2**10)
    data = OnDisk(np.tile(x, (20, 1)))
    getattr(eager(dense_vae()), use)(data, batch_size=40)
    assert 0 < data.most <= elements.BATCH_SIZE < len(data.array)


def test_a_shuffled_dataset_on_disk_gives_the_rows_of_the_array(x):
    on_disk, in_memory = (arrays.from_arrays((data,), 5).epoch(3) for data in (OnDisk(x), x))
    for batch, expected in zip(on_disk, in_memory, strict=True):
        np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_labels_and_weights_may_be_sequences(make, x):
    model = eager(dense_vae())
    numbers = model.evaluate(x, make([1] * 16), sample_weight=make([0.5] * 16), verbose=0, return_dict=True)
    assert numbers["loss"] == pytest.approx(-0.5 * numbers["elbo"], rel=1e-5)


@pytest.mark.parametrize(
    ("steps", "epochs", "cardinality", "taken"),
    [(5, 3, 12, 15), (4, 3, 12, 12), thorough(20, 2, 12, 40), thorough(5, 2, None, 10)],
)
def test_a_plain_dataset_begins_anew_where_steps_per_epoch_goes_beyond_its_end(steps, epochs, cardinality, taken, x):
    dataset = tf.data.Dataset.from_tensors(x[:2]).repeat(12)
    dataset = dataset if cardinality else dataset.filter(lambda batch: True)
    model = eager(dense_vae())
    model.fit(dataset, steps_per_epoch=steps, epochs=epochs, verbose=0)
    assert int(model.optimizer.iterations) == taken


def test_a_checkpoint_asks_for_the_length_of_a_stream(x, tmp_path):
    stream = tf.data.Dataset.from_tensor_slices(x).filter(lambda row: row[0] > 0).batch(8)
    with pytest.raises(ValueError, match="assert_cardinality"):
        eager(dense_vae()).fit(stream, callbacks=[kvae.callbacks.Checkpoint(tmp_path / "run")])


# Targets and scales ---------------------------------------------------------------------------------------------------


def pairs(noisy, clean):
    return {
        "arrays": ((noisy, clean), {}),
        "tuple": (((noisy, clean),), {}),
        "stream": ((tf.data.Dataset.from_tensor_slices((noisy, clean)).batch(8),), {}),
        "pixels": ((noisy, (clean * 255).astype("uint8")), {}),
    }


@pytest.mark.parametrize("kind", some(["arrays", "tuple", "stream", "pixels"], "arrays", "stream"))
def test_an_autoencoder_reconstructs_the_clean_images(kind, x):
    clean = np.round(x)  # 0 and 1, as pixels too
    model = eager(autoencoder(), metrics=["mse"])
    given, options = pairs(x, clean)[kind]
    model.fit(*given, epochs=1, validation_data=(x, clean), verbose=0, **options)
    expected = np.sum((model.predict(x, verbose=0) - clean) ** 2, axis=1).mean()
    assert model.history.history["val_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(*given, verbose=0)[0] == pytest.approx(expected, rel=1e-5)
    data = given if len(given) > 1 else given[0]
    assert kvae.evaluation.squared_error(model, data) == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(*given, verbose=0, return_dict=True)["mse"] == pytest.approx(expected / 6, rel=1e-5)


def test_a_denoiser_in_a_graph_learns_the_clean_image(rng):
    clean = np.tile([0.2, 0.8, 0.5, 0.1, 0.9, 0.3], (256, 1)).astype("float32")
    noisy = clean + rng.normal(scale=0.5, size=clean.shape).astype("float32")
    model = autoencoder()
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(noisy, clean, epochs=40, verbose=0)
    reconstructed = model.predict(noisy, verbose=0)
    assert np.square(reconstructed - clean).mean() < 0.02 < 0.2 < np.square(reconstructed - noisy).mean()


@pytest.mark.parametrize("y", ["the same", "other", "labels"])
def test_another_model_warns_of_a_y_of_the_shape_of_x(y, x):
    y = {"the same": x.copy(), "other": 1 - x, "labels": np.arange(16)}[y]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eager(dense_vae()).evaluate(x, y, verbose=0)
    warned = [str(each.message) for each in caught if "isn't read" in str(each.message)]
    assert bool(warned) == (y.shape == x.shape and (y != x).any())


@pytest.mark.parametrize("model", [autoencoder, dense_vae], ids=lambda make: make.__name__)
def test_a_y_that_holds_images_in_another_shape_than_x_is_told(model, x):
    with pytest.warns(UserWarning, match=r"y of x has examples of shape \(6, 1\), .* in \(6,\), and isn't read"):
        eager(model()).evaluate(x, x[..., np.newaxis], verbose=0)


@pytest.mark.parametrize(
    ("callback", "warns"),
    [
        (keras.callbacks.EarlyStopping(), True),
        (keras.callbacks.EarlyStopping("loss"), True),
        (keras.callbacks.EarlyStopping("val_elbo", mode="max"), False),
        (keras.callbacks.ReduceLROnPlateau(), True),
        (keras.callbacks.ModelCheckpoint("b.weights.h5", save_weights_only=True), False),
        (keras.callbacks.ModelCheckpoint("b.weights.h5", save_weights_only=True, save_best_only=True), True),
    ],
    ids=lambda value: getattr(value, "monitor", value),
)
@pytest.mark.parametrize("beta", [2.0, LinearWarmUp(6)])
def test_callbacks_that_compare_losses_of_a_moving_objective_are_told(callback, warns, beta):
    model = eager(dense_vae(), loss=kvae.ELBO(beta))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        advice.warn_of_moving_loss(model, [callback], steps=4, epochs=2)
    assert bool(caught) == (warns and callable(beta))
    assert all("elbo" in str(each.message) for each in caught)


def test_losses_behind_the_end_of_a_warm_up_may_be_compared(x):
    model = eager(dense_vae(), loss=kvae.ELBO(LinearWarmUp(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        late = keras.callbacks.EarlyStopping(start_from_epoch=1)
        advice.warn_of_moving_loss(model, [late], steps=4, epochs=3)
        model.optimizer.iterations.assign(4)
        advice.warn_of_moving_loss(model, [keras.callbacks.EarlyStopping()], steps=4, epochs=3)


SCALES = {
    "pixels as floats": (lambda x: np.tile(x[:, :, None, None], (1, 1, 2, 1)) * 255, "divide by 255"),
    "incomes": (lambda x: x * 40_000 - 2_000, "standardize"),
    "counts": (lambda x: np.round(x * 9_000), "log1p"),
    "of order one": (lambda x: 3 * x - 1, None),
}


@pytest.mark.parametrize("kind", SCALES)
def test_x_whose_scale_lets_training_diverge_is_told_before_the_first_step(kind, x):
    make, advice = SCALES[kind]
    values = make(x).astype("float32")
    model = kvae.VAE(dense_encoder(values.shape[1:], 2, hidden=(8,)), dense_decoder(values.shape[1:], 2, hidden=(8,)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eager(model).fit(values, epochs=0, verbose=0)
    warned = [str(each.message) for each in caught if "the KL begins at" in str(each.message)]
    assert bool(warned) == bool(advice) and all(advice in message for message in warned)


def test_pixels_and_floats_are_told_apart_after_training(rng):
    pixels = rng.integers(0, 256, (16, 6)).astype("uint8")
    model = eager(dense_vae())
    model.fit(pixels, verbose=0)
    with pytest.warns(UserWarning, match="trained on uint8"):
        model.transform(pixels.astype("float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.transform(pixels)
        model.transform(pixels / np.float32(255))
    model = eager(autoencoder())
    model.fit(pixels.astype("float32"), verbose=0)
    with pytest.warns(UserWarning, match=re.escape('x.astype("float32")')):
        model.transform(pixels)


def test_an_exported_model_scales_the_pixels_that_fit_saw(rng, tmp_path):
    pixels = rng.integers(0, 256, (16, 6)).astype("uint8")
    model = eager(autoencoder())
    model.fit(pixels, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(pixels), model.reconstruct(pixels), rtol=1e-5)
    pca = kvae.PCA(2).fit(pixels, verbose=0)
    pca.export(tmp_path / "pca", verbose=False)
    served = tf.saved_model.load(tmp_path / "pca")
    np.testing.assert_allclose(served.serve(pixels), pca.reconstruct(pixels), rtol=1e-4, atol=1e-4)


# Networks -------------------------------------------------------------------------------------------------------------


def decoder_that_ends_in(*last):
    return keras.Sequential([keras.Input((2,)), layers.Dense(6), *last])


WITHOUT_SIGN = {
    "sigmoid": ([layers.Activation("sigmoid")], "bernoulli"),
    "sigmoid before a reshape": ([layers.Activation("sigmoid"), layers.Reshape((6,))], "bernoulli"),
    "relu": ([layers.ReLU()], "bernoulli"),
    "softmax": ([layers.Softmax()], kvae.ContinuousBernoulliLikelihood()),
    "exponential": ([layers.Activation("exponential")], kvae.PoissonLikelihood()),
    "softplus": ([layers.Activation("softplus")], kvae.NegativeBinomialLikelihood()),
}


@pytest.mark.parametrize("name", WITHOUT_SIGN)
def test_a_decoder_whose_logits_have_no_sign_is_told(name):
    last, likelihood = WITHOUT_SIGN[name]
    with pytest.warns(UserWarning, match=f"ends in {name.split()[0]}") as caught:
        kvae.VAE(dense_encoder((6,), 2, hidden=(8,)), decoder_that_ends_in(*last), likelihood)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("last", [[], [layers.Activation("tanh")], [layers.Dense(6)]], ids=["none", "tanh", "dense"])
def test_other_decoders_are_not(last):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kvae.VAE(dense_encoder((6,), 2, hidden=(8,)), decoder_that_ends_in(*last), "bernoulli")
        kvae.VAE(dense_encoder((6,), 2, hidden=(8,)), decoder_that_ends_in(layers.Activation("sigmoid")))  # a mean


def test_log_variances_without_a_sign_are_told():
    x, z = keras.Input((6,)), keras.Input((2,))
    encoder = keras.Model(x, [layers.Dense(2, "relu")(x), layers.Dense(2, "softplus")(x)])
    decoder = keras.Model(z, [layers.Dense(6, "sigmoid")(z), layers.Dense(6, "softplus")(z)])
    with pytest.warns(UserWarning) as caught:
        kvae.VAE(encoder, decoder, kvae.GaussianLikelihood("decoder"))
    assert [re.findall(r"'(\w+)' ends", str(each.message))[0] for each in caught] == ["z_log_var", "log_var"]


def test_an_encoder_that_samples_itself_is_told_to_leave_it_out():
    x = keras.Input((6,))
    encoder = keras.Model(x, [layers.Dense(2)(x) for _ in range(3)])
    with pytest.raises(ValueError, match="Leave out the third, z"):
        kvae.VAE(encoder, dense_decoder((6,), 2))


class WithHead(kvae.VAE):
    """A subclass with a layer, a metric and a number of its own."""

    metric_names = (*kvae.VAE.metric_names, "head")

    def __init__(self, encoder, decoder, **arguments):
        super().__init__(encoder, decoder, **arguments)
        self.head = layers.Dense(3)
        self.seen = keras.metrics.Mean("seen")

    def losses_per_example(self, x, training=False, index=None):
        losses, numbers = super().losses_per_example(x, training, index)
        head = tf.reduce_sum(self.head(self.encode(x)) ** 2, axis=1)
        self.seen.update_state(head)
        return losses + head, {**numbers, "head": head}


def test_a_subclass_may_have_layers_and_metrics_of_its_own(x, tmp_path):
    model = WithHead(dense_encoder((6,), 2, hidden=(8,)), dense_decoder((6,), 2, hidden=(8,)))
    model.compile(keras.optimizers.Adam(0.1), metrics=["mse"], run_eagerly=True)
    heads = model.fit(x, epochs=20, verbose=0).history["head"]
    assert heads[-1] < heads[0] and model.head in model.layers
    numbers = model.evaluate(x, verbose=0, return_dict=True)
    assert numbers["seen"] == pytest.approx(numbers["head"], rel=1e-5)  # and not its reconstruction's
    assert model.metrics_names == ["loss", "reconstruction_loss", "kl_loss", "elbo", "head", "mse", "seen"]
    with pytest.raises(ValueError, match="make them in the constructor"):
        model.other = layers.Dense(2)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", {"WithHead": WithHead})
    assert again.evaluate(x, verbose=0) == model.evaluate(x, verbose=0)
    assert len(again.optimizer.variables) == len(model.optimizer.variables)


# Callbacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("evaluate", "transform"), thorough(("predict", "evaluate an array", "reconstruct", "sample"))]
)
def test_public_methods_may_be_called_from_callbacks(names, x):
    """In groups of steps, the run goes on with as many steps and the same weights."""
    again = tf.data.Dataset.from_tensor_slices(x).batch(4).repeat()
    calls = {
        "evaluate": lambda model: model.evaluate(again, steps=3, verbose=0),
        "predict": lambda model: model.predict(again, steps=1, verbose=0),
        "evaluate an array": lambda model: model.evaluate(x, verbose=0),
        "transform": lambda model: model.transform(x),
        "reconstruct": lambda model: model.reconstruct(x),
        "sample": lambda model: model.sample(2, seed=1),
    }
    model = dense_vae_compiled()
    start = state(model)

    def train(call):
        put_back(model, start)
        hooks = "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"
        look = keras.callbacks.LambdaCallback(**{hook: lambda *_: call(model) for hook in hooks})
        model.fit(x, batch_size=2, epochs=2, initial_epoch=0, shuffle=False, verbose=0, callbacks=[look])
        return int(model.optimizer.iterations), model.get_weights()

    steps, expected = train(lambda model: None)
    assert steps == 16
    for name in names:
        taken, weights = train(calls[name])
        assert taken == steps, name
        for weight, other in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(weight, other, err_msg=name)


def test_fit_may_be_called_from_a_callback(x):
    model, nested = dense_vae_compiled(), []

    def pretrain(epoch, logs):
        if not nested:
            nested.append(epoch)
            model.fit(x[:10], batch_size=5, verbose=0)

    model.fit(x, batch_size=2, epochs=3, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=pretrain)])
    assert int(model.optimizer.iterations) == 3 * 8 + 2


# Shapes ---------------------------------------------------------------------------------------------------------------


def ragged(x):
    spec = tf.TensorSpec((None, None), tf.float32)
    return tf.data.Dataset.from_generator(lambda: iter([x, x[:, :5]]), output_signature=spec)


def test_a_later_batch_of_another_shape_is_told_in_a_sentence(x):
    model = dense_vae_compiled()
    for use in (model.fit, model.evaluate, model.transform):
        message = re.escape("the shape (16, 5) in batch 1 (counted from 0), but (n, 6) in its first")
        with pytest.raises(ValueError, match=message):
            use(ragged(x))


def test_a_stream_without_static_shapes_trains(x):
    dataset = tf.data.Dataset.range(4).map(
        lambda i: tf.numpy_function(lambda i: x[i * 4 : (i + 1) * 4], [i], tf.float32)
    )
    model = dense_vae_compiled()
    assert np.isfinite(model.fit(dataset, validation_data=dataset, verbose=0).history["val_loss"][0])
    np.testing.assert_allclose(model.transform(dataset), model.transform(x), rtol=1e-5)


def test_only_what_is_read_must_have_one_shape(x):
    boxes = tf.ragged.constant([[[1.0]], [[1.0], [2.0]]] * 8, ragged_rank=1)
    dataset = tf.data.Dataset.from_tensor_slices((x, boxes)).batch(4)
    model = eager(dense_vae())
    model.fit(dataset, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices(x).enumerate()
    padded = dataset.map(lambda number, x: (x, tf.range(number))).padded_batch(4)
    assert model.evaluate(padded, verbose=0) == pytest.approx(model.evaluate(x, verbose=0))


def test_a_stream_may_be_made_while_another_is_traced(x):
    streams = tf.data.Dataset.range(2).flat_map(lambda number: arrays.from_arrays((x,), 4, shuffle=False).epoch(0))
    gc.collect()
    np.testing.assert_array_equal(np.concatenate(list(streams)), np.r_[x, x])


class Batches(keras.utils.PyDataset):
    def __init__(self, array):
        super().__init__()
        self.array = array

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.array[4 * number : 4 * number + 4]


def test_a_py_dataset_is_let_go_after_its_use(x):
    data, model = Batches(x), eager(dense_vae())
    assert model.evaluate(data, verbose=0) == model.evaluate(x, verbose=0)
    watcher = weakref.ref(data)
    del data
    gc.collect()
    assert watcher() is None


def test_a_first_batch_that_another_process_may_shuffle_otherwise_has_no_hash(x):
    dataset = tf.data.Dataset.from_tensor_slices(x)
    tf.random.set_seed(None)
    keras.backend.clear_session()
    for other in (dataset.shuffle(16, reshuffle_each_iteration=False), dataset.shuffle(16)):
        assert provenance.first_batch_hash(other.batch(4)) is None
    assert provenance.first_batch_hash(dataset.batch(4)) == provenance.first_batch_hash(dataset.batch(4))


# Subclasses, again ----------------------------------------------------------------------------------------------------


class OfOldForm(kvae.Autoencoder):
    def losses_per_example(self, x, training=False, index=None):
        return super().losses_per_example(x, training, index)


def test_an_override_of_0_1_0_gets_no_target(x):
    model = eager(OfOldForm(dense_encoder((6,), 2, hidden=(8,)), dense_decoder((6,), 2, hidden=(8,))))
    model.fit(x, x, verbose=0)
    assert model.evaluate(x, x, verbose=0) == model.evaluate(x, verbose=0)


class WithOwnStep(kvae.VAE):
    """A head that the subclass' own train_step alone calls, and the metrics of Keras' guides."""

    def __init__(self, encoder, decoder, **arguments):
        super().__init__(encoder, decoder, **arguments)
        self.head = layers.Dense(1)
        self.loss_tracker = keras.metrics.Mean("loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(data - self(data))) + tf.reduce_mean(self.head(self.encode(data)) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, data):
        self.loss_tracker.update_state(tf.reduce_mean(tf.square(data - self(data))))
        return {"loss": self.loss_tracker.result()}


def test_a_step_of_a_subclass_trains_and_saves_its_own_layers(x, tmp_path):
    model = WithOwnStep(dense_encoder((6,), 2, hidden=(8,)), dense_decoder((6,), 2, hidden=(8,)))
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    with pytest.raises(ValueError, match="a Checkpoint wants all layers built"):
        model.fit(x, verbose=0, callbacks=[kvae.callbacks.Checkpoint(tmp_path / "run")])
    losses = model.fit(x, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and model.metrics_names == ["loss"]
    expected = np.mean((x - model.predict(x, verbose=0)) ** 2)
    assert np.ravel(model.evaluate(x, verbose=0)) == pytest.approx([expected], rel=1e-5)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", {"WithOwnStep": WithOwnStep})
    for weight, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


# The package ----------------------------------------------------------------------------------------------------------


def test_another_backend_of_keras_is_told_at_import(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    source = pathlib.Path(kvae.__file__).read_text()
    with pytest.raises(ImportError, match="KERAS_BACKEND"):
        exec(compile(source, kvae.__file__, "exec"), {"__name__": "kvae"})
