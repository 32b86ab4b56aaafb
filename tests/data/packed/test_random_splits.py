"""Validation and test rows of packed data are drawn from all of train, the same ones in every call."""

import itertools
import warnings

import numpy as np
import pytest

import kvae.data
from kvae.data import splits
from kvae.data.packed import parts, writer

ROWS = 1003
LABEL = np.arange(ROWS) * 10 // ROWS  # sorted by class
COLUMNS = {
    "image": np.arange(ROWS, dtype="float32")[:, None] + np.array([0, 0.5], "float32"),
    "row": np.arange(ROWS),
    "label": LABEL,
    "person": np.arange(ROWS) // 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    writer.write_columns({"train": [COLUMNS]}, folder, shard_bytes=200 * 8, block_bytes=10 * 8)  # 10 and 200 rows
    return folder


@pytest.fixture(params=["rows", "blocks"])
def unit(request, monkeypatch):
    """Rows of few blocks are drawn one by one; of many, whole blocks are."""
    monkeypatch.setattr(parts, "ROWS_OF_BLOCKS", 10**9 if request.param == "rows" else 0)
    return request.param


def load(folder, batch_size=32, shuffle=150, validation=0.1, labels="row", **options):
    return kvae.data.load(folder, batch_size, labels=labels, shuffle=shuffle, validation=validation, **options)


def rows(batches):
    return [y.numpy().tolist() for _, y in batches]


def flat(batches):
    return list(itertools.chain(*rows(batches)))


def test_the_parts_share_nothing_and_hold_all_classes(folder, unit):
    found = load(folder)
    orders = [flat(part.epoch(0)) for part in found]
    assert sorted(itertools.chain(*orders)) == list(range(ROWS))
    assert [len(order) for order in orders] == [803, 100, 100] and orders[1:] == [sorted(each) for each in orders[1:]]
    for order in orders[1:] if unit == "rows" else ():
        assert set(LABEL[order]) == set(range(10))
    assert [flat(part) for part in load(folder, seed=5, batch_size=7)[1:]] == orders[1:]  # in every call
    assert found[1].provenance.split == "train[validation at random]"
    assert sorted(flat(load(folder, validation=0)[0])) == list(range(ROWS))
    for x, row in found[0]:
        np.testing.assert_array_equal(x, COLUMNS["image"][row])


def test_an_epoch_goes_on_behind_any_batch_and_is_dealt_to_workers(folder, unit):
    for part, batch_size, shuffle in ((0, 32, 150), (1, 8, 0), (0, 2000, 10_000)):
        stream = load(folder, batch_size, shuffle)[part]
        whole = rows(stream.epoch(3))
        assert stream.num_batches == len(whole) and {len(batch) for batch in whole[:-1]} <= {batch_size}
        for skip in {1, len(whole) - 1}:
            assert rows(stream.epoch(3, skip=skip)) == whole[skip:]
        thirds = [rows(stream.epoch(3, shard_index=i, num_shards=3)) for i in range(3)]
        assert [list(itertools.chain(*parts)) for parts in zip(*thirds, strict=True)] == whole


def test_epochs_are_shuffled_over_the_whole_part(folder, unit):
    train = load(folder)[0]
    first, second = flat(train.epoch(0)), flat(train.epoch(1))
    assert (
        first != second and first == flat(load(folder)[0].epoch(0)) and first != flat(load(folder, seed=1)[0].epoch(0))
    )
    assert abs(np.corrcoef(first, range(len(first)))[0, 1]) < 0.2


def test_groups_stay_together(folder):
    found = load(folder, labels="person", group="person", validation=0.2)
    people = [set(flat(part)) for part in found]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert [len(flat(part)) for part in found] == pytest.approx([603, 200, 200], abs=8)
    assert found[2].provenance.split == "train[test at random by person]"
    for group, message in (
        ("none", "has no column 'none' to group by"),
        ("image", "has 2 numbers a row, expected one"),
    ):
        with pytest.raises(ValueError, match=message):
            load(folder, group=group)
    with pytest.raises(ValueError, match="there are 2 groups, too few"):
        splits.random_parts(4, (1, 1), np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="split is 'middle' and group None, expected"):
        load(folder, split="middle")
    with pytest.raises(ValueError, match="split is 'end' and group 'person', expected"):
        load(folder, split="end", group="person")


def test_damaged_blocks_are_left_out_and_the_other_rows_stay_in_their_part(folder, tmp_path, unit):
    copy = tmp_path / "copy"
    kvae.data.packed.writer.write_columns({"train": [COLUMNS]}, copy, shard_bytes=200 * 8, block_bytes=10 * 8)
    path = copy / "train-image-00001.npy"  # rows 200 to 399
    content = bytearray(path.read_bytes())
    content[128 + 8 * 25] ^= 1  # in block 2 of it
    path.write_bytes(content)
    whole = [set(flat(part)) for part in load(folder)]
    with pytest.warns(UserWarning, match=r"copy: 10 of 1003 rows are left out"):
        found = load(copy, damaged="skip")
    assert [set(flat(part)) for part in found] == [each - set(range(220, 230)) for each in whole]
    assert [part.num_batches for part in found] == [-(-len(flat(part)) // 32) for part in found]


def test_parts_of_other_classes_are_told(folder, tmp_path):
    with pytest.warns(UserWarning, match="validation has none of the values of 'label' that train has") as told:
        load(folder, labels="label", split="end")
    assert len(told) == 2 and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder, labels="label")
        load(folder, labels="label", validation=0)
        load(folder, labels="label", group="person")
    x, y = COLUMNS["image"], LABEL
    kvae.data.pack({"train": (x[:500], y[:500]), "test": (x[600:], y[600:])}, tmp_path / "sorted")
    with pytest.warns(UserWarning, match="test has none of the values of 'label' that train has"):
        kvae.data.load(tmp_path / "sorted", labels="label")
