"""A part of a run of `test_workers.py` that changes its workers: python worker_chain.py FOLDER EPOCH BATCH.

Kills itself behind this batch; with EPOCH = -1 it trains to the end, and the first worker writes the weights.
"""

import os
import pathlib
import signal
import sys

import keras
import numpy as np
from replicated import regularised, rows

import kvae

EPOCHS = 4


class Death(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.place = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) >= self.place:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, callbacks=()):
    """The model of a run that goes on where the folder's checkpoint is."""
    strategy = kvae.replicas.strategy()
    with strategy.scope():
        model = regularised(kvae.VAE)
        model.compile(kvae.optimizers.Adam(1e-2), loss=kvae.IWAE(samples=3))
    model.fit(
        **rows(101),
        batch_size=25,
        epochs=EPOCHS,
        validation_data=tuple(rows(61).values()),
        verbose=0,
        callbacks=[kvae.callbacks.Checkpoint(folder / "run", save_every=1), *callbacks],
    )
    if kvae.replicas.is_first(strategy):
        folder.mkdir(exist_ok=True)
        np.savez(folder / "weights.npz", *model.get_weights())


if __name__ == "__main__":
    folder, epoch, batch = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    train(folder, [Death(epoch, batch)] if epoch >= 0 else [])
