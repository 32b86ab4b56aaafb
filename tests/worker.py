"""One of the processes of `test_workers.py`: python worker.py FOLDER interrupted|resumed, under a TF_CONFIG."""

import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf
from replicated import images, in_files, regularised, shuffled

import kvae

EPOCHS, LAST_EPOCH, LAST_BATCH = 3, 1, 2


class Death(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (LAST_EPOCH, LAST_BATCH):
            os.kill(os.getpid(), signal.SIGKILL)


class Restore(keras.callbacks.BackupAndRestore):
    """What the workers beside the first have of `BackupAndRestore`: they read what that one has written."""

    def on_epoch_end(self, epoch, logs=None):
        pass

    def on_train_end(self, logs=None):
        pass


def main(folder, phase):
    strategy = kvae.replicas.strategy()
    worker = strategy.cluster_resolver.task_id
    results = {}
    if phase == "interrupted":
        with strategy.scope():
            model = regularised(kvae.VAE)
            model.compile()
        stream = in_files(folder / f"worker{worker}")
        results["evaluated"] = model.evaluate(stream, verbose=0)
        draw = tf.function(lambda: strategy.run(model.sampling, args=([tf.zeros((9, 2))] * 2,)))
        results["draw"] = draw().numpy()
        np.savez(folder / f"{phase}{worker}.npz", **results)
    callbacks = [(Restore if worker else keras.callbacks.BackupAndRestore)(folder / "backup")]
    if phase == "interrupted" and worker:
        callbacks.append(Death())
    with strategy.scope():
        model = regularised()
        model.compile(kvae.optimizers.Adam(1e-2), metrics=["mse"])
    history = model.fit(
        shuffled(images()), epochs=EPOCHS, validation_data=shuffled(images(61), 30), verbose=0, callbacks=callbacks
    ).history
    np.savez(folder / f"{phase}{worker}.npz", *model.get_weights(), **history)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
