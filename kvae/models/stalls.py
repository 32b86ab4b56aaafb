"""A line that says which batch is waited for, once none has come for a while."""

import threading
import time
import warnings

import keras

LIMIT = 30.0  # seconds


class Watch(keras.callbacks.Callback):
    """Within its context a thread warns, once for each wait, where one takes more than LIMIT seconds; it ends nothing.

    name: of the method that waits. what: it waits for first; None where a callback's methods will say.
    """

    def __init__(self, name, what=None):
        super().__init__()
        self.name = name
        self.waits_for(what)

    def waits_for(self, what):
        self.waiting = what, time.monotonic()

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, args=(LIMIT,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self.thread.join()

    def _look(self, limit):
        said = None
        while not self.ended.wait(limit / 4):
            waiting = self.waiting
            if waiting[0] and waiting != said and time.monotonic() - waiting[1] >= limit:
                said = waiting
                warnings.warn(
                    f"{self.name} has waited {limit:g} s for {waiting[0]}: the stream gives nothing, or the step, or a "
                    "callback before it, takes that long",
                    stacklevel=1,
                )

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.waits_for(f"the first batch of epoch {epoch}")

    def on_train_batch_begin(self, batch, logs=None):
        self.waits_for(f"{self._batches(batch)} of epoch {self.epoch}, counted from 0")

    def on_epoch_end(self, epoch, logs=None):
        self.waits_for(None)

    def on_test_begin(self, logs=None):
        self.waits_for("the first batch to evaluate")

    def on_test_batch_begin(self, batch, logs=None):
        self.waits_for(f"{self._batches(batch)} to evaluate, counted from 0")

    def on_test_end(self, logs=None):
        self.waits_for(None)

    def _batches(self, first):
        last = first + self.model.steps_per_execution - 1
        return f"batch {first}" if last == first else f"batches {first} to {last}"
