"""What kvae computes for fixed seeds, recorded and compared: `python tests/benchmarks/behavior.py record PATH`.

`compare PATH` runs the scenarios again and lists each difference from the record. Hashes and numbers have to be equal
to the bit, which they are on one kind of machine with one version of TensorFlow. With `--close` the hashes are left
out and numbers may differ by a relative 1e-6. Only public names are used.
"""

import argparse
import contextlib
import hashlib
import inspect
import io
import json
import math
import os
import pathlib
import sys
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

import kvae
from kvae.flows import Coupling, Planar
from kvae.networks import dense_decoder, dense_encoder
from kvae.posteriors import FlowPosterior, FullNormal

RNG = np.random.default_rng(0)
X = RNG.random((120, 6), "float32")
BINARY = (X > 0.5).astype("float32")
PIXELS = RNG.integers(0, 256, (200, 8, 8, 1)).astype("uint8")
LABELS = RNG.integers(0, 3, 120)
NEW_NAMES = {"posterior": "posterior_family"}


tf.get_logger().setLevel("ERROR")


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return f"sha256:{found.hexdigest()}"


def named(function, **arguments):
    """function(**arguments), each argument under its new name if the function has it."""
    known = inspect.signature(function).parameters
    return function(**{new if (new := NEW_NAMES.get(name)) in known else name: v for name, v in arguments.items()})


def numbers(logs):
    return {name.replace("quantisation", "quantization"): value for name, value in logs.items()}


def state(model):
    """The hash of all weights, and for inexact comparison their mean magnitude."""
    weights = [np.asarray(weight) for weight in model.get_weights()]
    sizes = [float(np.mean(np.abs(weight))) for weight in weights if weight.dtype.kind == "f" and weight.size]
    return {"weights": digest(*weights), "mean magnitudes": sizes}


def vae(x=X, posterior=None, **arguments):
    likelihood = arguments.pop("likelihood", "gaussian")
    encoder = dense_encoder(x.shape[1:], 2, hidden=(8,), posterior=posterior)
    decoder = dense_decoder(x.shape[1:], 2, hidden=(8,))
    return named(
        kvae.VAE, encoder=encoder, decoder=decoder, likelihood=likelihood, posterior=posterior, seed=3, **arguments
    )


def autoencoder():
    return kvae.Autoencoder(dense_encoder((6,), 2, (8,)), dense_decoder((6,), 2, (8,)))


def labelled(inputs, sizes):
    symbols = [keras.Input((size,)) for size in inputs]
    h = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(symbols))
    outputs = [keras.layers.Dense(size)(h) for size in sizes]
    return keras.Model(symbols, outputs if len(outputs) > 1 else outputs[0])


def conditional():
    return kvae.ConditionalVAE(labelled([6, 3], [2, 2]), labelled([2, 3], [6]), label_dim=3, seed=3)


def normal(inputs, size):
    symbols = [keras.Input((width,)) for width in inputs]
    h = keras.layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0]
    h = keras.layers.Dense(8, "tanh")(h)
    return keras.Model(symbols, [keras.layers.Dense(size)(h), keras.layers.Dense(size)(h)])


def hierarchical():
    x = keras.Input((6,))
    encoder = keras.Model(x, [keras.layers.Dense(8, "tanh")(x), keras.layers.Dense(7, "tanh")(x)])
    return kvae.HierarchicalVAE(encoder, [normal([8, 2], 3), normal([7], 2)], [normal([2], 3)], labelled([3, 2], [6]))


def vq_vae():
    x, z = keras.Input((6,)), keras.Input((2, 3))
    encoder = keras.Model(x, keras.layers.Reshape((2, 3))(keras.layers.Dense(6)(x)))
    decoder = keras.Model(z, keras.layers.Dense(6)(keras.layers.Flatten()(z)))
    return kvae.VQVAE(encoder, decoder, codes=5, seed=3)


def fitted(make, x=X, loss=None, fit=None, **compiled):
    keras.utils.set_random_seed(1)
    model = make()
    if loss is not None:
        compiled["loss"] = loss
    model.compile(kvae.optimizers.Adam(1e-2), **compiled)
    data = {"x": x} if not isinstance(x, tuple) else dict(zip("xy", x, strict=True))
    history = model.fit(**data, **{"epochs": 2, "batch_size": 25, "verbose": 0, **(fit or {})})
    return model, {**state(model), "history": numbers(history.history)}


def trained(make, x=X, **arguments):
    """Trained on an array with validation, evaluated twice with other batches, and asked all that it answers."""
    parts = x if isinstance(x, tuple) else (x,)
    model, result = fitted(make, x, fit={"validation_data": tuple(part[:30] for part in parts)}, **arguments)
    for size in 32, 17:
        logs = model.evaluate(**dict(zip("xy", parts, strict=False)), batch_size=size, verbose=0, return_dict=True)
        result[f"evaluate in batches of {size}"] = numbers(logs)
    result["codes"], result["reconstructions"] = digest(model.transform(x)), digest(model.reconstruct(x))
    if len(parts) == 1:
        result["predicted"] = digest(model.predict(x, verbose=0))
    if hasattr(model, "sample"):
        label = {"y": 1} if len(parts) > 1 else {}
        noise = {} if isinstance(model, kvae.VQVAE) else {"noise": True}
        result["samples"] = digest(model.sample(3, seed=1, **label), model.sample(3, seed=2, **label, **noise))
    return result


def pca(solver):
    model = kvae.PCA(2, seed=0, solver=solver).fit(X, verbose=0)
    evaluated = model.evaluate(X, verbose=0, return_dict=True)
    codes, images = model.transform(X), model.reconstruct(X)
    return {
        **state(model),
        "evaluate": evaluated,
        "mean code": np.mean(np.abs(codes), axis=0).tolist(),
        "answers": digest(codes, images, model.sample(3, seed=1), model.log_prob(X[:9])),
    }


def order(stream, epochs=(0, 1, 5)):
    return [digest(*(np.asarray(part) for part in tf.nest.flatten(list(stream.epoch(e))))) for e in epochs]


def from_npy(folder):
    np.save(folder / "x.npy", X)
    stream = kvae.data.from_npy(folder / "x.npy", 25, shuffle=40, seed=5)
    _, result = fitted(vae, stream, fit={"batch_size": None, "epochs": 3})
    return {**result, "order": order(stream), "next epoch": stream.next_epoch}


def packed(folder):
    kvae.data.pack({"train": (PIXELS, np.arange(200)), "test": (PIXELS[:50], np.arange(50))}, folder / "packed")
    manifest = json.loads((folder / "packed" / "manifest.json").read_text())
    files = {p.name: digest(np.fromfile(p, "uint8")) for p in sorted((folder / "packed").rglob("*.npy"))}
    train, validation, test = kvae.data.load(folder / "packed", 32, labels="label", shuffle=50, seed=7)
    unlabelled = kvae.data.load(folder / "packed", 32, shuffle=50, seed=7)
    model, result = fitted(
        lambda: vae(PIXELS), unlabelled[0], fit={"batch_size": None, "validation_data": unlabelled[1]}
    )
    result["evaluate"] = numbers(model.evaluate(unlabelled[2], verbose=0, return_dict=True))
    return {
        **result,
        "files": files,
        "manifest": sorted(manifest),
        "orders": [order(train), order(validation, (0,)), order(test, (0,))],
        "skipped": digest(*(x for x, _ in train.epoch(2, skip=3))),
        "codes": digest(model.transform(unlabelled[2])),
    }


def sprites(folder):
    sets = kvae.data.load("sprites", 32, labels=["shape", "hue"], size=16, examples=100, seed=2, data_dir=folder)
    return {"orders": [order(stream, (0, 1)) for stream in sets]}


def grouped():
    results = {}
    for steps in (1, 4, "auto"):
        results[str(steps)] = fitted(vae, fit={"shuffle": False}, steps_per_execution=steps)[1]
    return results


def skipped():
    x = X.copy()
    x[60, 2] = np.nan
    stream = tf.data.Dataset.from_tensor_slices(x).batch(25)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, result = fitted(vae, stream, fit={"batch_size": None})
    return {**result, "warnings": [str(w.message) for w in caught if "skipped" in str(w.message)]}


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def resumed(folder):
    def run(name, *others):
        checkpoint = kvae.callbacks.Checkpoint(folder / name, save_every=2)
        warm_up = kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5))
        return fitted(vae, loss=warm_up, fit={"callbacks": [*others, checkpoint], "epochs": 3, "batch_size": 10})[1]

    whole = run("whole")
    for epoch, batch in ((0, 5), (2, 3)):
        with contextlib.suppress(KeyboardInterrupt):
            run("stopped", Stop(epoch, batch))
    goes_on = run("stopped")
    return {"whole": whole, "goes on": goes_on, "equal": whole == goes_on}


def measured():
    model, _ = fitted(vae)
    found = kvae.evaluation.log_likelihood(model, X, samples=20, seed=4, verbose=0)
    report = kvae.evaluation.report(model, X, samples=20, components=60, seed=4, verbose=0)
    units = kvae.evaluation.active_units(model, X)
    annealed = kvae.evaluation.annealed_importance_sampling(model, X[:4], 5, chains=2, leapfrogs=2, seed=0, verbose=0)
    return {
        "log p(x)": found.mean,
        "standard error": found.standard_error,
        "curve": {str(k): value for k, value in found.curve.items()},
        "arrays": digest(found.values, found.effective_samples, found.kl),
        "report": str(report),
        "active": units.variances.tolist(),
        "annealed": np.asarray(getattr(annealed, "values", annealed)).tolist(),
        "squared error": float(kvae.evaluation.squared_error(model, X)),
    }


def errors(folder):
    compiled = vae()
    compiled.compile()
    attempts = {
        "NaN in an array": lambda: compiled.fit(np.where(X > 0.9, np.nan, X)),
        "another shape": lambda: compiled.fit(X[:, :5]),
        "strings": lambda: compiled.fit(X.astype(str)),
        "a path": lambda: compiled.fit("x.npy"),
        "single examples": lambda: compiled.fit(tf.data.Dataset.from_tensor_slices(X)),
        "no data": lambda: compiled.fit(X[:0]),
        "beyond Bernoulli": lambda: fitted(lambda: vae(likelihood="bernoulli"), 2 * X),
        "an unknown prior": lambda: vae(prior="vamp"),
        "an unknown likelihood": lambda: vae(likelihood="gausian"),
        "a negative beta": lambda: kvae.ELBO(-0.5),
        "no samples": lambda: kvae.IWAE(0),
        "an unknown set": lambda: kvae.data.load("no_such_set"),
        "a missing file": lambda: kvae.load(folder / "none.keras"),
        "a batch of nothing": lambda: compiled.fit(X, batch_size=0),
        "a model that isn't fitted": lambda: kvae.PCA(2).transform(X),
        "a class too many": lambda: fitted(conditional, (X, LABELS + 1)),
        "a flow without inverse": lambda: kvae.FlowPrior(Planar(2)),
        "vamp and planar": lambda: vae(prior=kvae.VampPrior(3), posterior=FlowPosterior(Planar(2), context=1)),
    }
    results = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            results[name] = "no error"
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")
    return results


def dreg():
    return kvae.IWAE(3, gradient="doubly_reparameterized")


def warmed_up():
    return kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5), free_bits=0.1)


SCENARIOS = {
    "autoencoder": lambda folder: trained(autoencoder),
    "gaussian": lambda folder: trained(vae),
    "bernoulli": lambda folder: trained(lambda: vae(likelihood="bernoulli"), BINARY),
    "pixels": lambda folder: trained(lambda: vae(PIXELS), PIXELS),
    "vamp": lambda folder: trained(lambda: vae(prior=kvae.VampPrior(4))),
    "mixture": lambda folder: trained(lambda: vae(prior=kvae.MixtureOfGaussians(3))),
    "flow prior": lambda folder: trained(lambda: vae(prior=kvae.FlowPrior(Coupling(2, hidden=(4,))))),
    "full normal": lambda folder: trained(lambda: vae(posterior=FullNormal())),
    "flow posterior": lambda folder: trained(lambda: vae(posterior=FlowPosterior(Planar(2), context=3))),
    "iwae": lambda folder: trained(vae, loss=kvae.IWAE(3)),
    "doubly reparameterized": lambda folder: trained(vae, loss=dreg()),
    "warm-up and free bits": lambda folder: trained(vae, loss=warmed_up()),
    "conditional": lambda folder: trained(conditional, (X, LABELS)),
    "hierarchical": lambda folder: trained(hierarchical),
    "vector quantized": lambda folder: trained(vq_vae),
    "pca, covariance": lambda folder: pca("covariance"),
    "pca, randomized": lambda folder: pca("randomized"),
    "from_npy": from_npy,
    "packed": packed,
    "sprites": sprites,
    "steps per execution": lambda folder: grouped(),
    "a step skipped": lambda folder: skipped(),
    "resumed": resumed,
    "measured": lambda folder: measured(),
    "errors": errors,
}


def record(names=None):
    results = {}
    for name in names or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            results[name] = json.loads(json.dumps(SCENARIOS[name](pathlib.Path(folder))))
        keras.backend.clear_session()
        print(name, "recorded", file=sys.stderr)
    return results


def differences(there, here, close, path=""):
    """(path, there, here) of each value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in there | here:
            yield from differences(there.get(name), here.get(name), close, f"{path}/{name}")
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, values in enumerate(zip(there, here, strict=True)):
            yield from differences(*values, close, f"{path}/{index}")
    elif close and all(isinstance(value, str) and value.startswith("sha256:") for value in (there, here)):
        return
    elif close and all(isinstance(value, float) for value in (there, here)):
        if not math.isclose(there, here, rel_tol=1e-6, abs_tol=1e-9) and not (math.isnan(there) and math.isnan(here)):
            yield path, there, here
    elif there != here and not (isinstance(there, float) and isinstance(here, float) and there != there != here):
        yield path, there, here


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "compare"])
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--close", action="store_true", help="compare numbers to 1e-6, and no hashes")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help="leave out the others")
    arguments = parser.parse_args()
    here = record(arguments.only)
    if arguments.action == "record":
        arguments.path.write_text(json.dumps(here, indent=1, ensure_ascii=False) + "\n")
        return 0
    there = json.loads(arguments.path.read_text())
    found = list(differences({name: there[name] for name in here}, here, arguments.close))
    for path, before, now in found:
        print(f"{path}\n  before: {before}\n  now:    {now}")
    print(f"{len(found)} differences in {len(here)} scenarios")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
