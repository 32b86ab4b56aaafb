"""Models, packed data and checkpoints that kvae 0.1.0 wrote, see `tests/saved_by_0_1_0/make.py`, still serve."""

import json
import pathlib
import shutil
import warnings

import keras
import numpy as np
import pytest
from breadth import EAGERLY_AND_IN_A_GRAPH, some

import kvae

FOLDER = pathlib.Path(__file__).parents[1] / "saved_by_0_1_0"
DATA = np.load(FOLDER / "data.npz")
X, LABELS, PIXELS = DATA["x"], DATA["labels"], DATA["pixels"]
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NEW_NAMES = {"quantisation_loss": "quantization_loss"}


@EAGERLY_AND_IN_A_GRAPH
@pytest.mark.parametrize(
    "name",
    some(
        sorted(path.stem for path in FOLDER.glob("*.keras")),
        *("autoencoder", "conditional_vae", "hierarchical_vae", "pca", "vae_mixture_flow_posterior", "vq_vae"),
    ),
)
def test_a_model_gives_the_numbers_that_it_gave_and_trains_on(name, eagerly):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        model = kvae.load(FOLDER / f"{name}.keras")
    model.run_eagerly = eagerly
    expected = EXPECTED[name]
    data = {"x": X, "y": LABELS} if name == "conditional_vae" else {"x": X}
    numbers = {NEW_NAMES.get(key, key): value for key, value in expected["evaluate"].items()}
    assert model.evaluate(**data, verbose=0, return_dict=True) == pytest.approx(numbers, rel=1e-5, abs=1e-6)
    codes = model.transform(tuple(data.values()) if len(data) > 1 else X)
    np.testing.assert_allclose(codes, expected["transform"], rtol=1e-5, atol=1e-6)
    if name != "pca":
        assert int(model.optimizer.iterations) == expected["step"]
        model.fit(**data, batch_size=20, verbose=0)
        assert int(model.optimizer.iterations) == expected["step"] + 3


def test_packed_data_give_the_rows_that_were_packed():
    kvae.data.verify(FOLDER / "packed")
    train, validation, test = kvae.data.load(
        FOLDER / "packed", 16, labels="label", shuffle=0, validation=0.25, split="end"
    )
    for stream, rows in ((train, slice(30)), (validation, slice(30, 40)), (test, slice(10))):
        images, labels = (np.concatenate(part) for part in zip(*stream.epoch(0), strict=True))
        np.testing.assert_array_equal(images, PIXELS[rows])
        np.testing.assert_array_equal(labels, np.arange(40)[rows])


def test_a_run_goes_on_from_its_checkpoint_to_the_weights_of_one_that_did_not_stop(tmp_path, capsys):
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    keras.utils.set_random_seed(1)
    model = kvae.VAE(kvae.networks.dense_encoder((6,), 2, (4,)), kvae.networks.dense_decoder((6,), 2, (4,)), seed=3)
    model.compile(kvae.optimizers.Adam(1e-2))
    checkpoint = kvae.callbacks.Checkpoint(tmp_path / "run", save_every=2)
    model.fit(X, epochs=3, batch_size=20, callbacks=[checkpoint], verbose=2)
    assert "goes on in epoch 3" in capsys.readouterr().out
    for weight, expected in zip(model.get_weights(), EXPECTED["run"]["weights"], strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
