"""CPU time of a step of `fit` in two workers, one by one and in groups: python tests/benchmarks/worker_steps.py"""

import argparse
import multiprocessing
import os
import time

import keras
import numpy as np

import kvae
from kvae import __main__ as job

ROWS, BATCH = 12_800, 128


class EachBatch(keras.callbacks.Callback):
    """A callback that looks at every batch, for which `fit` takes the steps one by one."""

    def on_train_batch_end(self, batch, logs=None):
        pass


def work(config, hidden, rounds):
    os.environ["TF_CONFIG"] = config
    strategy = kvae.replicas.strategy()
    x = np.random.default_rng(0).random((ROWS, 784)).astype("float32")
    with strategy.scope():
        encoder = kvae.networks.dense_encoder((784,), 10, hidden=(hidden,))
        model = kvae.VAE(encoder, kvae.networks.dense_decoder((784,), 10, hidden=(hidden,)), seed=0)
        model.compile(kvae.optimizers.Adam(1e-3))
    for number in range(rounds + 1):  # the first one traces
        for name, callbacks in (("one by one", [EachBatch()]), ("in groups", [])):
            start = time.process_time()
            model.fit(x, batch_size=BATCH, verbose=0, callbacks=callbacks)
            milliseconds = (time.process_time() - start) / (ROWS // BATCH) * 1e3
            if number and kvae.replicas.is_first(strategy):
                print(f"{hidden} units, {name}: {milliseconds:.1f} ms", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    configs = [each["TF_CONFIG"] for each in job._environments(2)]
    processes = [context.Process(target=work, args=(each, options.hidden, options.rounds)) for each in configs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
