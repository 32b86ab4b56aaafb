"""Records read, shuffled, shared and decoded by the batch are the set's, each once, or an error says what's wrong."""

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from small_models import dense_vae_compiled

import kvae.data
from kvae.data import errors, tfds_records
from kvae.data.packed import format

EXAMPLES, BATCH = 103, 12


class ManyFiles(tfds.core.GeneratorBasedBuilder):
    """Images and features of every kind, in files of unequal lengths."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(3, 2, 1)),
            "number": np.int32,
            "kind": tfds.features.ClassLabel(num_classes=3),
            "word": tfds.features.Text(),
            "vector": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "packed": tfds.features.Tensor(shape=(2,), dtype=np.int16, encoding="zlib"),
            "nested": {"flag": np.bool_},
            "sequence": tfds.features.Sequence(np.int64, length=2),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            homepage="https://example.org",
            citation="A, 2020",
            redistribution_info={"license": "CC0"},
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(EXAMPLES):
            yield (
                i,
                {
                    "image": np.full((3, 2, 1), i, np.uint8),
                    "number": i,
                    "kind": i % 3,
                    "word": str(i),
                    "vector": [i, -i],
                    "packed": np.array([i, -i], np.int16),
                    "nested": {"flag": i % 2},
                    "sequence": [i, i + 1],
                },
            )


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("tfds"))


def prepared(folder):
    tfds.disable_progress_bar()
    made = ManyFiles(data_dir=folder)
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=5))
    tfds.enable_progress_bar()
    return made


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def numbers(batches):
    return [batch.tolist() for batch in batches.as_numpy_iterator()]


def read(builder, part="train", batch_size=BATCH, **options):
    return tfds_records.read(builder, part, ["number"], batch_size, lambda batch: batch["number"], **options)


def test_features_of_every_kind_are_those_of_tfds(builder):
    names = list(builder.info.features)
    expected = list(builder.as_dataset(split="train").as_numpy_iterator())
    expected = {example["number"]: example for example in expected}
    for chosen in ["image", "number", "kind", "word", "vector", "packed"], names:
        stream = tfds_records.read(builder, "train", chosen, BATCH, lambda batch: batch)
        assert stream.cardinality() == 9
        seen = list(tf.data.Dataset.as_numpy_iterator(stream.epoch(0).unbatch()))
        assert [example["number"] for example in seen] == numbers(read(builder, batch_size=EXAMPLES).epoch(0))[0]
        for example in seen:
            for name in chosen:
                tf.nest.map_structure(np.testing.assert_array_equal, example[name], expected[example["number"]][name])
                assert np.asarray(example[name]).dtype == np.asarray(expected[example["number"]][name]).dtype


def test_the_order_is_a_function_of_seed_and_epoch_alone(builder):
    stored = flat(numbers(read(builder).epoch(0)))
    orders = set()
    for seed in 0, 2**40:
        for epoch in 0, 1:
            tf.random.set_seed(0)
            first = numbers(read(builder, shuffle=30, seed=seed).epoch(epoch))
            tf.random.set_seed(1)
            again = read(builder, shuffle=30, seed=seed)
            assert first == numbers(again.epoch(epoch)) and first[4:] == numbers(again.epoch(epoch, skip=4))
            orders.add(tuple(flat(first)))
    assert len(orders | {tuple(stored)}) == 5
    assert all(sorted(order) == list(range(EXAMPLES)) for order in (stored, *orders))
    assert numbers(read(builder, "train[20:40]").epoch(0)) == [stored[20:32], stored[32:40]]
    other, another = (numbers(read(builder, shuffle=30, seed=None).epoch(0)) for _ in range(2))
    assert other != another


@pytest.mark.parametrize(("part", "workers"), [("train", 3), ("train[:97]", 4), ("train", 7), ("train[:3]", 2)])
def test_shares_are_stretches_of_the_batches_of_all(builder, part, workers):
    stream = read(builder, part, shuffle=50)
    whole = numbers(stream.epoch(1))
    shares = [numbers(stream.epoch(1, shard_index=i, num_shards=workers)) for i in range(workers)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert flat(parts) == batch and max(map(len, parts)) - min(map(len, parts)) <= 1
    assert numbers(stream.epoch(1, skip=2, shard_index=1, num_shards=workers)) == shares[1][2:]


def cut_at_a_record(data):
    length = int.from_bytes(data[:8], "little") + 16
    return data[: 3 * length]


@pytest.mark.parametrize(
    "damage",
    [
        cut_at_a_record,
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:],
    ],
    ids=["cut at a record", "cut in a record", "empty", "flipped"],
)
def test_a_damaged_file_is_named(tmp_path, builder, damage):
    folder = tmp_path / "many_files"
    shutil.copytree(builder.data_path.parent, folder)
    again = ManyFiles(data_dir=tmp_path)
    file = sorted(folder.rglob("*.tfrecord*"))[2]
    file.write_bytes(damage(file.read_bytes()))
    expected = rf"many_files's file {file} is cut short or altered: it doesn't give its \d+ examples"
    for stream in read(again), read(again, shuffle=20):
        with pytest.raises(OSError, match=expected) as found, errors.clear_errors():
            list(stream)
        assert "\n" not in str(found.value)
    images = tfds_records.read(again, "train", ["image"], BATCH, lambda x: tf.reshape(x["image"], (-1, 6)) / 255)
    with pytest.raises(OSError, match=expected):
        dense_vae_compiled().fit(images, verbose=0)


def test_a_missing_file_is_named(tmp_path, builder):
    shutil.copytree(builder.data_path.parent, tmp_path / "many_files")
    file = sorted(tmp_path.rglob("*.tfrecord*"))[1]
    file.unlink()
    with pytest.raises(tf.errors.NotFoundError, match=file.name):
        list(read(ManyFiles(data_dir=tmp_path)))


def test_damaged_examples_of_a_set_of_tfds_cannot_be_skipped(builder):
    with pytest.raises(ValueError, match=r"damaged='skip' is for packed data alone: .* delete its folder"):
        kvae.data.load("many_files", data_dir=builder.data_path.parents[1], damaged="skip")


@pytest.mark.thorough
def test_a_pack_says_where_its_streams_come_from(tmp_path, builder):
    def packed(folder, data, **given):
        kvae.data.pack(data, tmp_path / folder, **given)
        content = format.read_manifest(tmp_path / folder)
        return content["source"], content["licence"]

    _, *parts = kvae.data.load("many_files", 10, labels="number", data_dir=builder.data_path.parents[1])
    said = {"name": "many_files", "version": "1.0.0", "homepage": "https://example.org", "citation": "A, 2020"}
    assert packed("a", (parts[0].map(lambda x, y: (x, y)), None, parts[1])) == (said, "CC0")
    again = kvae.data.load(tmp_path / "a")
    assert packed("b", again) == (said, "CC0")
    assert packed("c", again, source="my camera", license="mine") == ("my camera", "mine")
    assert packed("d", {"train": again[0], "test": np.zeros((4, 3, 2, 1), np.uint8)}) == (None, None)


def test_a_share_that_leaves_nothing_to_train_on_is_refused(tmp_path, builder):
    kvae.data.pack(np.zeros((2, 3, 2, 1), np.float32), tmp_path)
    with pytest.raises(ValueError, match=r"train has 2 rows, of which validation=0\.49 leaves none to train on"):
        kvae.data.load(tmp_path, validation=0.49)
    assert [part and part.provenance.split for part in kvae.data.load(tmp_path, validation=0)] == [
        "train[0:2]",
        None,
        None,
    ]
