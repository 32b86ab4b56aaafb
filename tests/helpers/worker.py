"""One of the processes of `test_workers.py`: python worker.py FOLDER interrupted|resumed, under a TF_CONFIG."""

import os
import pathlib
import signal
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicated import in_files, regularised, rows

import kvae

EPOCHS, LAST_EPOCH, LAST_BATCH, SAVE_EVERY = 3, 1, 2, 2


class Death(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (LAST_EPOCH, LAST_BATCH):
            os.kill(os.getpid(), signal.SIGKILL)


def compiled():
    model = regularised(kvae.VAE)
    model.compile(kvae.optimizers.Adam(1e-2, global_clipnorm=0.1), metrics=["mse"])
    return model


def packed(folder):
    """A shuffled stream of 101 rows in batches that two workers can't halve."""
    return kvae.data.load(folder / "packed", 25, validation=0, shuffle=30)[0]


def of_unknown_length():
    return tf.data.Dataset.from_tensor_slices(rows(61)["x"]).filter(lambda x: True).batch(7)


def refusals(model, folder, worker, shuffled):
    """What `fit` says of data and of folders that the workers can't share, before any step."""
    own = [kvae.callbacks.Checkpoint(folder / ("elsewhere" if worker else "run"))]
    for x, arguments in (
        (shuffled, {}),
        (rows(20)["x"], {"validation_split": 0.5}),
        (rows(101)["x"], {"batch_size": 25, "epochs": EPOCHS, "callbacks": own}),
    ):
        with pytest.raises(ValueError) as error:
            model.fit(x, verbose=0, **arguments)
        yield str(error.value)


def main(folder, phase):
    strategy = kvae.replicas.strategy()
    worker = strategy.cluster_resolver.task_id
    shuffled = tf.data.Dataset.from_tensor_slices(rows(20)["x"]).shuffle(20).batch(10)  # before any seed is set
    results = {}
    if phase == "interrupted":
        with strategy.scope():
            model = regularised(kvae.VAE)
            model.compile(loss=kvae.IWAE(samples=3))
        results["evaluated"] = model.evaluate(in_files(folder / f"worker{worker}"), verbose=0)
        results["of_packed"] = model.evaluate(packed(folder), verbose=0)
        results["of_unknown_length"] = model.evaluate(of_unknown_length(), verbose=0)
        results["of_array"] = model.evaluate(rows(61)["x"], batch_size=25, verbose=0)
        draw = tf.function(lambda: strategy.run(model.sampling, args=([tf.zeros((9, 2))] * 2,)))
        results["draw"] = draw().numpy()
        np.savez(folder / f"{phase}{worker}.npz", **results)
    with strategy.scope():
        model = compiled()
    if phase == "resumed":
        results["refusals"] = list(refusals(model, folder, worker, shuffled))
    callbacks = [kvae.callbacks.Checkpoint(folder / "run", SAVE_EVERY)]
    if phase == "interrupted" and worker:
        callbacks.append(Death())
    history = model.fit(
        **rows(101),
        batch_size=25,
        epochs=EPOCHS,
        validation_data=tuple(rows(61).values()),
        verbose=0,
        callbacks=callbacks,
    ).history
    model.fit(**rows(101), batch_size=25, verbose=0)
    if phase == "resumed":
        model.save(folder / "model.keras")
        model.transform(rows(61)["x"], directory=folder / "codes")
        kvae.replicas.agree(strategy, 0)  # wait for the first
        assert zipfile.is_zipfile(folder / "model.keras") and kvae.data.load(folder / "codes")
    np.savez(folder / f"{phase}{worker}.npz", *model.get_weights(), **results, **history)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
