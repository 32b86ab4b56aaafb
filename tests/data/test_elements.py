"""What streams carry, what is refused, and how."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvae.data
from kvae.data import arrays, elements, errors, validation

SHAPE = (6, 5, 3)


@pytest.fixture
def x(rng):
    return rng.random((50, *SHAPE), np.float32)


def stream(*arrays, batch=8):
    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays).batch(batch)


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("x", ("x", None, None)),
        (("x",), ("x", None, None)),
        (("x", "y"), ("x", "y", None)),
        (["x", "y", "w"], ("x", "y", "w")),
        ({"image": "x"}, ("x", None, None)),
        ({"image": "x", "label": "y", "id": "i"}, ("x", "y", None)),
        (({"image": "x", "label": "l"}, "y", "w"), ("x", "y", "w")),
    ],
)
def test_unpack(element, expected):
    assert elements.unpack(element) == expected


def test_unpack_refuses():
    with pytest.raises(ValueError, match=r"\['id', 'picture'\]"):
        elements.unpack({"picture": 0, "id": 1})
    with pytest.raises(ValueError, match="tuple of 4"):
        elements.unpack((1, 2, 3, 4))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scale(dtype):
    for raw, expected in [
        (np.array([0, 51, 255], np.uint8), [0, 51 / 255, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([0.25, 300.0]), [0.25, 300]),
        (np.array([0, 255], np.int32), [0, 255]),
    ]:
        eager, graph = elements.scale(raw, dtype), tf.function(elements.scale)(tf.constant(raw), dtype)
        assert eager.dtype == graph.dtype == dtype
        np.testing.assert_array_equal(eager, graph)
        np.testing.assert_array_max_ulp(eager.numpy(), np.asarray(expected, dtype), 1)
    assert elements.scale(np.uint8(255), dtype) == 1


def test_batches_hold_each_example_once_in_order(x, tmp_path):
    labels = np.arange(50)
    dataset = stream(x)
    assert arrays.batches(dataset) is dataset
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for data in x, mapped, (x,), (x, labels), {"image": x, "label": labels}:
        made = arrays.batches(data, batch_size=7)
        assert made.cardinality() == 8
        unpacked = [elements.unpack(element) for element in made]
        np.testing.assert_array_equal(np.concatenate([element[0] for element in unpacked]), x)
        if unpacked[0][1] is not None:
            np.testing.assert_array_equal(np.concatenate([element[1] for element in unpacked]), labels)


def test_image_shape(x):
    for data in x, (x, x), {"image": x}, stream(x), stream(x, x), stream({"image": x}), stream(x).take(2):
        assert kvae.data.image_shape(data) == SHAPE
    assert kvae.data.image_shape(stream(x[..., 0].reshape(50, -1))) == (30,)
    for single in tf.data.Dataset.from_tensor_slices(x), stream(x).unbatch(), tf.data.Dataset.range(3):
        with pytest.raises(ValueError, match=r"call \.batch"):
            kvae.data.image_shape(single)
    unknown = tf.data.Dataset.from_generator(lambda: [x], output_signature=tf.TensorSpec((None, None, 5, 3)))
    with pytest.raises(ValueError, match="doesn't tell"):
        kvae.data.image_shape(unknown)


def test_check_gives_the_first_batch(x):
    pixels = (x * 255).astype(np.uint8)
    for data in stream(pixels), stream(pixels, pixels), stream(pixels).repeat(2), stream({"image": pixels}):
        np.testing.assert_array_equal(validation.validate_first_batch(data, SHAPE).x, elements.scale(pixels[:8]))
    assert validation.validate_first_batch(stream(x).repeat(), SHAPE, steps=3).x.shape == (8, *SHAPE)
    np.testing.assert_array_equal(validation.validate_first_batch(x, SHAPE).x, x)
    assert validation.validate_first_batch(x > 0.5, SHAPE).x.dtype == np.float32


def bad_at(x, i, value=np.nan):
    x = x.copy()
    x[i, 2, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: stream(x).take(0), ValueError, "empty"),
        (lambda x: stream(x).filter(lambda batch: False), ValueError, "empty"),
        (lambda x: x[:0], ValueError, "empty"),
        (lambda x: stream(x).repeat(), ValueError, "endless"),
        (lambda x: stream(x[:, :4]), ValueError, r"\(None, 4, 5, 3\), but the model takes \(n, 6, 5, 3\)"),
        (lambda x: x[..., 0], ValueError, r"\(50, 6, 5\), but"),
        (lambda x: tf.data.Dataset.from_tensor_slices(x), ValueError, r"call \.batch"),
        (lambda x: x[0], ValueError, r"x\[None\]"),
        (lambda x: stream(x.astype(str)), TypeError, "string"),
        (lambda x: x.astype(complex), TypeError, "complex128"),
        (lambda x: x.astype(object), TypeError, "object"),
        (lambda x: iter(x), TypeError, "expected a tf.data.Dataset or numpy arrays"),
        (lambda x: (x, np.zeros(49)), ValueError, "as many examples"),
        (lambda x: stream(bad_at(x, 3)), ValueError, "NaN or infinite values in its first batch"),
        (lambda x: bad_at(x, 41, np.inf), ValueError, "example 41"),
        (lambda x: tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])).batch(2), TypeError, "dense"),
    ],
)
def test_check_refuses(x, make, error, message, monkeypatch):
    monkeypatch.setattr(elements, "BLOCK_BYTES", 10 * x[0].nbytes)
    with pytest.raises(error, match=message) as found:
        validation.validate_first_batch(make(x), SHAPE)
    assert "\n" not in str(found.value)


def test_grey_images_without_a_channel(x):
    with pytest.raises(ValueError, match=r"x\[\.\.\., None\]"):
        validation.validate_first_batch(x[..., 0], (6, 5, 1))


@pytest.mark.filterwarnings("ignore:`shuffle=True`")
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_nan_later_in_a_stream_is_one_clear_error(x, call):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(loss="mse")
    dataset = stream(bad_at(x, 37), np.zeros((50, 1), np.float32))
    guarded = validation.stop_at_nonfinite(dataset)
    assert guarded.cardinality() == dataset.cardinality() and guarded.element_spec == dataset.element_spec
    message = "the data has NaN or infinite values in batch 4 "
    with pytest.raises(ValueError, match=message) as found, errors.clear_errors():
        getattr(model, call)(guarded, verbose=0)
    assert "\n" not in str(found.value) and found.value.__suppress_context__
    with pytest.raises(tf.errors.InvalidArgumentError), errors.clear_errors():
        tf.reshape(x, (7, 7))
    pixels = stream((x * 255).astype(np.uint8))
    assert validation.stop_at_nonfinite(pixels) is pixels
