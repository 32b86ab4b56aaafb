"""Odd rows of ADBench's tables: `python tests/benchmarks/anomalies.py FOLDER [--out FILE] [--seeds 3] [NAME ...]`.

FOLDER holds ADBench's "Classical" .npz files with X and y, 1 for an anomaly. `RandomState(0)` permutes a set's rows, of
which at most 12,000 are taken. Half of the normal rows train; the rest and all anomalies test. Columns are standardized
by the training rows. One setting serves all sets. The AUROC is that of -log p(x), or of the other methods' scores.
CPU seconds are those of fit and scores together, and the peak is the memory beyond that before the fit.

False alarms: where the training rows are 400 or more, a quarter of them calibrate a threshold of 1 %, the model is
fitted to the others, and the normal test rows below the threshold are counted.

With --draws it prints the VAE's AUROC by the number of draws of a score, of seed 0, and nothing else.

Results are written to FILE (JSON) after each set, and a set in FILE isn't measured again.
"""

import argparse
import json
import os
import pathlib
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import kvae

ROWS, MOST_FEATURES, LEAST_ANOMALIES = 12_000, 400, 5
RATE, CALIBRATION, LEAST_TRAINING = 0.01, 0.25, 400
SETTINGS = {
    "latent_dim": 8,
    "hidden": (128, 128),
    "activation": "tanh",
    "min_variance": 0.01,
    "weight_decay": 1.0,
    "learning_rate": 2e-3,
    "batch_size": 128,
    "steps": 2_000,
    "samples": 50,
    "neighbors": 5,
}


def read(path):
    """(training rows, test rows, labels of these), or None for a set that isn't among those measured."""
    with np.load(path) as file:
        x, y = file["X"].astype("float64"), file["y"]
    order = np.random.RandomState(0).permutation(len(x))[:ROWS]
    x, y = x[order], y[order]
    if y.sum() < LEAST_ANOMALIES or x.shape[1] > MOST_FEATURES:
        return None
    normal = np.flatnonzero(y == 0)
    chosen = np.zeros(len(x), bool)
    chosen[normal[: len(normal) // 2]] = True
    train = x[chosen]
    scale = train.std(axis=0)
    x = ((x - train.mean(axis=0)) / np.where(scale > 0, scale, 1.0)).astype("float32")
    return x[chosen], x[~chosen], y[~chosen]


def networks(features, settings, outputs=1):
    options = {"hidden": settings["hidden"], "activation": settings["activation"]}
    latent_dim = min(settings["latent_dim"], features)
    return (
        kvae.networks.dense_encoder((features,), latent_dim, **options),
        kvae.networks.dense_decoder((features,), latent_dim, outputs=outputs, **options),
    )


def trained(model, train, seed, settings):
    epochs = -(-settings["steps"] // -(-len(train) // settings["batch_size"]))
    schedule = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], settings["steps"])
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=settings["weight_decay"]))
    model.fit(train, epochs=epochs, batch_size=settings["batch_size"], verbose=0)
    return model


def vae(train, seed, settings):
    likelihood = kvae.GaussianLikelihood("pixel", initial_variance=0.3, min_variance=settings["min_variance"])
    model = trained(kvae.VAE(*networks(train.shape[1], settings), likelihood, seed=seed), train, seed, settings)
    return lambda x, samples=settings["samples"]: -model.score_samples(x, samples)


def autoencoder(train, seed, settings):
    model = trained(kvae.Autoencoder(*networks(train.shape[1], settings)), train, seed, settings)
    return lambda x: -model.score_samples(x)


def ppca(train, seed, settings):
    model = kvae.PCA(max(1, min(settings["latent_dim"], train.shape[1] - 1)), seed=seed).fit(train, verbose=0)
    return lambda x: -model.score_samples(x)


def isolation_forest(train, seed, settings):
    model = IsolationForest(random_state=seed).fit(train)
    return lambda x: -model.score_samples(x)


def neighbors(train, seed, settings):
    model = NearestNeighbors(n_neighbors=settings["neighbors"]).fit(train)
    return lambda x: model.kneighbors(x)[0][:, -1]


METHODS = {
    "VAE": vae,
    "PPCA": ppca,
    "Autoencoder": autoencoder,
    "IsolationForest": isolation_forest,
    "kNN": neighbors,
}
RANDOM = "VAE", "Autoencoder", "IsolationForest"  # what a seed changes
CALIBRATED = "VAE", "PPCA"


def peak_memory():
    """A function that tells the most megabytes since now, beyond those of now."""
    status = pathlib.Path("/proc/self/status")

    def megabytes(name):
        return int(next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1]) / 1024

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = megabytes("VmRSS")
    return lambda: megabytes("VmHWM") - before


def measure(path, seeds, settings=SETTINGS, methods=tuple(METHODS)):
    """{method: {measure: numbers, a seed each}} of a set, or None."""
    data = read(path)
    if data is None:
        return None
    train, test, y = data
    found = {"rows": [len(train), len(test)], "features": train.shape[1], "anomalies": int(y.sum())}
    for name in methods:
        numbers = {"auroc": [], "cpu": [], "peak": []}
        for seed in range(seeds if name in RANDOM else 1):
            keras.utils.set_random_seed(seed)
            peak, start = peak_memory(), time.process_time()
            odd = METHODS[name](train, seed, settings)(test)
            numbers["cpu"].append(time.process_time() - start)
            numbers["peak"].append(peak())
            numbers["auroc"].append(float(roc_auc_score(y, odd)))
        if name in CALIBRATED and len(train) >= LEAST_TRAINING:
            numbers["false_alarms"] = [false_alarms(METHODS[name], train, test[y == 0], settings)]
        found[name] = numbers
    return found


def draws(paths, counts=(1, 2, 3, 10, 50)):
    """Prints the VAE's AUROC of seed 0 by the number of draws of a score: means over the sets."""
    found = []
    for path in paths:
        data = read(path)
        if data is not None:
            keras.utils.set_random_seed(0)
            score = vae(data[0], 0, SETTINGS)
            found.append([roc_auc_score(data[2], score(data[1], count)) for count in counts])
            print(path.stem, np.round(found[-1], 4), flush=True)
    print(f"{len(found)} sets:", dict(zip(counts, np.mean(found, axis=0).round(4), strict=True)))


def false_alarms(method, train, normal, settings):
    count = int(CALIBRATION * len(train))
    keras.utils.set_random_seed(0)
    odd = method(train[count:], 0, settings)
    return float(kvae.evaluation.threshold(-odd(train[:count]), RATE).is_odd(-odd(normal)).mean())


def table(results):
    """The means over the sets, as Markdown."""
    lines = ["| | AUROC | CPU seconds | peak MB | false alarms at 1 % |", "| --- | --- | --- | --- | --- |"]
    for name in METHODS:
        each = [found[name] for found in results.values() if name in found]
        if not each:
            continue
        means = [np.mean([np.mean(numbers[key]) for numbers in each]) for key in ("auroc", "cpu", "peak")]
        alarms = [numbers["false_alarms"][0] for numbers in each if "false_alarms" in numbers]
        alarms = f"{np.mean(alarms):.2%}" if alarms else ""
        lines.append(f"| {name} | {means[0]:.3f} | {means[1]:.1f} | {means[2]:.0f} | {alarms} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="parts of the names of the sets to measure; all without")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("anomalies.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", action="store_true", help="the VAE's AUROC by the number of draws, of seed 0")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of columns that are constant, and of scales
    paths = sorted(options.folder.glob("*.npz"), key=lambda path: int(path.stem.split("_")[0]))
    paths = [path for path in paths if not options.names or any(name in path.stem for name in options.names)]
    if options.draws:
        draws(paths)
        return
    record = json.loads(options.out.read_text()) if options.out.exists() else {}
    if record.get("settings", json.loads(json.dumps(SETTINGS))) != json.loads(json.dumps(SETTINGS)):
        parser.error(f"{options.out} was measured with other settings: give another --out")
    results = record.get("sets", {})
    for path in paths:
        if path.stem in results:
            continue
        found = measure(path, options.seeds)
        if found is None:
            continue
        results[path.stem] = found
        options.out.write_text(json.dumps({"settings": SETTINGS, "seeds": options.seeds, "sets": results}, indent=1))
        scores = {name: round(float(np.mean(found[name]["auroc"])), 3) for name in METHODS}
        print(path.stem, scores, flush=True)
    print(f"\n{len(results)} sets\n\n{table(results)}")


if __name__ == "__main__":
    main()
