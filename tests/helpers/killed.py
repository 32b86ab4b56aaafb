"""Runs that really die, each in a fork of one process that has TensorFlow imported: `python killed.py PLAN FOLDER`.

Prints, as JSON, what each run of the plan came to. FOLDER/small is a disk of 1 MB and FOLDER/fixed one that can't be
written, where the machine lets this process mount them.
"""

import contextlib
import hashlib
import io
import json
import mmap
import os
import pathlib
import random
import resource
import signal
import sys
import time

import keras
import numpy as np

import kvae
from kvae import files
from kvae.callbacks import Checkpoint
from kvae.data.arrays import from_arrays
from kvae.training import checkpoint_files

ROWS, BATCH, EPOCHS, SAVE_EVERY = 590, 10, 3, 7
STEPS = ROWS // BATCH
TAKEN = mmap.mmap(-1, 8)  # the steps that a fork has taken, which outlive it


class Count(keras.callbacks.Callback):
    """Keeps count of the steps where death doesn't reach."""

    most_steps = SAVE_EVERY

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * STEPS

    def on_train_batch_end(self, batch, logs=None):
        TAKEN[:] = (self.before + batch + 1).to_bytes(8, "little")


class At(keras.callbacks.Callback):
    """Calls a function behind batch `step` of `epoch`."""

    most_steps = 4

    def __init__(self, epoch, step, function):
        super().__init__()
        self.place, self.function, self.epoch = (epoch, step), function, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) >= self.place:
            self.place = (EPOCHS, 0)
            self.function()


def run(folder, *others, checkpoint=None):
    """Fit, and say what it came to: a hash of weights, optimizer and history."""
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).random((ROWS, 6), "float32")
    model = kvae.VAE(
        kvae.networks.dense_encoder((6,), 2, hidden=(8,)),
        kvae.networks.dense_decoder((6,), 2, hidden=(8,)),
        seed=3,
    )
    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 20, 0.9)
    model.compile(kvae.optimizers.Adam(rate), loss=kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        history = model.fit(
            from_arrays((x,), BATCH),
            validation_data=x[:100],
            epochs=EPOCHS,
            verbose=2,
            callbacks=[Count(), checkpoint or Checkpoint(folder, SAVE_EVERY), *others],
        )
    digest = hashlib.sha256(json.dumps(history.history).encode())
    for variable in [*model.weights, *model.optimizer.variables]:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    line = [line for line in said.getvalue().splitlines() if line.startswith("Checkpoint")]
    return {"hash": digest.hexdigest(), "epochs": history.epoch, "said": line}


def forked(function, *arguments, kill_after=None, **keywords):
    """What the function gave or raised in a fork of its own, and how that ended."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            found = function(*arguments, **keywords)
        except BaseException as error:
            found = {"error": type(error).__name__, "errno": getattr(error, "errno", None), "message": str(error)}
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read) as pipe:
        found = pipe.read()
    status = os.waitpid(child, 0)[1]
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, **json.loads(found or "{}")}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def place(folder):
    """(files, epoch, step) of the last checkpoint."""
    found = checkpoint_files.CheckpointFolder(folder).latest()
    return [len(os.listdir(folder)) - (folder / ".kvae.lock").exists(), *(found[0]["place"][:2] if found else (0, 0))]


def dies_in_a_save(folder, number, moment):
    """A run that dies in its save of that number: with half of the file written, or before or behind its renaming."""
    saves = 0
    real_write, real_replace = files.atomic_write, os.replace

    @contextlib.contextmanager
    def atomic(path):
        nonlocal saves
        saves += 1
        with real_write(path) as file:
            if saves == number and moment == "half":
                file.write(bytes(1000))
                file.flush()
                die()
            yield file

    def replace(source, target):
        if saves == number and moment == "before":
            die()
        real_replace(source, target)
        if saves == number and moment == "behind":
            die()

    files.atomic_write, os.replace = atomic, replace
    return run(folder)


def quick(folder):
    results = {"whole": forked(run, folder / "whole")}
    twice = folder / "twice"
    results["deaths"] = [[forked(run, twice, At(*where, die))["signal"], *place(twice)] for where in ((1, 20), (1, 33))]
    results["deaths"].append([forked(dies_in_a_save, twice, 3, "half")["signal"], *place(twice)])
    results["twice"] = forked(run, twice)
    results["again"] = forked(run, twice)

    stopped = folder / "stopped"
    results["SIGTERM"] = forked(run, stopped, At(0, 20, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    results["SIGTERM place"] = place(stopped)
    results["SIGINT"] = forked(interrupted, stopped)
    results["file size"] = forked(limited, folder / "limited")
    if (folder / "small").exists():
        results["full"] = forked(full, folder / "small")
        TAKEN[:] = bytes(8)
        results["fixed"] = forked(run, folder / "fixed" / "run")
        results["fixed"]["steps"] = int.from_bytes(TAKEN[:], "little")
    return results


def interrupted(folder):
    """Ctrl-C, and fit once more in the same process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        run(folder, At(1, 30, lambda: os.kill(os.getpid(), signal.SIGINT)))
    except KeyboardInterrupt:
        handlers = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return {"place": place(folder), "handlers": handlers, **run(folder)}


def failing(folder, after, fill, empty):
    """A disk that is full after some batches, and fit once more when it has room."""
    checkpoint = Checkpoint(folder, SAVE_EVERY)
    try:
        run(folder, At(*after, fill), checkpoint=checkpoint)
    except OSError as error:
        files, content = sorted(os.listdir(folder)), checkpoint_files.CheckpointFolder(folder).latest()[0]
        empty()
        ended = run(folder, checkpoint=checkpoint)
        return {"errno": error.errno, "message": str(error), "files": files, "place": content["place"], **ended}


def limited(folder):
    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return failing(folder, (1, 30), lambda: limit(1000), lambda: limit(resource.RLIM_INFINITY))


def full(disk):
    filler = disk / "filler"

    def fill():
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    return failing(disk / "run", (1, 30), fill, filler.unlink)


def fifty(folder):
    """50 deaths, half of them in a save, each followed by a run that goes on."""
    chance = random.Random(0)
    whole = forked(run, folder / "whole")
    start = time.monotonic()
    forked(run, folder / "timed")
    lasts = time.monotonic() - start
    same, lost, torn = 0, [], 0
    for number in range(50):
        run_folder = folder / str(number)
        TAKEN[:] = bytes(8)
        if number % 2:
            saves = (STEPS // SAVE_EVERY + 1) * EPOCHS
            moment = chance.choice(["half", "before", "behind"])
            forked(dies_in_a_save, run_folder, chance.randrange(2, saves), moment)
        else:
            forked(run, run_folder, kill_after=chance.uniform(0.05, 1.1) * lasts)
        if run_folder.exists():
            torn += any(name.endswith(".partial") for name in os.listdir(run_folder))
            epoch, step = place(run_folder)[1:]
            lost.append(int.from_bytes(TAKEN[:], "little") - epoch * STEPS - step)
        same += forked(run, run_folder)["hash"] == whole["hash"]
    return {"same": same, "lost": lost, "left half written": torn}


if __name__ == "__main__":
    plan, where = sys.argv[1:]
    print(json.dumps({"quick": quick, "fifty": fifty}[plan](pathlib.Path(where))))
