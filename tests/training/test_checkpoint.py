"""A run is killed, starved and interrupted, and nothing of it is lost."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import some
from small_models import dense_vae, same_weights, shared, state

import kvae
from kvae.callbacks import Checkpoint
from kvae.data.arrays import from_arrays
from kvae.training import callback_states, checkpoint_files, position

KILLED = pathlib.Path(__file__).parents[1] / "helpers" / "killed.py"


def plan(name, folder):
    """What `killed.py` says, with disks of its own where the machine allows that."""
    for disk in ("small", "fixed"):
        (folder / disk).mkdir()
    mounts = f"mount -t tmpfs -o size=1m none {folder}/small && mount -t tmpfs -o ro none {folder}/fixed"
    isolated = ["unshare", "-Urm", "sh", "-c"]
    if shutil.which("unshare") and not subprocess.run([*isolated, mounts], capture_output=True).returncode:
        start = [*isolated, f'{mounts} && exec "$@"', "sh"]
    else:
        start = []
        for disk in ("small", "fixed"):
            (folder / disk).rmdir()
    command = [*start, sys.executable, str(KILLED), name, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert not ended.returncode, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return plan("quick", tmp_path_factory.mktemp("killed"))


@pytest.mark.processes
def test_a_run_killed_twice_in_an_epoch_and_in_a_save_ends_as_one_that_was_not(killed):
    assert [death[0] for death in killed["deaths"]] == [9, 9, 9]
    # Behind batches 20 and 33 of epoch 1, hence at most 7 lost; the third died with half a file written.
    assert [tuple(death[1:]) for death in killed["deaths"]] == [(2, 1, 16), (2, 1, 32), (3, 1, 40)]
    assert killed["twice"]["hash"] == killed["whole"]["hash"]
    assert killed["twice"]["epochs"] == [0, 1, 2]
    (said,) = killed["twice"]["said"]
    assert said.endswith("goes on in epoch 2, behind 40 batches.")


@pytest.mark.processes
def test_a_run_that_is_over_stays_as_it_is(killed):
    assert killed["again"]["hash"] == killed["whole"]["hash"]
    assert "has had 3 epochs, and 3 are asked for" in killed["again"]["said"][0]


@pytest.mark.processes
def test_sigterm_waits_for_a_checkpoint_and_then_ends_the_process(killed):
    assert killed["SIGTERM"]["signal"] == 15
    assert killed["SIGTERM place"][1:] == [0, 20]


@pytest.mark.processes
def test_behind_ctrl_c_fit_goes_on_in_the_same_process(killed):
    assert killed["SIGINT"]["place"][1:] == [1, 32]
    assert killed["SIGINT"]["handlers"]
    assert killed["SIGINT"]["hash"] == killed["whole"]["hash"]


@pytest.mark.processes
@pytest.mark.parametrize("fault", ["full", "file size"])
def test_a_full_disk_leaves_the_checkpoints_whole_and_loses_no_step(killed, fault):
    if fault not in killed:
        pytest.skip("this machine doesn't let a process mount a disk of its own")
    found = killed[fault]
    assert found["errno"] in (28, 27)
    assert "a checkpoint needs" in found["message"]
    assert ("bytes free" if fault == "full" else "limit on the size") in found["message"]
    assert len(found["files"]) == 2 and not any("partial" in name for name in found["files"])
    assert found["place"][:2] == [1, 28]
    assert found["said"][0].endswith("behind 32 batches.")  # what memory had when the disk was full
    assert found["hash"] == killed["whole"]["hash"]


@pytest.mark.processes
def test_a_directory_that_cannot_be_written_is_told_before_the_first_step(killed):
    if "fixed" not in killed:
        pytest.skip("this machine doesn't let a process mount a disk of its own")
    assert (killed["fixed"]["error"], killed["fixed"]["errno"]) == ("OSError", 30)
    assert "can't be written" in killed["fixed"]["message"]
    assert not killed["fixed"]["steps"]


@pytest.mark.slow
def test_fifty_deaths_at_random_moments(tmp_path):
    found = plan("fifty", tmp_path)
    print(found)
    assert found["same"] == 50
    assert max(found["lost"]) <= 7 and sum(map(bool, found["lost"])) > 10  # of save_every=7
    assert found["left half written"]


def folder_of_two(directory):
    folder = checkpoint_files.CheckpointFolder(directory)
    for number in range(4):
        folder.save({"number": number}, [np.arange(40, dtype="float32") + number, np.array(number)])
    return folder


def test_what_is_saved_is_read_and_the_last_two_are_kept(tmp_path):
    folder = folder_of_two(tmp_path)
    content, arrays, path = folder.latest()
    assert content == {"number": 3}
    np.testing.assert_array_equal(arrays[0], np.arange(40, dtype="float32") + 3)
    assert arrays[1].shape == () and arrays[1] == 3
    assert [file.name for file in folder.paths()] == ["checkpoint-000003.kvae", "checkpoint-000002.kvae"]
    assert path == folder.paths()[0]


def test_no_flipped_bit_is_silent(tmp_path):
    path = folder_of_two(tmp_path).paths()[0]
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(400):
        damaged, place = bytearray(whole), chance.randrange(len(whole))
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(OSError, match=r"damaged|altered"):
            checkpoint_files.read_checkpoint(path)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:20], lambda b: b + b"x"])
def test_behind_a_damaged_checkpoint_the_one_before_it_is_taken(tmp_path, damage):
    folder = folder_of_two(tmp_path)
    last, before = folder.paths()
    last.write_bytes(damage(last.read_bytes()))
    with pytest.warns(UserWarning, match="000003.kvae is"):
        assert folder.latest()[0] == {"number": 2}
    before.write_bytes(damage(before.read_bytes()))
    with pytest.warns(UserWarning), pytest.raises(OSError, match="none of which is whole"):
        folder.latest()


def test_behind_a_damaged_checkpoint_two_whole_ones_are_kept(tmp_path):
    folder = folder_of_two(tmp_path)
    for number in 4, 5:
        folder.paths()[0].write_bytes(b"")
        with pytest.warns(UserWarning, match="is damaged"):
            folder.latest()
        folder.save({"number": number}, [])
    assert [checkpoint_files.read_checkpoint(path)[0]["number"] for path in folder.paths()] == [5, 2]


def test_one_process_writes(tmp_path):
    one, other = checkpoint_files.CheckpointFolder(tmp_path), checkpoint_files.CheckpointFolder(tmp_path)
    with one.lock(), pytest.raises(FileExistsError, match="another process"), other.lock():
        pass


def test_settings_are_equal_for_equal_models_and_tell_others_apart():
    def found(policy="float32", **arguments):
        keras.config.set_dtype_policy(policy)
        model = dense_vae(**arguments)
        keras.config.set_dtype_policy("float32")
        model.compile()
        return position.settings(model, 5, {"name": None}, {})

    assert found() == found() and found(seed=None) == found(seed=None)
    others = [found("mixed_bfloat16"), found(activation="tanh"), found(latent_dim=3), found(likelihood="bernoulli")]
    assert all(found() != other for other in others)


def test_settings_of_a_lambda_are_those_in_another_kernel_of_a_notebook():
    def found(file):
        names = {}
        exec(compile("double = lambda x: 2 * x", file, "exec"), names)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(names["double"])])
        model.compile()
        return position.settings(model, 5, {"name": None}, {})

    assert found("/tmp/ipykernel_1/2.py") == found("/tmp/ipykernel_22/2.py")


def begun(rate=1e-2, latent_dim=2, **compiled):
    """The shared model of these arguments, as in a process that has just made it."""

    def make():
        model = dense_vae(latent_dim=latent_dim)
        model.compile(keras.optimizers.Adam(rate), **compiled)
        return model

    return shared(("checkpoint", rate, latent_dim, *compiled.items()), make)


def fitted(directory, rng, rate=1e-2, latent_dim=2, batch_size=10, x=None, **fit):
    model = begun(rate, latent_dim)
    before = model.get_weights()
    x = np.random.default_rng(0).random((50, 6), "float32") if x is None else x
    try:
        model.fit(x, batch_size=batch_size, verbose=0, callbacks=[Checkpoint(directory)], **fit)
    except ValueError as error:
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        raise error
    return model


def test_another_run_is_refused_and_more_epochs_go_on(tmp_path, rng, capsys):
    fitted(tmp_path, rng)
    other = np.random.default_rng(1).random((50, 6), "float32")
    for change in ({"rate": 1e-3}, {"latent_dim": 3}, {"batch_size": 5}, {"batch_size": 11}, {"x": other}):
        with pytest.raises(ValueError, match="holds a run whose"):
            fitted(tmp_path, rng, **change)
    longer = fitted(tmp_path, rng, epochs=2)
    assert longer.history.epoch == [0, 1]
    assert same_weights(longer.get_weights(), fitted(tmp_path / "other", rng, epochs=2))
    assert not capsys.readouterr().out


class Dies(keras.callbacks.Callback):
    most_steps = 4

    def __init__(self, epoch=1, batch=0):
        super().__init__()
        self.place = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) >= self.place:
            raise InterruptedError


def through(directory, *callbacks, x=None, optimizer=None, **compiled):
    """Two epochs of the shared model with this optimizer."""

    def make():
        model = dense_vae()
        model.compile(optimizer(), **compiled)
        return model

    model = shared(("checkpoint", optimizer), make) if optimizer else begun()
    x = np.random.default_rng(0).random((200, 6), "float32") if x is None else x
    model.fit(x, batch_size=10, epochs=2, verbose=0, callbacks=[Checkpoint(directory, 3), *callbacks])
    return model


OPTIMIZERS = {
    "averaged": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), dynamic_growth_steps=8),
    "accumulated": lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=4),
}


@pytest.mark.parametrize("optimizer", some(OPTIMIZERS, "accumulated"))
def test_all_that_an_optimizer_keeps_goes_on_in_the_middle_of_an_epoch(tmp_path, optimizer):
    whole = through(tmp_path / "a", optimizer=optimizer, metrics=["mse"])
    history, end, record = whole.history.history, state(whole), whole.record
    with pytest.raises(InterruptedError):
        through(tmp_path / "b", Dies(1, 12), optimizer=optimizer, metrics=["mse"])
    again = through(tmp_path / "b", optimizer=optimizer, metrics=["mse"])
    assert again.history.history == history
    for v, w in zip(state(again), end, strict=True):
        np.testing.assert_array_equal(v, w)
    assert again.record == record and record.epochs == 2


class Stops(Dies):
    """Ends the run in its usual way, as a limit of time does."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.stop_training = self.model.stop_training or (self.epoch, batch) >= self.place


@pytest.mark.thorough
def test_a_run_that_a_callback_stopped_in_an_epoch_goes_on_there(tmp_path):
    whole = through(tmp_path / "a", x=tf.constant(np.random.default_rng(0).random((200, 6), "float32")))
    weights, history = whole.get_weights(), whole.history.history
    through(tmp_path / "b", Stops(1, 8))
    stopped = through(tmp_path / "b", Stops(1, 2))
    assert checkpoint_files.CheckpointFolder(tmp_path / "b").latest()[0]["place"][:2] == [1, 10]
    stopped.fit(np.random.default_rng(1).random((20, 6), "float32"), verbose=0)
    assert int(stopped.optimizer.iterations) == 20 + 10 + 1  # that fit has not passed over its batch
    again = through(tmp_path / "b")
    assert same_weights(again, weights) and again.history.history == history


@pytest.mark.thorough
def test_an_endless_stream_is_read_in_whole_groups_of_steps(tmp_path):
    x = tf.data.Dataset.from_tensor_slices(np.random.default_rng(0).random((200, 6), "float32")).batch(10).repeat()

    def fit(directory, *callbacks):
        model = begun(steps_per_execution=4)
        model.fit(x, epochs=3, steps_per_epoch=18, verbose=0, callbacks=[Checkpoint(directory, 4), *callbacks])
        return model.get_weights()

    whole = fit(tmp_path / "a")
    with pytest.raises(InterruptedError):
        fit(tmp_path / "b", Dies(2, 12))
    assert same_weights(fit(tmp_path / "b"), whole)


def test_what_would_put_other_weights_in_place_or_lose_the_order_is_refused(tmp_path):
    x, y = np.ones((20, 6), "float32"), np.zeros(20, int)
    model = dense_vae()
    model.compile()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    for other in backup, keras.callbacks.SwapEMAWeights(), Checkpoint(tmp_path / "other"):
        with pytest.raises(ValueError, match=f"Checkpoint can't go with .*{type(other).__name__}"):
            model.fit(x, callbacks=[other, Checkpoint(tmp_path / "a")])
    with pytest.raises(ValueError, match="class_weight can't go with"):
        model.fit(x, y, class_weight={0: 2.0}, callbacks=[Checkpoint(tmp_path / "a")])
    assert not model.optimizer.built and not (tmp_path / "a").exists()
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    plain.compile(loss="mse")
    with pytest.raises(TypeError, match="Checkpoint can't protect a Sequential"):
        plain.fit(x, x, verbose=0, callbacks=[Checkpoint(tmp_path / "a")])


def test_a_learning_rate_that_a_callback_lowered_goes_on(tmp_path, rng):
    lowers = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model = dense_vae()
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    x = rng.random((50, 6), "float32")
    for epochs in (2, 3):  # in one process, where the second begins with the lowered rate
        model.fit(x, epochs=epochs, verbose=0, callbacks=[Checkpoint(tmp_path), lowers])
    np.testing.assert_allclose(model.history.history["learning_rate"], [5e-3, 2.5e-3, 1.25e-3], rtol=1e-6)
    again = dense_vae()  # in another process
    again.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    again.fit(x, epochs=4, verbose=0, callbacks=[Checkpoint(tmp_path), lowers])
    assert float(again.optimizer.learning_rate) == pytest.approx(6.25e-4)


def test_skipped_steps_are_counted_through_a_death_in_the_epoch(tmp_path):
    x = np.random.default_rng(0).random((4, 50, 6), "float32")
    x[2:, 12] = np.nan

    def fit(directory, *callbacks):
        model = begun()
        batches = tf.data.Dataset.from_tensor_slices(x.reshape(-1, 10, 6))
        with pytest.warns(UserWarning, match="skipped"):
            history = model.fit(batches, epochs=2, verbose=0, callbacks=[Checkpoint(directory, 3), *callbacks])
        return history.history, model.get_weights()

    history, weights = fit(tmp_path / "a")
    with pytest.raises(InterruptedError):
        fit(tmp_path / "b", Dies(1, 16))
    again, found = fit(tmp_path / "b")
    assert again == history
    assert again["skipped_steps"] == [2, 2]
    assert same_weights(found, weights)


class DiesInValidation(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        raise InterruptedError


@pytest.mark.thorough
def test_a_run_that_dies_behind_an_epochs_last_group_goes_on_with_the_next_epoch(tmp_path):
    x = np.random.default_rng(0).random((90, 6), "float32")  # 9 batches, in groups of 4

    def fit(directory, *callbacks):
        model = begun(steps_per_execution=4)
        checkpoint = Checkpoint(directory, 4)
        data = from_arrays((x,), 10)
        model.fit(data, validation_data=x, epochs=2, verbose=0, callbacks=[checkpoint, *callbacks])
        return model.history.history, model.get_weights()

    with pytest.raises(InterruptedError):
        fit(tmp_path / "a", DiesInValidation())
    assert checkpoint_files.CheckpointFolder(tmp_path / "a").latest()[0]["place"][:2] == [0, 9]
    (history, weights), (whole_history, whole) = fit(tmp_path / "a"), fit(tmp_path / "b")
    assert same_weights(weights, whole)
    assert history == whole_history


def test_an_order_that_cannot_be_repeated_is_told(tmp_path):
    x = np.random.default_rng(0).random((50, 6), "float32")
    model = dense_vae()
    model.compile(run_eagerly=True)
    shuffled = tf.data.Dataset.from_tensor_slices(x).shuffle(50, seed=0).batch(10).prefetch(1)
    with pytest.warns(UserWarning, match=r"shuffled by tf\.data"):
        model.fit(shuffled, verbose=0, callbacks=[Checkpoint(tmp_path)])


@pytest.mark.thorough
def test_replicas_go_on(tmp_path, strategy):
    def fit(directory, *callbacks):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = dense_vae()
            model.compile(keras.optimizers.Adam(1e-2))
        x = np.random.default_rng(0).random((50, 6), "float32")
        model.fit(x, batch_size=10, epochs=2, verbose=0, callbacks=[Checkpoint(directory, 2), *callbacks])
        return model

    with pytest.raises(InterruptedError):
        fit(tmp_path / "a", Dies(1, 3))
    again, whole = fit(tmp_path / "a"), fit(tmp_path / "b")
    assert same_weights(again, whole)
    assert again.history.history == whole.history.history


def test_what_checkpoint_cannot_do_is_told(tmp_path, rng):
    with pytest.raises(ValueError, match="save_every is 0"):
        Checkpoint(tmp_path, save_every=0)
    with pytest.raises(ValueError, match="validation_split"):
        fitted(tmp_path, rng, validation_split=0.5)


# Another run in the same folder ---------------------------------------------------------------------------------


class EndsInEpoch(keras.callbacks.Callback):
    """Ends a run in its epoch `epoch`."""

    most_steps = 1

    def __init__(self, epoch=1):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


def eager_vae():
    """The shared model that isn't traced, as in a process that has just made it."""
    return begun(run_eagerly=True)


def stopped_run(folder, data, **options):
    with pytest.raises(InterruptedError):
        eager_vae().fit(data, epochs=2, verbose=0, callbacks=[Checkpoint(folder), EndsInEpoch()], **options)


ROWS = np.random.default_rng(0).random((40, 6)).astype("float32")


def stream(rows=ROWS, batch_size=10, shuffle=20, path=None):
    np.save(path, rows)
    return kvae.data.from_npy(path, batch_size, shuffle=shuffle, seed=0)


OTHERS = {
    "content": lambda path: stream(ROWS + 1, path=path),
    "batch size": lambda path: stream(np.r_[ROWS, ROWS[:4]], batch_size=11, path=path),
    "shuffle buffer": lambda path: stream(shuffle=40, path=path),
    "map": lambda path: stream(path=path).map(lambda x: x * 0.5),
    "plain dataset": lambda path: tf.data.Dataset.from_tensor_slices(ROWS).batch(10),
}


@pytest.mark.parametrize("other", some(list(OTHERS), "content", "map"))
def test_a_run_on_other_data_is_refused(other, tmp_path):
    path = tmp_path / "x.npy"
    stopped_run(tmp_path / "run", stream(path=path))
    with pytest.raises(ValueError, match=r"holds a run whose .* is .*, and this one's is"):
        eager_vae().fit(OTHERS[other](path), epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path / "run")])
    history = eager_vae().fit(stream(path=path), epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path / "run")])
    assert history.epoch == [0, 1]


def test_a_run_with_other_validation_data_is_refused(tmp_path):
    stopped_run(tmp_path, ROWS, validation_data=ROWS)
    for other in ({}, {"validation_data": ROWS + 1}):
        with pytest.raises(ValueError, match="validation data's first batch"):
            eager_vae().fit(ROWS, epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path)], **other)


def test_a_random_map_is_told_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)

    def add_noise(x):
        noise = tf.numpy_function(lambda: rng.random((10, 6), "float32"), [], tf.float32)
        return x + tf.ensure_shape(noise, (10, 6))

    noisy = stream(path=tmp_path / "x.npy").map(add_noise)
    with pytest.warns(UserWarning, match="not bit by bit"):
        stopped_run(tmp_path / "run", noisy)
    with pytest.warns(UserWarning, match="not bit by bit"):
        assert eager_vae().fit(noisy, epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path / "run")]).epoch == [0, 1]


KEPT = {
    "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=50.0),
    "EarlyStopping": lambda: keras.callbacks.EarlyStopping(
        "loss", patience=3, min_delta=1e6, restore_best_weights=True
    ),
    "ModelCheckpoint": lambda: keras.callbacks.ModelCheckpoint("best.weights.h5", "loss", 0, True, True),
}


@pytest.mark.parametrize("name", some(list(KEPT), "EarlyStopping"))
def test_the_states_of_keras_callbacks_go_on(name, tmp_path, monkeypatch):
    """As in a run that wasn't stopped: the same weights, epochs and best value, and a run that ended stays ended."""
    monkeypatch.chdir(tmp_path)

    def fit(folder, *others):
        model, kept = eager_vae(), KEPT[name]()
        model.fit(ROWS, epochs=8, verbose=0, callbacks=[Checkpoint(folder), kept, *others])
        return model.history.epoch, model.get_weights(), kept

    epochs, whole, expected = fit("whole")
    with pytest.raises(InterruptedError):
        fit("stopped", EndsInEpoch(2))
    resumed, weights, kept = fit("stopped")
    assert resumed == epochs and kept.best == expected.best
    assert same_weights(weights, whole)
    if name == "EarlyStopping":
        assert len(epochs) < 8
        again, weights, _ = fit("stopped")
        assert again == epochs
        assert same_weights(weights, whole)


def test_a_callback_that_is_new_leaves_the_others_their_states():
    stop, reduce = keras.callbacks.EarlyStopping(), keras.callbacks.ReduceLROnPlateau()
    stop.wait, stop.best = 3, 0.5
    states, arrays = callback_states.collect([stop])
    again = keras.callbacks.EarlyStopping()
    callback_states.restore([reduce, again], states, arrays)
    assert (again.wait, again.best, reduce.wait) == (3, 0.5, 0)
    assert callback_states.starts_anew(keras.callbacks.CSVLogger("log.csv"))
    assert not callback_states.starts_anew(keras.callbacks.CSVLogger("log.csv", append=True))


def test_callbacks_that_start_anew_are_named(tmp_path, capsys):
    class Average(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            pass

    stopped_run(tmp_path, ROWS)
    eager_vae().fit(ROWS, epochs=2, verbose=2, callbacks=[Checkpoint(tmp_path), Average()])
    assert "Average can't be resumed" in capsys.readouterr().out


def test_fewer_epochs_than_the_run_has_had_are_told(tmp_path, capsys):
    stopped_run(tmp_path, ROWS)
    eager_vae().fit(ROWS, epochs=1, verbose=2, callbacks=[Checkpoint(tmp_path)])
    assert "has had 1 epochs, and 1 are asked for" in capsys.readouterr().out
