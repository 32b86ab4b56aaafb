import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some
from small_models import dense_vae, same_weights, shared

from kvae.callbacks import Checkpoint
from kvae.data import Stream
from kvae.data.arrays import from_arrays
from kvae.data.stream import in_order, resolve_seed

ROWS, BATCH = 20, 6
IMAGES = np.random.default_rng(0).random((ROWS, 6)).astype("float32")
IMAGES[:, 0] = np.arange(ROWS) / ROWS


def shuffled():
    def batches(epoch, skip, shard_index, num_shards):
        index = tf.random.experimental.stateless_shuffle(tf.range(ROWS), seed=[0, epoch])
        return tf.data.Dataset.from_tensor_slices(tf.gather(IMAGES, index)).batch(BATCH).skip(skip)

    return Stream(batches, -(-ROWS // BATCH))


def rows(batches):
    return [np.round(np.asarray(batch)[:, 0] * ROWS).astype(int).tolist() for batch in batches]


def test_each_iteration_is_the_next_epoch_and_an_epoch_is_always_the_same():
    stream = shuffled()
    first, second = rows(stream), rows(stream)
    assert sorted(itertools.chain(*first)) == list(range(ROWS)) and first != second
    assert (first, second) == (rows(stream.epoch(0)), rows(stream.epoch(1)))
    assert stream.next_epoch == 2
    assert rows(stream.epoch(1, skip=3)) == second[3:] and stream.epoch(1, skip=3).cardinality() == 1


def test_a_mapped_stream_keeps_the_order_and_other_transformations_draw_an_epoch():
    stream = shuffled()
    assert rows(stream.map(lambda x: x)) == rows(stream.epoch(0))
    assert rows(stream.map(lambda x: x if tf.reduce_all(x >= 0) else -x)) == rows(stream.epoch(0))
    taken = stream.take(4)
    assert rows(taken) != rows(taken)
    assert sorted(itertools.chain(*rows(taken))) == list(range(ROWS))
    assert [int(data.cardinality()) for data in (stream, taken, stream.map(lambda x: x))] == [4, 4, 4]


def fitted(*fits, steps="auto"):
    """The shared model, which begins anew, after these fits."""

    def compiled():
        model = dense_vae()
        model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=steps)
        return model

    model = shared(("streams", steps), compiled)
    for arguments in fits:
        model.fit(verbose=0, **arguments)
    return model


def weights_after(*fits, steps="auto"):
    return fitted(*fits, steps=steps).get_weights()


@pytest.mark.thorough
def test_fit_reads_pixels_epoch_by_epoch_too():
    """No map that looks for NaN stands between these and Keras."""
    pixels = shuffled().map(lambda x: tf.cast(x * 255, tf.uint8))
    once = weights_after({"x": pixels, "epochs": 3})
    assert same_weights(once, fitted(*({"x": pixels.epoch(n)} for n in range(3))))


def test_fit_reads_epoch_by_epoch_and_goes_on_behind_its_last():
    stream = shuffled()
    once = weights_after({"x": stream, "epochs": 3, "validation_data": stream})
    assert same_weights(once, fitted(*({"x": shuffled().epoch(n)} for n in range(3))))
    ends_found = fitted({"x": stream, "epochs": 3}, steps=3)  # as 3 doesn't divide an epoch
    assert same_weights(once, ends_found) and int(ends_found.optimizer.iterations) == 3 * stream.num_batches
    assert same_weights(once, fitted({"x": stream, "epochs": 1}, {"x": stream, "epochs": 2}))
    assert same_weights(once, fitted({"x": stream}, {"x": stream, "initial_epoch": 1, "epochs": 3}))
    assert stream.next_epoch == 0


def test_no_thread_of_an_iterator_sleeps_through_its_end():
    """As TensorFlow's autotuning does now and then."""
    assert not any(
        data.options().autotune.enabled for data in (shuffled(), shuffled().epoch(1), shuffled().from_batch(1))
    )


@pytest.mark.parametrize("batches, steps", some([(3, 1), (3, 3), (5, 1), (5, 3)], (3, 3), (5, 1)))
def test_a_stream_that_has_not_as_many_batches_as_it_says_is_told(batches, steps):
    stream = Stream(
        lambda epoch, skip, shard_index, num_shards: (
            tf.data.Dataset.from_tensors(IMAGES[:5]).repeat(batches).skip(skip)
        ),
        4,
    )
    with pytest.raises(Exception, match=f"(expected|contain).*4.*{batches}"):
        fitted({"x": stream, "epochs": 2}, steps=steps)


@pytest.mark.thorough
def test_arrays_are_read_as_streams_of_them_are(tmp_path, monkeypatch):
    """Of memory maps no more than batches, and what Keras alone can do as Keras does."""
    read, gather = [], np.memmap.__getitem__
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = fitted({"x": IMAGES, "epochs": 2, "batch_size": 5, "shuffle": False, "validation_data": IMAGES})
    assert model.history.history["val_loss"][-1] == pytest.approx(
        model.evaluate(IMAGES, verbose=0, return_dict=True)["loss"], rel=1e-6
    )
    once = model.get_weights()
    assert same_weights(once, fitted({"x": from_arrays((IMAGES,), 5, shuffle=False), "epochs": 2}))
    monkeypatch.setattr(np.memmap, "__getitem__", lambda *args: read.append(len(gather(*args))) or gather(*args))
    arguments = {"epochs": 2, "batch_size": 5}
    in_tensor = weights_after({"x": tf.constant(IMAGES), **arguments})
    assert same_weights(fitted({"x": mapped, **arguments}), in_tensor)
    assert 10 not in read  # all are less than a megabyte
    monkeypatch.setattr("kvae.data.arrays._AT_ONCE", 10 * IMAGES[0].nbytes)
    assert same_weights(fitted({"x": mapped, **arguments}), in_tensor)
    assert read.count(10) >= 2 * len(IMAGES) // 10
    by_keras = fitted({"x": IMAGES, **arguments, "validation_split": 0.25})
    assert int(by_keras.optimizer.iterations) == 6 and "val_loss" in by_keras.history.history


@pytest.mark.thorough
def test_evaluate_and_predict_read_arrays_as_streams_of_them(tmp_path, monkeypatch):
    """Their last batches smaller, their weights heeded; and no array goes through Keras' own pipeline."""
    np.save(tmp_path / "x.npy", IMAGES)
    mapped, weights = np.load(tmp_path / "x.npy", mmap_mode="r"), np.linspace(0.5, 2, len(IMAGES), dtype="float32")
    model = fitted({"x": IMAGES, "epochs": 1})
    stream = tf.data.Dataset.from_tensor_slices((IMAGES, weights, weights)).batch(7)
    expected = model.evaluate(stream, verbose=0, return_dict=True)
    codes = model.predict(stream, verbose=0)
    adapters = "keras.src.trainers.data_adapters.array_data_adapter.ArrayDataAdapter.__init__"
    monkeypatch.setattr(adapters, None)
    for images in IMAGES, tf.constant(IMAGES), mapped:
        found = model.evaluate(images, sample_weight=weights, batch_size=7, verbose=0, return_dict=True)
        assert found == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(model.predict(images, batch_size=7, verbose=0), codes, atol=1e-6)
    np.testing.assert_allclose(model.predict(IMAGES, batch_size=7, steps=2, verbose=0), codes[:14], atol=1e-6)
    for parts in (IMAGES,), (IMAGES, weights), [IMAGES, weights, weights]:
        np.testing.assert_allclose(model.predict(parts, batch_size=7, verbose=0), codes, atol=1e-6)
    with pytest.raises(ValueError, match="as many examples"):
        model.evaluate(IMAGES, sample_weight=weights[1:], verbose=0)
    fresh = dense_vae()
    fresh.compile()
    with pytest.raises(ValueError, match="as many examples"):
        fresh.fit(IMAGES, sample_weight=weights[1:], verbose=0)
    assert not fresh.optimizer.built


def test_a_run_on_what_was_made_of_a_stream_is_told_that_it_is_not_repeated(tmp_path):
    model = fitted()
    with pytest.warns(UserWarning, match="made from a Stream"):
        model.fit(shuffled().cache(), verbose=0, callbacks=[Checkpoint(tmp_path / "plain")])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted().fit(shuffled(), verbose=0, callbacks=[Checkpoint(tmp_path / "stream")])


class Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_run_that_was_interrupted_reads_what_it_would_have_read(tmp_path):
    stream = shuffled()
    once = weights_after({"x": stream, "epochs": 3})
    keras.utils.set_random_seed(0)
    model = dense_vae()  # of its own: Keras notes in it where the run went on
    model.compile(keras.optimizers.Adam(1e-2))
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        model.fit(stream, epochs=3, verbose=0, callbacks=[backup, Interrupts()])
    model.fit(stream, epochs=3, verbose=0, callbacks=[backup])
    assert same_weights(once, model) and int(model.optimizer.iterations) == 3 * stream.num_batches


@pytest.mark.thorough
def test_stretches_of_the_stream_go_on_behind_each_other():
    once = weights_after({"x": shuffled().from_batch(0).take(9)}, steps=1)
    assert same_weights(once, fitted({"x": shuffled(), "steps_per_epoch": 3, "epochs": 3}, steps=1))
    # Of groups of two steps Keras takes whole ones.
    in_groups = weights_after({"x": shuffled(), "steps_per_epoch": 5, "epochs": 2}, steps=2)
    assert same_weights(fitted({"x": shuffled().from_batch(0).take(12)}, steps=1), in_groups)
    first = {"x": shuffled(), "steps_per_epoch": 3, "epochs": 2}
    assert same_weights(once, fitted(first, {**first, "initial_epoch": 2, "epochs": 3}, steps=1))
    assert rows(shuffled().from_batch(9).take(4)) == [*rows(shuffled().epoch(2, skip=1)), rows(shuffled().epoch(3))[0]]


def test_what_reads_without_training_leaves_the_stream_where_it_stands():
    stream, model = shuffled(), fitted({"x": IMAGES})
    np.testing.assert_array_equal(model.transform(stream), model.transform(np.concatenate(list(stream.epoch(0)))))
    assert model.evaluate(stream, verbose=0) == model.evaluate(stream, verbose=0)
    np.testing.assert_array_equal(model.predict(stream, verbose=0), model.reconstruct(stream))
    assert stream.next_epoch == 0


def test_what_is_made_of_a_stream_stands_where_it_stands():
    stream, model = shuffled(), fitted({"x": IMAGES})
    stream.next_epoch = 2
    np.testing.assert_array_equal(model.transform(stream), model.transform(np.concatenate(list(stream.epoch(2)))))
    assert rows(stream.map(lambda x: x)) == rows(stream.epoch(2))


def test_a_seed_that_each_worker_would_draw_is_refused(monkeypatch):
    assert resolve_seed(None) != resolve_seed(None) and resolve_seed(3) == 3
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(ValueError, match="seed is None, of which each worker would draw its own order"):
        resolve_seed(None)


def test_take_skip_prefetch_and_apply_act_on_every_epoch():
    stream = shuffled()
    taken, rest = stream.take(2), stream.skip(2)
    assert (taken.num_batches, rest.num_batches, stream.take(-1).num_batches, stream.take(9).num_batches) == (
        2,
        2,
        4,
        4,
    )
    for epoch in range(2):
        expected = rows(stream.epoch(epoch))
        assert rows(taken.epoch(epoch)) + rows(rest.epoch(epoch)) == expected
        assert rows(taken.epoch(epoch, skip=1)) == expected[1:2] and rows(rest.epoch(epoch, skip=1)) == expected[3:]
        same_length = [stream.prefetch(1), stream.apply(lambda batches: batches.map(tf.identity))]
        for whole in *same_length, stream.apply(tf.data.experimental.assert_cardinality(4)):
            assert isinstance(whole, Stream) and rows(whole.epoch(epoch, skip=1)) == expected[1:]
    assert isinstance(taken, Stream) and taken.provenance is None
    assert not isinstance(stream.apply(lambda batches: batches.repeat(2)), Stream)
    assert not isinstance(stream.batch(2), Stream)


def test_the_old_names_of_a_stream_still_work():
    def order(epoch, skip, share):
        return tf.data.Dataset.from_tensor_slices(IMAGES).batch(BATCH).skip(skip).map(lambda x: x[share[0] :: share[1]])

    with pytest.warns(DeprecationWarning) as told:
        stream = Stream(order=order, steps=4)
    assert len(told) == 3 and all(warning.filename == __file__ for warning in told)
    with pytest.warns(DeprecationWarning, match="share= is now shard_index= and num_shards="):
        halves = [rows(stream.epoch(0, share=(i, 2))) for i in range(2)]
    assert halves == [rows(stream.epoch(0, shard_index=i, num_shards=2)) for i in range(2)]
    with pytest.warns(DeprecationWarning, match="through is now Stream.apply"):
        assert rows(stream.through(lambda batches: batches.map(tf.identity))) == rows(stream.epoch(0))
    for old, new in ("steps", 4), ("source", None):
        with pytest.warns(DeprecationWarning, match=f"Stream.{old} is now"):
            assert getattr(stream, old) == new


def test_a_stream_with_options_is_a_stream_that_has_them():
    options, other = tf.data.Options(), tf.data.Options()
    options.deterministic, other.threading.private_threadpool_size = True, 2
    stream = from_arrays((np.arange(6),), 2)
    chosen = stream.with_options(options).map(lambda x: x + 1).with_options(other)
    assert isinstance(chosen, Stream)
    assert chosen.options().deterministic and chosen.options().threading.private_threadpool_size == 2
    assert chosen.epoch(3).options().deterministic
    assert stream.options().threading.private_threadpool_size is None
    pairs = zip(stream.epoch(3, skip=1), chosen.epoch(3, skip=1), strict=True)
    assert all(np.array_equal(x + 1, y) for x, y in pairs)


def test_of_the_traces_with_a_skip_the_last_one_is_kept():
    stream = from_arrays((np.arange(8),), 2, shuffle=False)
    datasets = [stream.epoch(0, skip=skip) for skip in range(4)]
    assert len(stream._traced) == 2
    assert [int(next(iter(dataset))[0]) for dataset in datasets] == [0, 2, 4, 6]


def test_the_order_of_the_data_is_found_or_its_loss_is_told():
    x = np.arange(90.0, dtype="float32")[:, None]
    shuffled, ordered = (from_arrays((x,), 16, shuffle=shuffle) for shuffle in (True, False))
    for change in (
        lambda stream: stream,
        lambda stream: stream.prefetch(1).with_options(tf.data.Options()).map(lambda row: row),
    ):
        np.testing.assert_array_equal(np.concatenate(list(in_order(change(shuffled)))), x)
    for change in (
        lambda stream: stream.take(3).map(lambda row: row),
        lambda stream: stream.skip(1),
        lambda stream: stream.cache(),
        lambda stream: stream.unbatch().batch(4),
        lambda stream: stream.apply(lambda batches: batches.take(2)),
    ):
        with pytest.warns(UserWarning, match="a part of a shuffled stream"):
            in_order(change(shuffled))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            in_order(change(ordered))
