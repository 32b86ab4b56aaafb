"""What `load` gives of packed data: every row, an order that is a function of the epoch, and every fault."""

import itertools
import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some, thorough
from small_models import dense_vae, shared

import kvae.data
from kvae.data import errors
from kvae.data.packed import writer
from kvae.data.packed.blocks import BlockReader
from kvae.data.stream import Stream

ROWS, SHAPE = 1003, (5, 4, 3)
X = np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPE), np.uint8)
COLUMNS = {"image": X, "row": np.arange(ROWS), "hue": X[:, 0, 0, 0].astype("float32"), "mask": X[:, 0] > 99}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    writer.write_columns({"train": [COLUMNS]}, folder, shard_bytes=200 * 60, block_bytes=60 * 10)  # 10 and 200 rows
    return folder


def load(folder, batch_size=32, labels="row", shuffle=150, validation=0, **options):
    return kvae.data.load(folder, batch_size, labels=labels, shuffle=shuffle, validation=validation, **options)


def rows(batches):
    return [list(row.numpy()) for _, row in batches]


def flat(batches):
    return [row for batch in rows(batches) for row in batch]


def test_every_row_once_with_its_labels(folder):
    assert isinstance(load(folder)[0], Stream)
    for batch_size, shuffle in (32, 150), (7, 0), (1003, 1), (5000, 10_000):
        train, validation, test = load(folder, batch_size, ("row", "hue", "mask"), shuffle)
        assert validation is test is None and train.cardinality() == -(-ROWS // batch_size)
        seen = []
        for x, labels in train:
            row = labels["row"].numpy()
            for name, values in {**labels, "image": x}.items():
                np.testing.assert_array_equal(values, COLUMNS[name][row], strict=True)
            seen.append(row)
        assert [len(row) for row in seen[:-1]] == [batch_size] * (len(seen) - 1)
        assert (np.concatenate(seen) == range(ROWS)).all() == (shuffle == 0)
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(ROWS))


def test_the_order_is_a_function_of_the_seed_and_the_epoch(folder):
    def epochs(seed):
        train = load(folder, seed=seed)[0]
        return [tuple(flat(train)) for _ in range(2)]

    first, again, other, large, drawn = (epochs(seed) for seed in (1, 1, 2, 2**40, None))
    assert first == again
    assert len({*first, *other, *large, *drawn}) == 8
    assert tuple(flat(load(folder, seed=1)[0].epoch(1))) == first[1]


@pytest.mark.parametrize("shuffle", [0, 150, 10_000])
def test_an_epoch_goes_on_anywhere(folder, shuffle):
    train = load(folder, shuffle=shuffle)[0]
    whole = rows(train.epoch(3))
    for skip in 1, 5, 17, 31, 40:
        rest = train.epoch(3, skip=skip)
        assert rows(rest) == whole[skip:] and rest.cardinality() == len(whole[skip:])


@pytest.mark.parametrize("shuffle", [0, 150])
def test_what_is_skipped_or_anothers_share_is_not_read(folder, shuffle, monkeypatch):
    numbers, read = [], BlockReader._read
    monkeypatch.setattr(BlockReader, "_read", lambda self, asked: numbers.extend(asked) or read(self, asked))
    train = load(folder, shuffle=shuffle, labels=None)[0]

    def seen(**options):
        numbers.clear()
        list(train.epoch(0, **options))
        return list(numbers)

    whole = seen()
    assert set(whole) == set(range(101)) and len(whole) < 101 + ROWS / 150
    assert seen(skip=25) == whole[-len(numbers) :] and len(numbers) < 101 * 12 / 32
    share = train.skip(16).take(16)  # a share of the batches, as PCA reads
    assert seen() == whole and len(list(share)) == 16
    numbers.clear()
    list(share)
    assert set(numbers) < set(whole) and len(numbers) < 0.85 * len(whole)  # with a buffer ahead


@pytest.mark.parametrize(
    ("batch_size", "workers", "shuffle"),
    some(
        [(*sizes, shuffle) for sizes in ((32, 4), (30, 7), (1002, 2), (2000, 2), (3, 5)) for shuffle in (0, 150)],
        *((32, 4, 150), (30, 7, 0), (1002, 2, 150), (2000, 2, 0), (3, 5, 150)),
    ),
)
def test_shares_are_stretches_of_the_batches_of_all(folder, batch_size, workers, shuffle):
    train = load(folder, batch_size, shuffle=shuffle)[0].take(40)
    shares = [rows(train.epoch(1, shard_index=i, num_shards=workers)) for i in range(workers)]
    whole = rows(train.epoch(1))
    assert [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == whole
    lengths = np.array([[len(batch) for batch in share] for share in shares])[:, :-1]
    assert not lengths.size or np.ptp(lengths, axis=0).max() <= 1
    skip = len(whole) // 2
    assert rows(train.epoch(1, skip=skip, shard_index=1, num_shards=workers)) == shares[1][skip:]


def test_a_share_reads_the_blocks_of_its_rows_alone(tmp_path, monkeypatch):
    """Of blocks of one row two workers read a half each, of blocks of many rows all."""
    numbers, read = [], BlockReader._read
    monkeypatch.setattr(BlockReader, "_read", lambda self, asked: numbers.extend(asked) or read(self, asked))
    for name, block_bytes in (("single", 60), ("many", 60 * 50)):
        writer.write_columns({"train": [{"image": X}]}, tmp_path / name, block_bytes=block_bytes)
        for split in ("random", "end"):
            numbers.clear()
            train = kvae.data.load(tmp_path / name, 100, validation=0.1, shuffle=150, split=split)[0]
            shares = [[], []]
            for i in range(2):
                list(train.epoch(0, shard_index=i, num_shards=2))
                shares[i], numbers[:] = list(numbers), []
            assert bool(set(shares[0]) & set(shares[1])) == (name == "many")
            if name == "single":
                assert sorted(len(share) for share in shares) == [400, 403]  # the last batch is of three


def test_shares_of_few_rows_may_be_empty(tmp_path):
    writer.write_columns({"train": [{"image": X[:9]}]}, tmp_path)
    train = kvae.data.load(tmp_path, 8, validation=0)[0]
    assert [[len(x) for x in train.epoch(0, shard_index=i, num_shards=4)] for i in range(4)] == [
        [2, 1],
        [2, 0],
        [2, 0],
        [2, 0],
    ]


def test_sorted_rows_are_mixed(tmp_path):
    label = np.arange(40_000) // 4000
    writer.write_columns({"train": [{"image": label.astype("float32"), "label": label}]}, tmp_path, block_bytes=4 * 50)
    train = kvae.data.load(tmp_path, 100, labels="label", shuffle=4000, validation=0)[0]
    counts = np.array([np.bincount(label, minlength=10) for _, label in train])
    # 10 expected, of variance 9 if drawn at random from all; pools of 80 blocks add about 4000 / 80 / 10.
    assert np.square(counts - 10).mean() < 16 and counts.max() < 35
    order = np.concatenate([x for x, _ in train])
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1


def test_missing_splits_come_from_the_end_of_train_if_asked_for(folder, tmp_path):
    train, validation, test = load(folder, validation=0.1, split="end")
    orders = [flat(part) for part in (train, validation, test)]
    assert sorted(orders[0]) == list(range(803)) and orders[1:] == [[*range(803, 903)], [*range(903, 1003)]]
    assert [flat(part) for part in load(folder, validation=0.1, seed=5, split="end")[1:]] == orders[1:]
    writer.write_columns({"train": [{"image": X}], "test": [{"image": X[:7]}]}, tmp_path)
    assert [len(np.concatenate(list(part))) for part in kvae.data.load(tmp_path)] == [903, 100, 7]
    kvae.data.pack(load(folder, validation=0.1, split="end"), tmp_path / "again")
    again = load(tmp_path / "again", labels="label")
    assert flat(again[1]) == orders[1] and sorted(flat(again[0])) == sorted(orders[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": "label"}, ValueError, r"no column \['label'\] in train: labels can be of \['row', 'hue', 'mask'\]"),
        ({"validation": 0.5}, ValueError, "validation is 0.5"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"shuffle": True}, TypeError, "shuffle is True"),
        ({"size": 8}, TypeError, r"takes no \['size'\]"),
    ],
)
def test_load_refuses(folder, options, error, message):
    with pytest.raises(error, match=message):
        load(folder, **options)


def cut(size):
    def change(path):
        path.write_bytes(path.read_bytes()[:size])

    return change


def altered_manifest(path):
    content = json.loads(path.read_text())
    content["splits"]["train"]["rows"] += 1
    path.write_text(json.dumps(content, indent=1))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-image-00002.npy", lambda path: path.unlink(), "is missing: expected 12416 bytes"),
        ("train-image-00002.npy", cut(0), "is empty: found 0 bytes, expected 12416"),
        ("train-image-00002.npy", cut(128 + 60 * 11 + 7), "is cut: found 795 bytes, expected 12416"),
        ("train-image-00002.npy", cut(128 + 60 * 11), "is cut: found 788 bytes"),
        ("train-image-00002.npy", cut(128 + 60 * 200), "is cut: found 12128 bytes"),
        (
            "train-row-00005.npy",
            lambda path: path.write_bytes(path.read_bytes() + b"x"),
            "is too long: found 289 bytes",
        ),
        ("train-row-00001.npy", lambda path: shutil.copy(path.with_name("train-row-00002.npy"), path), "is altered"),
        ("manifest.json", lambda path: path.unlink(), "is missing: expected a folder that"),
        ("manifest.json", cut(0), "is damaged: found no manifest in its 0 bytes"),
        ("manifest.json", cut(1000), "is damaged"),
        ("manifest.json", lambda path: path.write_bytes(bytes(range(256))), "is damaged"),
        ("manifest.json", altered_manifest, "is altered: found another content"),
    ],
)
def test_damage_is_found_when_the_folder_is_loaded(name, change, message, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    change(tmp_path / "copy" / name)
    with pytest.raises(OSError, match=f"{name} .*{message}") as found:
        kvae.data.load(str(tmp_path / "copy"))
    assert "\n" not in str(found.value)


def test_no_flipped_bit_is_silent(folder, tmp_path, rng):
    """In the rows, in the header and its padding, in the fingerprints and their header."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in "train-image-00003.npy", "train-mask-00005.npy":
        whole = (copy / name).read_bytes()
        for place in 3, 20, 127, 128, len(whole) - 160, len(whole) - 1, *rng.integers(len(whole), size=2):
            changed = bytearray(whole)
            changed[place] ^= 1 << rng.integers(8)
            (copy / name).write_bytes(changed)
            with pytest.raises((OSError, tf.errors.InvalidArgumentError), match=rf"{name} is altered"):
                list(load(copy, labels="mask", shuffle=0)[0])
            with pytest.raises(OSError, match=rf"{name} is altered"):
                kvae.data.verify(copy)
        (copy / name).write_bytes(whole)
    kvae.data.verify(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "No such file .*train-image"),
        (cut(500), r"train-image-00000\.npy is cut: found 500 bytes, expected 728"),
    ],
)
def test_what_happens_to_a_file_later_is_found(change, message, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    train = load(tmp_path / "copy", shuffle=0)[0]
    change(tmp_path / "copy" / "train-image-00000.npy")
    with pytest.raises(OSError, match=message), errors.clear_errors():
        list(train)


def compiled():
    model = dense_vae(SHAPE)
    model.compile(keras.optimizers.Adam())
    return model


@pytest.mark.parametrize("call", ["fit", "validate", "evaluate", "transform"])
def test_altered_rows_are_one_clear_error(call, folder, tmp_path):
    copy = tmp_path / "with 'odd' [name]"
    shutil.copytree(folder, copy)
    path = copy / "train-image-00004.npy"
    changed = bytearray(path.read_bytes())
    changed[128 + 60 * 57] ^= 4
    path.write_bytes(changed)
    data = kvae.data.load(copy, 32, validation=0)[0]
    model = shared("packed images", compiled)
    actions = {
        "fit": lambda: model.fit(data, verbose=0),
        "validate": lambda: model.fit(X, validation_data=data, verbose=0),
        "evaluate": lambda: model.evaluate(data, verbose=0),
        "transform": lambda: model.transform(data),
    }
    message = re.escape(f"{path} is altered: rows 50 to 59, counted from 0, haven't their fingerprint; restore it")
    with pytest.raises(OSError, match=message) as found:
        actions[call]()
    assert "\n" not in str(found.value)


def test_a_name_that_is_no_folder_is_a_set_of_tfds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no_such_set").mkdir()
    with pytest.raises(ValueError, match="no set named 'no_such_set'"):
        kvae.data.load("no_such_set")
    for name in tmp_path / "no_such_set", str(tmp_path / "no_such_set"):
        with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
            kvae.data.load(name)
    writer.write_columns({"train": [{"image": X}]}, "packed")
    assert len(load("packed", labels=None)[0]) == 32


def truncated(path):
    path.write_bytes(path.read_bytes()[:700])


def flipped(path, row=57):
    content = bytearray(path.read_bytes())
    content[128 + 60 * row] ^= 4
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


LEFT_OUT = [
    ({"train-image-00002.npy": truncated}, range(400, 600)),
    ({"train-image-00000.npy": emptied}, range(200)),
    ({"train-row-00005.npy": lambda path: path.unlink()}, range(1000, 1003)),
    ({"train-image-00004.npy": flipped}, range(850, 860)),
    (
        {"train-image-00001.npy": flipped, "train-row-00001.npy": truncated, "train-mask-00000.npy": emptied},
        range(200, 400),
    ),
]


@pytest.mark.parametrize(
    ("shuffle", "changes", "rows_lost"),
    [
        (shuffle, *case) if number in kept else thorough(shuffle, *case)
        for shuffle, kept in ((0, (4,)), (150, (2, 3)))
        for number, case in enumerate(LEFT_OUT)
    ],
)
def test_damaged_rows_can_be_left_out_and_the_rest_is_a_stream(changes, rows_lost, shuffle, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name, change in changes.items():
        change(copy / name)
    with pytest.raises((OSError, tf.errors.InvalidArgumentError), match=r"\.npy"):
        flat(load(copy, shuffle=shuffle)[0])
    with pytest.warns(
        UserWarning, match=rf"copy: {len(rows_lost)} of 1003 rows are left out.*{next(iter(changes))} is"
    ) as said:
        train, validation, test = load(copy, shuffle=shuffle, validation=0.2, damaged="skip", split="end")
    assert len(said) == 1 and "restore" not in str(said[0].message)
    whole = {0: range(601), 1: range(601, 802), 2: range(802, 1003)}
    for number, part in enumerate((train, validation, test)):
        kept = [row for row in whole[number] if row not in rows_lost]
        order = flat(part.epoch(2))
        assert sorted(order) == kept and (number or shuffle or order == kept)
        assert part.cardinality() == -(-len(kept) // 32) and rows(part.epoch(2, skip=2)) == rows(part.epoch(2))[2:]
        halves = [flat(part.epoch(1, shard_index=i, num_shards=2)) for i in range(2)]
        assert sorted(halves[0] + halves[1]) == kept
    x, row = next(iter(train))
    np.testing.assert_array_equal(x, X[row])


def test_nothing_is_left_out_of_whole_data_and_not_everything_of_damaged(folder, tmp_path, recwarn):
    again, expected = load(folder, damaged="skip")[0], load(folder)[0]
    assert rows(again.epoch(3)) == rows(expected.epoch(3)) and not recwarn
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("train-image*"):
        emptied(path)
    with pytest.raises(OSError, match=r"train of .*copy has no rows left that are as they were written: .*; 3 more"):
        load(tmp_path / "copy", damaged="skip")
    with pytest.raises(ValueError, match="damaged is 'ignore', expected one of"):
        load(folder, damaged="ignore")
