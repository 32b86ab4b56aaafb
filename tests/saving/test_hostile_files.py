"""Files from strangers: each is refused with its reason, without an effect, in little time and memory."""

import contextlib
import os
import pickle
import resource
import signal

import keras
import numpy as np
import pytest
from hierarchical_models import two_layer
from hostile_files import HOSTILE, Folder, Touch, lambda_layer, touching
from small_models import dense_vae

import kvae
from kvae import _compat
from kvae.networks import dense_decoder

SECONDS = 20
MEMORY = 150e6  # bytes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KVAE_MARKER", str(tmp_path / "marker"))
    return Folder(tmp_path)


@contextlib.contextmanager
def bounded():
    def late(*_):
        raise TimeoutError("a hostile file was waited for")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


@pytest.mark.parametrize("write, reason", HOSTILE.values(), ids=HOSTILE.keys())
def test_it_is_refused_with_its_reason_and_has_no_effect(folder, write, reason):
    write(folder)
    there = sorted(folder.path.rglob("*"))
    with bounded(), pytest.raises(ValueError, match=reason) as error:
        kvae.load(folder.file)
    assert str(error.value).startswith(f"{folder.file} is ")
    assert sorted(folder.path.rglob("*")) == there and not folder.marker.exists()


def test_the_payloads_are_live(folder):
    folder.with_layer(lambda_layer(folder))
    keras.saving.load_model(folder.file, safe_mode=False)
    assert folder.marker.exists()
    folder.marker.unlink()
    pickle.loads(pickle.dumps(Touch(folder.marker)))
    assert folder.marker.exists()


@pytest.mark.parametrize("name", ["model.h5", "model.pkl", "model"])
def test_other_kinds_of_files_are_refused_unread(folder, name):
    os.mkfifo(folder.path / name)
    with bounded(), pytest.raises(ValueError, match=r"is refused: only \.keras files are read"):
        kvae.load(folder.path / name)


def test_a_lambda_in_h5_is_refused(folder):
    model = keras.Sequential([keras.Input((3,)), touching("touching")])
    folder.marker.unlink()  # which the layer's own making touched
    model.save(folder.path / "model.h5")
    with pytest.raises(ValueError, match=r"only \.keras files are read"):
        kvae.load(folder.path / "model.h5")
    assert not folder.marker.exists()


def test_a_file_that_is_missing_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        kvae.load(tmp_path / "none.keras")


def test_a_file_that_is_not_its_cards_is_refused(tmp_path):
    model = kvae.PCA(2).fit(np.random.default_rng(0).random((20, 4)), verbose=0)
    model.save(tmp_path / "a.keras")
    kvae.load(tmp_path / "a.keras")
    model.noise_variance.assign(1.0)
    keras.saving.save_model(model, tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"a\.keras is damaged or altered: its SHA-256 isn't that of its card a\.card"):
        kvae.load(tmp_path / "a.keras")
    (tmp_path / "a.card.json").write_text("[" * 10_000)
    with pytest.raises(ValueError, match=r"a\.keras's card a\.card\.json is damaged"):
        kvae.load(tmp_path / "a.keras")
    (tmp_path / "a.card.json").unlink()
    kvae.load(tmp_path / "a.keras")


def test_what_is_loaded_is_what_was_checked(tmp_path, monkeypatch):
    path, other = tmp_path / "a.keras", tmp_path / "b.keras"
    model = kvae.PCA(2).fit(np.random.default_rng(0).random((20, 4)), verbose=0)
    model.save(path)
    keras.saving.save_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]), other)
    load = _compat.load_model
    monkeypatch.setattr(_compat, "load_model", lambda file: (os.replace(other, path), load(file))[1])
    assert isinstance(kvae.load(path), kvae.PCA) and not other.exists()


def test_weights_that_are_not_numbers_are_told(tmp_path):
    model = kvae.PCA(2).fit(np.random.default_rng(0).random((20, 4)), verbose=0)
    model.mean.assign([1.0, np.nan, 2.0, 3.0])
    model.save(tmp_path / "a.keras")
    with pytest.warns(
        UserWarning, match=r"a\.keras has NaN or infinite numbers in its weights, such as .*mean"
    ) as told:
        kvae.load(tmp_path / "a.keras")
    assert told[0].filename == __file__


# Honest files


def networks(shape=(4, 4, 1)):
    """A user's own, of many of Keras' layers."""
    x, z = keras.Input(shape), keras.Input((2,))
    h = keras.layers.RandomContrast(0.1, seed=0)(x)
    h = keras.layers.Conv2D(4, 3, 2, "same", activation="silu", kernel_regularizer=keras.regularizers.L2(1e-4))(h)
    h = keras.layers.BatchNormalization()(h)
    h = keras.layers.Add()([h, keras.layers.SpectralNormalization(keras.layers.Conv2D(4, 3, padding="same"))(h)])
    h = keras.layers.MultiHeadAttention(2, 2)(*[keras.layers.Reshape((4, 4))(h) * 2.0] * 2)
    h = keras.layers.TimeDistributed(keras.layers.Dense(3, kernel_constraint=keras.constraints.MaxNorm(2.0)))(h)
    h = keras.layers.Dense(4, keras.activations.gelu, kernel_initializer=seeded())(keras.layers.Flatten()(h))
    encoder = keras.Model(x, [h[:, :2], keras.ops.clip(h[:, 2:], -5.0, 5.0)])
    h = keras.layers.Dropout(0.1)(keras.layers.LayerNormalization()(keras.layers.Dense(16, "tanh")(z)))
    h = keras.Sequential([keras.layers.Dense(16), keras.layers.LeakyReLU(), keras.layers.Rescaling(0.5)])(h)
    return encoder, keras.Model(z, keras.layers.Reshape(shape)(h))


def seeded():
    return keras.initializers.GlorotNormal(keras.random.SeedGenerator(1))


def of_the_user():
    model = kvae.VAE(*networks())
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    loss = kvae.ELBO(beta=kvae.schedules.LinearWarmUp(1))
    metrics = [keras.metrics.MeanSquaredError()]
    model.compile(keras.optimizers.AdamW(rate, use_ema=True), loss, metrics=metrics, run_eagerly=True)
    return model


def in_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return dense_vae(likelihood="bernoulli")
    finally:
        keras.config.set_dtype_policy(before)


HONEST = {
    "the user's networks": of_the_user,
    "a network that is built later": lambda: kvae.Autoencoder(
        keras.Sequential([keras.layers.Dense(2, kernel_initializer=seeded())]), dense_decoder((6,), 2)
    ),
    "a flow": lambda: dense_vae(prior=kvae.FlowPrior(kvae.flows.Coupling())),
    "images of its own": lambda: dense_vae(prior=kvae.VampPrior(5)),
    "two layers": two_layer,
    "bfloat16": in_bfloat16,
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST.keys())
def test_an_honest_file_is_loaded_as_keras_loads_it(tmp_path, rng, make):
    model = make()
    if model.event_shape is None:
        model.build((None, 6))
    x = rng.random((12, *model.event_shape)).astype("float32")
    if model.compiled:
        model.fit(x, batch_size=6, verbose=0)
    model.save(tmp_path / "model.keras")
    ours, theirs = kvae.load(tmp_path / "model.keras"), keras.saving.load_model(tmp_path / "model.keras")
    assert ours.get_config().keys() == theirs.get_config().keys() and ours.compiled == theirs.compiled
    pairs = list(zip(ours.variables, theirs.variables, strict=True))
    if model.compiled:
        pairs += zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(ours.transform(x), model.transform(x))
