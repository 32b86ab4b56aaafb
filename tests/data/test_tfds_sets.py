"""What `load` makes of the sets of tensorflow-datasets."""

import os
import random
import types
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import kvae.data
from kvae.data import tfds_sets


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


def test_preparing_a_set_leaves_pythons_random_numbers_alone(data_dir):
    state = random.getstate()
    load(data_dir, examples=17)
    assert random.getstate() == state


def test_load_gives_the_labels_asked_for(data_dir):
    image, shape = next(iter(load(data_dir, labels="shape")[1]))
    again, labels = next(iter(load(data_dir, labels=("shape", "hue"))[1]))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(shape, labels["shape"])
    assert set(labels) == {"shape", "hue"} and labels["hue"].dtype == tf.float32


@pytest.mark.thorough
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

    def spy(self, size, *seed, **options):
        seen.append((self.element_spec, size))
        return shuffle(self, size, *seed, **options)

    monkeypatch.setattr(tf.data.Dataset, "shuffle", spy)
    load(data_dir, shuffle=70)
    assert {size for spec, size in seen if spec == tf.TensorSpec((), tf.string)} == {70} and len(seen) == 1


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
        ("tiny_masks", {"size": 8}, TypeError, "sprites and drawn_digits alone"),
        ("sprites", {"sizes": 8}, TypeError, "sizes.*config_seed"),
        ("tiny_words", {}, ValueError, 'no image feature "image".*text'),
        ("sprites", {"shuffle": True}, TypeError, "number of images"),
        ("tiny_unreachable", {}, OSError, r"the server said no.*tiny_unreachable/1\.0\.0"),
        ("sprites", {"batch_size": 0}, ValueError, "batch_size is 0, expected an integer of at least 1"),
        ("packd", {}, ValueError, "found no folder 'packd' that `pack` wrote, and tensorflow-datasets .* no set named"),
    ],
)
def test_load_refuses(name, options, error, message, data_dir):
    with pytest.raises(error, match=message) as found:
        kvae.data.load(name, data_dir=data_dir, **options)
    assert "\n" not in str(found.value)


def test_no_network_is_seen_at_once(monkeypatch):
    unreachable = types.SimpleNamespace(url_infos={"https://nowhere.invalid/images.gz": None})
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    assert tfds_sets._offline(unreachable) and not tfds_sets._offline(types.SimpleNamespace(url_infos=None))


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
