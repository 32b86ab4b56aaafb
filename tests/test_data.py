"""What streams carry, what is refused and how, and what `load` makes of a set of tensorflow-datasets."""

import os
import types
import urllib.request

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import kvae.data
from kvae.data import loading, streams

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
    assert streams.unpack(element) == expected


def test_unpack_refuses():
    with pytest.raises(ValueError, match=r"\['id', 'picture'\]"):
        streams.unpack({"picture": 0, "id": 1})
    with pytest.raises(ValueError, match="tuple of 4"):
        streams.unpack((1, 2, 3, 4))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scale(dtype):
    for raw, expected in [
        (np.array([0, 51, 255], np.uint8), [0, 51 / 255, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([0.25, 300.0]), [0.25, 300]),
        (np.array([0, 255], np.int32), [0, 255]),
    ]:
        eager, graph = streams.scale(raw, dtype), tf.function(streams.scale)(tf.constant(raw), dtype)
        assert eager.dtype == graph.dtype == dtype
        np.testing.assert_array_equal(eager, graph)
        np.testing.assert_array_max_ulp(eager.numpy(), np.asarray(expected, dtype), 1)
    assert streams.scale(np.uint8(255), dtype) == 1


def test_batches_hold_each_example_once_in_order(x, tmp_path):
    labels = np.arange(50)
    dataset = stream(x)
    assert streams.batches(dataset) is dataset
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for data in x, mapped, (x,), (x, labels), {"image": x, "label": labels}:
        made = streams.batches(data, batch_size=7)
        assert made.cardinality() == 8
        elements = [streams.unpack(element) for element in made]
        np.testing.assert_array_equal(np.concatenate([element[0] for element in elements]), x)
        if elements[0][1] is not None:
            np.testing.assert_array_equal(np.concatenate([element[1] for element in elements]), labels)


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
        np.testing.assert_array_equal(streams.check(data, SHAPE), streams.scale(pixels[:8]))
    assert streams.check(stream(x).repeat(), SHAPE, steps=3).shape == (8, *SHAPE)
    np.testing.assert_array_equal(streams.check(x, SHAPE), x)
    assert streams.check(x > 0.5, SHAPE).dtype == np.float32


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
    monkeypatch.setattr(streams, "BLOCK_BYTES", 10 * x[0].nbytes)
    with pytest.raises(error, match=message) as found:
        streams.check(make(x), SHAPE)
    assert "\n" not in str(found.value)


def test_grey_images_without_a_channel(x):
    with pytest.raises(ValueError, match=r"x\[\.\.\., None\]"):
        streams.check(x[..., 0], (6, 5, 1))


@pytest.mark.filterwarnings("ignore:`shuffle=True`")
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_nan_later_in_a_stream_is_one_clear_error(x, call):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(loss="mse")
    dataset = stream(bad_at(x, 37), np.zeros((50, 1), np.float32))
    guarded = streams.finite(dataset)
    assert guarded.cardinality() == dataset.cardinality() and guarded.element_spec == dataset.element_spec
    message = "the data has NaN or infinite values in batch 4 "
    with pytest.raises(ValueError, match=message) as found, streams.clear_errors():
        getattr(model, call)(guarded, verbose=0)
    assert "\n" not in str(found.value) and found.value.__suppress_context__
    with pytest.raises(tf.errors.InvalidArgumentError), streams.clear_errors():
        tf.reshape(x, (7, 7))
    pixels = stream((x * 255).astype(np.uint8))
    assert streams.finite(pixels) is pixels


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def load(data_dir, examples=300, **options):
    return kvae.data.load("sprites", 32, size=8, examples=examples, data_dir=data_dir, **options)


def hues(data):
    return np.concatenate([labels["hue"] for _, labels in data])


def test_load_streams_batches_of_known_number(data_dir, capfd):
    parts = load(data_dir, examples=310)
    assert capfd.readouterr().out == ""
    for part, batches, last in zip(parts, (10, 1, 1), (22, 31, 31), strict=True):
        assert part.cardinality() == batches and kvae.data.image_shape(part) == (8, 8, 3)
        images = list(part.as_numpy_iterator())
        assert len(images) == batches and len(images[-1]) == last and images[0].dtype == np.uint8


def test_load_gives_the_labels_asked_for(data_dir):
    image, shape = next(iter(load(data_dir, labels="shape")[1]))
    again, labels = next(iter(load(data_dir, labels=("shape", "hue"))[1]))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(shape, labels["shape"])
    assert set(labels) == {"shape", "hue"} and labels["hue"].dtype == tf.float32


def test_order_is_a_function_of_the_seed_and_the_epoch(data_dir):
    def epochs(**options):
        train = load(data_dir, labels=("hue",), **options)[0]
        return [hues(train) for _ in range(3)]

    first, again, other = epochs(seed=1), epochs(seed=1), epochs(seed=2)
    stored, unseeded = epochs(shuffle=0), epochs(seed=None)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(stored[0], stored[1])
    orders = [tuple(order) for order in (*first, *other, *unseeded, stored[0])]
    assert len(set(orders)) == len(orders) and len({tuple(sorted(order)) for order in orders}) == 1
    assert len(set(orders[0])) == 300


def test_held_out_parts_keep_their_order(data_dir):
    for part in 1, 2:
        orders = [hues(load(data_dir, labels=("hue",), seed=seed)[part]) for seed in (0, 1)]
        np.testing.assert_array_equal(*orders)


def test_the_shuffling_buffer_holds_files_not_pixels(data_dir, monkeypatch):
    seen, shuffle = [], tf.data.Dataset.shuffle

    def spy(self, size, **options):
        seen.append((self.element_spec, size))
        return shuffle(self, size, **options)

    monkeypatch.setattr(tf.data.Dataset, "shuffle", spy)
    load(data_dir, shuffle=70)
    assert [(spec, size) for spec, size in seen if isinstance(spec, dict)] == [
        ({"image": tf.TensorSpec((), tf.string)}, 70)
    ]


class TinyMasks(tfds.core.GeneratorBasedBuilder):
    """One split of images that store 0 and 1."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "number": np.int64}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(90):
            yield i, {"image": np.full((4, 4, 1), i % 2, np.uint8), "number": i}


class TinyWords(TinyMasks):
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": np.str_}))


class TinyUnreachable(TinyMasks):
    def _generate_examples(self):
        raise OSError("the server\n said no")
        yield


def test_masks_become_white_and_missing_splits_come_from_train(data_dir):
    parts = kvae.data.load("tiny_masks", 16, labels=("number",), validation=0.2, data_dir=data_dir)
    numbers = []
    for part, size in zip(parts, (54, 18, 18), strict=True):
        images, labels = next(iter(part.unbatch().batch(100)))
        np.testing.assert_array_equal(images[:, 0, 0, 0], 255 * (labels["number"].numpy() % 2))
        assert len(images) == size and images.dtype == tf.uint8 and part.cardinality() == -(-size // 16)
        numbers += list(labels["number"].numpy())
    assert sorted(numbers) == list(range(90))
    train, validation, test = kvae.data.load("tiny_masks", 16, validation=0, data_dir=data_dir)
    assert train.cardinality() == 6 and validation is None and test is None


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("tiny_masks", {"labels": "label"}, ValueError, r"no feature \['label'\].*\['number'\]"),
        ("tiny_masks", {"validation": 0.5}, ValueError, r"validation is 0\.5"),
        ("tiny_masks", {"size": 8}, TypeError, "sprites alone"),
        ("sprites", {"sizes": 8}, TypeError, "sizes.*config_seed"),
        ("tiny_words", {}, ValueError, 'no image feature "image".*text'),
        ("sprites", {"shuffle": True}, TypeError, "number of images"),
        ("tiny_unreachable", {}, OSError, r"the server said no.*tiny_unreachable/1\.0\.0"),
        ("no_such_set", {}, ValueError, "no set named"),
    ],
)
def test_load_refuses(name, options, error, message, data_dir):
    with pytest.raises(error, match=message) as found:
        kvae.data.load(name, data_dir=data_dir, **options)
    assert "\n" not in str(found.value)


def test_no_network_is_seen_at_once(monkeypatch):
    unreachable = types.SimpleNamespace(url_infos={"https://nowhere.invalid/images.gz": None})
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    assert loading._offline(unreachable) and not loading._offline(types.SimpleNamespace(url_infos=None))


@pytest.mark.parametrize(("name", "sizes"), [("fashion_mnist", (54000, 6000, 10000)), ("dsprites", None)])
def test_real_sets(name, sizes):
    builder = tfds.builder(name, data_dir=os.environ.get("KVAE_TEST_DATA"))
    if not builder.data_path.exists():
        pytest.skip(f"{name} is not in {builder.data_path}; KVAE_TEST_DATA can name another tfds folder")
    parts = kvae.data.load(name, 1000, data_dir=os.environ.get("KVAE_TEST_DATA"))
    images = next(iter(parts[1])).numpy()
    assert images.dtype == np.uint8 and images.shape[1:] == kvae.data.image_shape(parts[0])
    if name == "dsprites":
        assert set(np.unique(images)) == {0, 255}
    else:
        assert images.max() == 255 and len(np.unique(images)) > 200
        assert [part.cardinality() for part in parts] == [size // 1000 for size in sizes]
