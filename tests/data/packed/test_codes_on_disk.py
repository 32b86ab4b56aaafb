"""`transform(..., directory=...)`: the codes that `transform` gives, on disk, beside their labels."""

import numpy as np
import pytest
import tensorflow as tf
from small_models import dense_vae_compiled

import kvae


@pytest.mark.parametrize("labels", [None, "label", "factors"])
def test_codes_on_disk_are_those_in_memory(rng, tmp_path, labels):
    x, y = rng.random((50, 6)).astype("float32"), np.arange(50)
    element = {None: x, "label": (x, y), "factors": (x, {"factors": y, "other": y})}[labels]
    model = dense_vae_compiled()
    model.build((None, 6))
    stream = tf.data.Dataset.from_tensor_slices(element).batch(12)
    assert model.transform(stream, directory=tmp_path / "codes") is None
    train, *_ = kvae.data.load(tmp_path / "codes", 20, labels=labels, validation=0, shuffle=0)
    found = list(train)
    codes = np.concatenate([batch if labels is None else batch[0] for batch in found])
    np.testing.assert_array_equal(codes, model.transform(x))
    if labels:
        np.testing.assert_array_equal(np.concatenate([batch[1] for batch in found]), y)


def test_labels_never_take_the_place_of_codes(rng, tmp_path):
    model = dense_vae_compiled()
    model.build((None, 6))
    with pytest.raises(ValueError, match='labels named "code", as the codes beside them are: rename them'):
        model.transform((rng.random((50, 6)), {"code": np.arange(50)}), directory=tmp_path)


def test_codes_are_not_written_over(rng, tmp_path):
    x = rng.random((50, 6)).astype("float32")
    model = dense_vae_compiled()
    model.build((None, 6))
    model.transform(x, directory=tmp_path)
    with pytest.raises(FileExistsError, match="already"):
        model.transform(x[:10], directory=tmp_path)
