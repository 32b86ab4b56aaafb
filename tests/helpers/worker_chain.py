"""Runs that change their workers, each part of them killed at a random moment: chains of `test_workers.py`."""

import functools
import multiprocessing
import os
import pathlib
import signal
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from replicated import images, regularised, rows

import kvae
from kvae.data.packed import writer

EPOCHS, ROWS, BATCH = 6, 101, 25
STEPS = -(-ROWS // BATCH)
WORKERS = 1, 2, 1, 4
LATEST = 0.05  # seconds behind a batch's end, some of a step and of a save


class Noting(kvae.VAE):
    """Notes the rows, which y numbers, of every step."""

    notes: Any = None

    def train_step(self, data):
        note = functools.partial(_note, self.notes)
        with tf.control_dependencies([tf.numpy_function(note, [self.optimizer.iterations.value, data[1]], [])]):
            return super().train_step(data)


def _note(file, step, numbers):
    with open(file, "a") as notes:
        notes.write(f"{step}: {' '.join(str(int(number)) for number in numbers)}\n")


class Death(keras.callbacks.Callback):
    """Kills this process a moment behind the end of a batch, whatever it does then."""

    def __init__(self, step, seconds):
        super().__init__()
        self.place, self.seconds, self.dying = divmod(step, STEPS), seconds, False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) >= self.place and not self.dying:
            self.dying = True
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def pack(folder):
    """A packed folder of the rows and their numbers."""
    columns = {"image": images(ROWS), "row": np.arange(ROWS)}
    writer.write_columns({"train": [columns]}, folder, block_bytes=7 * 24)


def train(folder, kind, environment, part, death):
    """A part of a run, which goes on where the folder's checkpoint is. Its first worker writes the weights."""
    os.environ.update(environment)
    strategy = kvae.replicas.strategy()
    with strategy.scope():
        model = regularised(Noting)
        model.compile(kvae.optimizers.Adam(1e-2), loss=kvae.IWAE(samples=3))
    model.notes = str(folder / f"part{part}-{os.getpid()}.txt")
    data: Any = {**rows(ROWS), "y": np.arange(ROWS)} | {"batch_size": BATCH}
    if kind == "packed":
        data = {"x": kvae.data.load(folder.parent / "rows", BATCH, labels="row", validation=0, shuffle=30)[0]}
    model.fit(
        **data,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[kvae.callbacks.Checkpoint(folder / "run", save_every=1), *([Death(*death)] if death else [])],
    )
    if kvae.replicas.is_first(strategy):
        np.savez(folder / "weights.npz", *model.get_weights())


def run(folder: pathlib.Path, kind: str, environments: list, part: int = 0, deaths: Any = None, seconds: int = 3600):
    """Train in as many processes. Returns their exit codes, of which those that outlive a death are killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["worker_chain"])  # imports TensorFlow once
    folder.mkdir(exist_ok=True)
    arguments = [(folder, kind, dict(each), part, deaths and deaths[i]) for i, each in enumerate(environments)]
    processes = [context.Process(target=train, args=each) for each in arguments]
    end = time.monotonic() + seconds
    try:
        for process in processes:
            process.start()
        while any(process.exitcode is None for process in processes) and time.monotonic() < end:
            if any(process.exitcode for process in processes):
                break
            time.sleep(0.05)
    finally:
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
            process.join()
    return codes


def seen(folder: pathlib.Path) -> list[list[int]]:
    """The rows of each epoch, by the step's last run: a step that a death interrupts is taken again."""
    parts: dict[int, dict[int, list[int]]] = {}
    for path in folder.glob("part*.txt"):
        part = int(path.name.split("-")[0].removeprefix("part"))
        for line in path.read_text().splitlines():
            step, numbers = line.split(":")
            parts.setdefault(int(step), {}).setdefault(part, []).extend(map(int, numbers.split()))
    last = {step: found[max(found)] for step, found in parts.items()}
    return [[row for i in range(STEPS) for row in last[epoch * STEPS + i]] for epoch in range(EPOCHS)]
