import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kvae
from kvae.networks import dense_decoder, dense_encoder

GO_ON = """
import sys, json, numpy as np, keras, kvae
folder, out = sys.argv[1:]
x = np.load(folder + "/x.npy")
model = keras.saving.load_model(folder + "/vae.keras")
np.save(out + "/codes.npy", model.transform(x))
state = {
    "step": int(model.optimizer.iterations),
    "rate": float(model.optimizer.learning_rate),
    "numbers": model.evaluate(x, return_dict=True, verbose=0),
}
history = model.fit(x, epochs=2, batch_size=20, shuffle=False, verbose=0).history
np.savez(out + "/weights.npz", *model.get_weights())
np.save(out + "/samples.npy", model.sample(5))
print(json.dumps({**state, "history": history}))
"""


@pytest.mark.processes
def test_a_fresh_process_loads_it_and_goes_on_as_if_nothing_had_been(tmp_path, rng):
    x = rng.random((100, 6)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.2), dense_encoder((6,), 2)])
    model = kvae.VAE(encoder, dense_decoder((6,), 2), kvae.GaussianLikelihood("pixel"), seed=7)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 40)
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, 15, end_learning_rate=1.0)
    model.compile(keras.optimizers.Adam(rate), kvae.ELBO(beta=warm_up, free_bits=0.01))
    model.fit(x, epochs=2, batch_size=20, shuffle=False, verbose=0)
    model.sample(3)
    model.save(tmp_path / "vae.keras")

    run = subprocess.run(
        [sys.executable, "-c", GO_ON, tmp_path, tmp_path],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(kvae.__file__).parents[1],
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), model.transform(x))
    assert found["step"] == 10
    assert found["rate"] == pytest.approx(float(model.optimizer.learning_rate))
    assert found["numbers"] == model.evaluate(x, return_dict=True, verbose=0)

    history = model.fit(x, epochs=2, batch_size=20, shuffle=False, verbose=0).history
    assert found["history"] == history
    weights = np.load(tmp_path / "weights.npz")
    for ours, theirs in zip(model.get_weights(), weights.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npy"), model.sample(5))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", kvae.GaussianLikelihood(0.1)])
def test_an_untrained_model_is_saved_too(tmp_path, rng, likelihood):
    model = kvae.VAE(dense_encoder((6,), 2), dense_decoder((6,), 2), likelihood)
    model.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    x = rng.random((10, 6)).astype("float32")
    np.testing.assert_array_equal(loaded.transform(x), model.transform(x))
    np.testing.assert_array_equal(loaded.likelihood.get_weights(), model.likelihood.get_weights())


def test_weights_alone_carry_the_seeds(tmp_path, rng):
    x = rng.random((40, 6)).astype("float32")
    first, second = (kvae.VAE(dense_encoder((6,), 2), dense_decoder((6,), 2), seed=s) for s in (1, 2))
    first.draw(x)
    first.save_weights(tmp_path / "vae.weights.h5")
    second.load_weights(tmp_path / "vae.weights.h5")
    np.testing.assert_array_equal(second.draw(x).z, first.draw(x).z)
    np.testing.assert_array_equal(second.sample(3), first.sample(3))
