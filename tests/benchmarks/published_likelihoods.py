"""Fashion-MNIST's log p(x) under the protocol of the VampPrior's and the Exemplar VAE's papers, ours beside theirs.

    python tests/benchmarks/published_likelihoods.py train MODEL --data-dir DATA --runs RUNS
    python tests/benchmarks/published_likelihoods.py measure MODEL --data-dir DATA --runs RUNS
    python tests/benchmarks/published_likelihoods.py table

Each goes on where it was stopped. `measure` takes the best weights so far, writes settings, curve and result to
tests/benchmarks/published/MODEL-SEED.json, and `table` prints those. Nothing is chosen on test data.

The protocol (Tomczak and Welling 2018; Norouzi, Fleet and Norouzi 2020): 50,000 / 10,000 / 10,000 images, those for
training made black and white anew at each use, the others once; two gated dense layers of 300 units each side, 40
latents, posterior log-variances within [-6, 2], He's initial kernels; Adam at 5e-4, batches of 100, the weight of the
KL rising over 100 epochs (here by the step); the end is after 50 epochs without a better bound on the validation
data, or after 2,000, the weights those of the best; log p(x) by importance weighting with 5,000 draws.

Beyond it, with the same networks: "-annealed" and "-iwae" train the run of that name on, from its best weights, for
100 epochs in which the learning rate falls to 0 along a cosine, the first with the same bound, the second with the
importance-weighted one of 8 draws. Here too the weights are those of the best bound on the validation data.
"""

import argparse
import json
import math
import os
import pathlib
import resource

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import kvae

HERE = pathlib.Path(__file__).parent / "published"
SHAPE, LATENTS, UNITS = (28, 28, 1), 40, 300
LOG_VAR_BOUNDS = (-6.0, 2.0)
IMAGES, BATCH, WARM_UP, PATIENCE, LEARNING_RATE = 50_000, 100, 100, 50, 5e-4
EPOCHS, MORE_EPOCHS = 2_000, 100
DRAWS = 5_000
PUBLISHED = {
    "vae": "-228.70 +- 0.15",
    "vampprior": "-227.35 +- 0.05",
    "two-layer": "-227.37 +- 0.1",
    "two-layer-vampprior": "-226.72 +- 0.08",
}
BINARIZING = {"train": 1, "validation": 2, "test": 3}  # seeds


def gated(h, units=UNITS):
    return layers.Multiply()([dense(units)(h), dense(units, "sigmoid")(h)])


def dense(units, activation=None):
    return layers.Dense(units, activation, kernel_initializer="he_normal")


def normal(h):
    """[mean, log-variance], the latter cut off at both ends ("hardtanh" in the authors' code)."""
    low, high = LOG_VAR_BOUNDS
    above = layers.ReLU(max_value=high - low)(layers.Rescaling(1.0, offset=-low)(dense(LATENTS)(h)))
    return [dense(LATENTS)(h), layers.Rescaling(1.0, offset=low)(above)]


def logits(h):
    return layers.Reshape(SHAPE)(dense(28 * 28)(h))


def vae(prior=None):
    x, z = layers.Input(SHAPE), layers.Input((LATENTS,))
    encoder = keras.Model(x, normal(gated(gated(layers.Flatten()(x)))))
    decoder = keras.Model(z, logits(gated(gated(z))))
    return {"encoder": encoder, "decoder": decoder, "prior": prior}


def two_layer(prior=None):
    """q(z2|x) q(z1|x, z2) and p(z2) p(z1|z2) p(x|z1, z2), of the paper's section 4."""
    x, h1, h2, z1, z2 = (layers.Input(shape) for shape in (SHAPE, (UNITS,), (UNITS,), (LATENTS,), (LATENTS,)))
    pixels = layers.Flatten()(x)
    return {
        "encoder": keras.Model(x, [gated(pixels), gated(gated(pixels))]),
        "posteriors": [keras.Model([h1, z2], normal(gated(joined(h1, gated(z2))))), keras.Model(h2, normal(h2))],
        "priors": [keras.Model(z2, normal(gated(gated(z2))))],
        "decoder": keras.Model([z1, z2], logits(gated(joined(gated(z1), gated(z2))))),
        "prior": prior,
    }


def joined(*parts):
    return layers.Concatenate()(parts)


MODELS = {
    "vae": lambda: (kvae.VAE, vae()),
    "vampprior": lambda: (kvae.VAE, vae(kvae.VampPrior(500))),
    "two-layer": lambda: (kvae.HierarchicalVAE, two_layer()),
    "two-layer-vampprior": lambda: (kvae.HierarchicalVAE, two_layer(kvae.VampPrior(500))),
}


SETTINGS = {
    "images": [IMAGES, 10_000, 10_000],
    "batch": BATCH,
    "gated_units": [UNITS, UNITS],
    "latents": LATENTS,
    "log_var_bounds": LOG_VAR_BOUNDS,
    "epochs_of_warm_up": WARM_UP,
    "patience": PATIENCE,
    "most_epochs": [EPOCHS, MORE_EPOCHS],
    "seeds_of_binarizing": BINARIZING,
    "draws": DRAWS,
}
MORE = {
    "-annealed": lambda: kvae.ELBO(),
    "-iwae": lambda: kvae.IWAE(8, "doubly_reparameterized"),
}


def new_model(name, seed):
    keras.utils.set_random_seed(seed)
    kind, parts = MODELS[name]()
    model = kind(**parts, likelihood=kvae.BernoulliLikelihood(), seed=seed)
    # Per step, rather than per epoch as in the papers' code.
    beta = kvae.schedules.LinearWarmUp(WARM_UP * IMAGES // BATCH)
    model.compile(kvae.optimizers.Adam(LEARNING_RATE), loss=kvae.ELBO(beta=beta))
    return model


def trained_on(name, more, runs, seed):
    """The best model of the run without `more` at the end of its name, to be trained as that says, and its epoch."""
    run = runs / f"{name.removesuffix(more)}-{seed}"
    model = keras.saving.load_model(run / "best.keras")
    falling = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, MORE_EPOCHS * IMAGES // BATCH)
    model.compile(kvae.optimizers.Adam(falling), loss=MORE[more]())
    return model, json.loads((run / "state.json").read_text())["best_epoch"]


def more_of(name):
    """The key of `MORE` that the name ends with, or None."""
    return next((more for more in MORE if name.endswith(more)), None)


def data(data_dir, runs):
    """The three streams, from a packed copy that is made once."""
    packed = runs / "fashion_mnist"
    if not (packed / "manifest.json").exists():
        kvae.data.pack(kvae.data.load("fashion_mnist", validation=1 / 6, shuffle=0, data_dir=data_dir), packed)
    train, validation, test = kvae.data.load(packed, BATCH, shuffle=IMAGES)
    binarize, seeds = kvae.data.binarize, BINARIZING
    return (
        binarize(train, seeds["train"]),
        binarize(validation, seeds["validation"], anew=False),
        binarize(test, seeds["test"], anew=False),
    )


class Protocol(keras.callbacks.Callback):
    """Ends the run by its rule; after each epoch writes all that it takes to go on."""

    def __init__(self, run, more):
        super().__init__()
        self.run, self.more = run, more
        self.state = {"epoch": 0, "best": math.inf, "best_epoch": 0, "curve": [], "cpu_seconds": 0.0}
        if self.path.exists():
            self.state = json.loads(self.path.read_text())

    @property
    def path(self):
        return self.run / "state.json"

    @property
    def last(self):
        return self.run / f"epoch-{self.state['epoch']}.keras"

    @property
    def finished(self):
        epoch = self.state["epoch"]
        if self.more:
            return epoch >= MORE_EPOCHS
        return epoch - max(self.state["best_epoch"], WARM_UP) >= PATIENCE or epoch >= EPOCHS

    def on_epoch_begin(self, epoch, logs=None):
        self.started = cpu_seconds()

    def on_epoch_end(self, epoch, logs=None):
        state, before = self.state, self.last
        bound = logs["val_loss"] if self.more else -logs["val_elbo"]
        state["epoch"] = epoch + 1
        state["cpu_seconds"] += cpu_seconds() - self.started
        state["curve"].append([round(-logs["elbo"], 3), round(bound, 3)])
        keras.saving.save_model(self.model, self.last)
        if bound < state["best"]:
            state["best"], state["best_epoch"] = bound, epoch + 1
            replace(self.last.read_bytes(), self.run / "best.keras")
        replace(json.dumps(state).encode(), self.path)
        before.unlink(missing_ok=True)
        self.model.stop_training = self.finished


def replace(content, path):
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def train(name, seed, data_dir, runs, epochs):
    run = runs / f"{name}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    training, validation, _ = data(data_dir, runs)
    more = more_of(name)
    protocol = Protocol(run, more)
    if protocol.last.exists():
        model = keras.saving.load_model(protocol.last)
    elif more:
        model, protocol.state["from_epoch"] = trained_on(name, more, runs, seed)
    else:
        model = new_model(name, seed)
    if not protocol.finished:
        model.fit(
            training,
            validation_data=validation,
            initial_epoch=protocol.state["epoch"],
            epochs=epochs,
            callbacks=[protocol],
            verbose=2,
        )
    state = protocol.state
    print(f"{run.name}: {state['epoch']} epochs, best {state['best']:.2f} after {state['best_epoch']}")


def measure(name, seed, data_dir, runs):
    run = runs / f"{name}-{seed}"
    model = keras.saving.load_model(run / "best.keras")
    protocol = Protocol(run, more_of(name))
    test = data(data_dir, runs)[2]
    found = kvae.evaluation.log_likelihood(model, test, DRAWS, resume=run / "test.npz", verbose=True)
    state = protocol.state
    result = {
        "model": name,
        "seed": seed,
        "test_log_likelihood": round(found.mean, 3),
        "standard_error": round(found.standard_error, 3),
        "sampling_error": round(found.sampling_error, 4),
        "test_elbo": round(found.elbo, 3),
        "effective_samples": round(float(np.median(found.effective_samples)), 1),
        "curve_over_k": {str(k): round(value, 3) for k, value in found.curve.items()},
        "ended_by_the_rule": protocol.finished,
        "from_epoch": state.get("from_epoch", 0),
        "epochs": state["epoch"],
        "best_epoch": state["best_epoch"],
        "validation_bound": round(-state["best"], 3),
        "cpu_seconds": round(state["cpu_seconds"]),
        "settings": {
            **SETTINGS,
            "learning_rate": model.optimizer.get_config()["learning_rate"],
            "objective": keras.saving.serialize_keras_object(model.loss),
            "prior": keras.saving.serialize_keras_object(model.prior),
        },
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "columns_of_training": ["training loss at beta 1", "validation bound, negative"],
        "training": state["curve"],
    }
    HERE.mkdir(exist_ok=True)
    (HERE / f"{name}-{seed}.json").write_text(json.dumps(result))
    print(found)


def table():
    print("| model | seed | epochs | test log p(x) | test ELBO | published |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in sorted(HERE.glob("*.json")):
        run = json.loads(path.read_text())
        epochs = f"{run['from_epoch']} + {run['epochs']}" if run["from_epoch"] else f"{run['epochs']}"
        if not run["ended_by_the_rule"]:
            epochs += ", not ended by the rule"
        print(
            f"| {run['model']} | {run['seed']} | {epochs} | {run['test_log_likelihood']:.2f} +- "
            f"{run['sampling_error']:.3f} | {run['test_elbo']:.2f} | {PUBLISHED.get(run['model'], '')} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("train", "measure"):
        arguments = commands.add_parser(command)
        arguments.add_argument("model", choices=[f"{name}{more}" for more in ("", *MORE) for name in MODELS])
        arguments.add_argument("--data-dir", help="where tensorflow-datasets keeps its sets")
        arguments.add_argument("--runs", type=pathlib.Path, required=True, help="a folder for what it takes to go on")
        arguments.add_argument("--seed", type=int, default=0)
    commands.choices["train"].add_argument("--epochs", type=int, default=EPOCHS, help="at most")
    commands.add_parser("table")
    options = vars(parser.parse_args())
    command = {"train": train, "measure": measure, "table": table}[options.pop("command")]
    command(**{{"model": "name"}.get(key, key): value for key, value in options.items()})


if __name__ == "__main__":
    main()
