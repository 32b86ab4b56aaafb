"""The main job: stream images from disk, fit PCA, an autoencoder and a VAE, compare, save and draw them."""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

import keras
import matplotlib
import numpy as np

import kvae
from kvae import replicas
from kvae.data.sprites import FACTORS
from kvae.evaluation import factor_information, factor_scores

ATTRIBUTES = "x", "y", "scale", "hue"  # one number each, of any image
SCORED = "x", "y", "scale"
SAMPLES = 100  # images of each model
_SPRITE_NOTES = """
samples: mean squared distance of 100 new images to the nearest possible sprite (of the VAE's reconstructions: {:.2f});
  the autoencoder's come from a normal fitted to its codes
attributes: mutual information gap over x, y and scale, 1 if each has a latent of its own"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options on the command line, or in `argv`."""
    parser = argparse.ArgumentParser(
        prog="python -m kvae",
        description="Stream images from disk through tf.data, fit PCA, an autoencoder and a VAE of equal code size on "
        "the same stream, print their numbers on held-out data, and write the models and pictures to a folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", default="sprites", help="sprites, or any image set of tensorflow-datasets")
    parser.add_argument("--data-dir", help="where tensorflow-datasets keeps its sets (default: its own folder)")
    parser.add_argument("--examples", type=int, default=20_000, help="of sprites, in the training split")
    parser.add_argument("--size", type=int, default=32, help="of sprites, pixels a side")
    parser.add_argument("--latent-dim", type=int, default=10, help="numbers in a code")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="Adam's, decaying to 0 by a cosine")
    parser.add_argument("--components", type=int, default=300, help="Gaussians in the VAE's learned prior")
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="train the VAE on pairs of sprites that differ in one attribute, not told which, for half the epochs, so "
        "that attributes find latents of their own",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes on this machine that train together; over several machines, set TF_CONFIG on each instead",
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("kvae-run"), help="folder for results")
    parser.add_argument("--version", action="version", version=f"kvae {kvae.__version__}")
    options = parser.parse_args(argv)
    if options.pairs and options.data != "sprites":
        parser.error(f"--pairs is for sprites, of which kvae draws pairs, and the data are {options.data}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the main job, as `python -m kvae` does, with the options `argv`, or those of the command line."""
    options = parse(argv)
    strategy = replicas.strategy()
    workers = max(options.workers, replicas.workers(strategy))
    if options.workers > 1 and "TF_CONFIG" not in os.environ:
        _load(options)  # prepares the data once, before the workers need them
        return _start_workers(options.workers, sys.argv[1:] if argv is None else argv)
    matplotlib.use("Agg")
    options.output.mkdir(parents=True, exist_ok=True)  # fails before the training, not after it
    train, validation, test = _load(options)
    shape = kvae.data.image_shape(train)
    steps = int(train.cardinality())
    print(f"\n{options.data}: images of {shape}, {steps} training batches of {options.batch_size}, from disk")

    keras.utils.set_random_seed(options.seed)
    seconds, history = {}, None
    with strategy.scope():
        models = _models(shape, options)
    for name, model in models.items():
        print(f"\n{name}")
        started = time.perf_counter()
        if name == "PCA":
            model.fit(train)
        else:
            data, epochs = (train, validation), options.epochs
            if name == "VAE" and options.pairs:  # two images an example
                data = _load(options, "partner", max(1, options.batch_size // 2))[:2]
                epochs = max(1, options.epochs // 2)
            schedule: Any = keras.optimizers.schedules.CosineDecay(options.learning_rate, len(data[0]) * epochs)
            with strategy.scope():
                loss = {"loss": _objective(options, steps)} if name == "VAE" else {}
                model.compile(kvae.optimizers.Adam(schedule), **loss)
            history = model.fit(data[0], validation_data=data[1], epochs=epochs)
        seconds[name] = time.perf_counter() - started

    with replicas.first_alone(strategy, "write the results") as is_first:  # a worker that left would end all others
        if is_first:
            if workers > 1:  # the others don't evaluate
                models = {name: _plain(model, options.output) for name, model in models.items()}
            _write_results(models, seconds, history, (train, test), options)


def _plain(model, folder):
    """A copy of a model outside of the workers' strategy."""
    model.save(folder / "copy.keras", overwrite=True)
    copy = kvae.load(folder / "copy.keras")
    for path in folder.glob("copy.*"):
        path.unlink()
    return copy


def _write_results(models, seconds, history, data, options):
    train, test = data
    started = time.perf_counter()
    prior = kvae.MixtureOfGaussians(options.components, covariance="full")
    plain, models["VAE"] = models["VAE"], kvae.fit_prior(models["VAE"], train, prior, seed=options.seed)
    seconds["VAE"] += time.perf_counter() - started
    compared = {**models, "VAE": plain, "VAE, learned prior": models["VAE"]}
    results = kvae.evaluation.compare(compared, test)
    samples = {name: _samples(model, train, options.seed) for name, model in compared.items()}
    names = None
    if options.data == "sprites":
        names = _add_sprite_numbers(results, compared, samples, options)
    print(_table(results, seconds))
    for name, model in models.items():
        model.save(options.output / f"{name.lower()}.keras", overwrite=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2))
    _save_plots(models, results, samples, names, history, test, options.output)
    print(f"\nModels and pictures are in {options.output.resolve()}")


def _samples(model, train, seed):
    """Images that a model makes: from its density, or of an autoencoder from a normal fitted to its codes."""
    if hasattr(model, "sample"):
        return model.sample(SAMPLES, seed=seed)
    codes = model.transform(train)
    z = np.random.default_rng(seed).multivariate_normal(np.mean(codes, axis=0), np.cov(codes.T), SAMPLES)
    return model.inverse_transform(z.astype(codes.dtype))


def _add_sprite_numbers(results, models, samples, options):
    """Add distances and attribute scores to the results. Returns {latent: label} of the VAE's attributes, or None."""
    test: Any = _load(options, labels=list(FACTORS))[2]
    images, factors = next(test.rebatch(2_000).as_numpy_iterator())
    found = {}
    for name, model in models.items():
        found[name] = _information(model.transform(images), factors)
        results[name]["attribute_score"] = factor_scores.gap(np.stack([found[name][factor] for factor in SCORED]))
        results[name]["attributes"] = {factor: np.round(row, 3).tolist() for factor, row in found[name].items()}
    searched = [*samples.values(), models["VAE"].reconstruct(images[:SAMPLES])]
    errors = kvae.evaluation.nearest_sprites(np.concatenate(searched))[1]
    *distances, reconstructed = np.split(errors, np.cumsum([len(each) for each in searched])[:-1])
    for row, distance in zip(results.values(), distances, strict=True):
        row["sample_distance"] = float(np.mean(distance))
    results["VAE"]["reconstruction_distance"] = float(np.mean(reconstructed))
    return _labels(found["VAE"]) or None


def _information(codes, factors):
    """{factor: shares of its entropy that the latents tell, (latents,)}, from the codes (n, latents) of images."""
    columns = factor_information.columns(factors, FACTORS)
    active = np.ptp(codes, axis=0) > 0
    found = factor_information.Information(columns, codes.astype(np.float64), active, np.random.default_rng(0))
    return dict(zip(FACTORS, found.share, strict=True))


def _labels(information):
    """{latent: label}: the latents that tell most of an attribute, each with its attributes and their share."""
    labels = {}
    for factor in ATTRIBUTES:
        latent, share = int(np.argmax(information[factor])), np.max(information[factor])
        if share > 0:
            labels.setdefault(latent, []).append(f"{factor} {share:.0%}")
    return {latent: "\n".join([*found, f"z{latent}"]) for latent, found in labels.items()}


def _load(options, labels=None, batch_size=None):
    """Streams of the training, validation and test images."""
    names = ("size", "examples", "pairs") if options.data == "sprites" else ()
    sprites = {name: getattr(options, name) for name in names}
    settings = {"seed": options.seed, "data_dir": options.data_dir, "labels": labels}
    return kvae.data.load(options.data, batch_size or options.batch_size, **settings, **sprites)


def _start_workers(count, argv):
    """Run this job in `count` processes that train together. Only the first one prints."""
    command = [sys.executable, "-m", "kvae", *argv]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL if number else None)
        for number, environment in enumerate(_environments(count))
    ]
    try:
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        sys.exit(1)


def _environments(count):
    """Environments of `count` processes on this machine, each with a TF_CONFIG of all of them, at free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        cluster = {"worker": [f"localhost:{each.getsockname()[1]}" for each in sockets]}
    tasks = [{"type": "worker", "index": number} for number in range(count)]
    others = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}  # without TensorFlow's words on each end of data
    return [{**others, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def _models(shape, options):
    """PCA, an autoencoder and a VAE of equal code size."""
    filters = (16, 32, *[64] * (kvae.networks.halvings(shape) - 2))  # half of the default in the first two layers
    sizes = shape, options.latent_dim, filters[: kvae.networks.halvings(shape)]

    def networks():
        return kvae.networks.conv_encoder(*sizes), kvae.networks.conv_decoder(*sizes)

    return {
        "PCA": kvae.PCA(options.latent_dim, seed=options.seed),
        "Autoencoder": kvae.Autoencoder(*networks()),
        "VAE": (kvae.AdaGVAE if options.pairs else kvae.VAE)(*networks(), seed=options.seed),
    }


def _objective(options, steps):
    """The ELBO with a heavier total correlation at first, so that attributes find latents of their own.

    Its weight falls from 60 to 10. Codes of independent latents are also nearer to the prior: the KL is smaller. Pairs
    need no such weight.
    """
    if options.pairs:
        return kvae.ELBO()
    fall = keras.optimizers.schedules.PolynomialDecay(60.0, steps * options.epochs, 10.0, power=2)
    return kvae.BetaTCVAE(max(2, steps * options.batch_size), beta=fall)


def _save_plots(models, results, samples, names, history, test, folder):
    def save(figure, name):
        figure.savefig(folder / name, dpi=150, bbox_inches="tight")

    vae = models["VAE"]
    labels = {f"{name}\nerror {results[name]['squared_error']:.1f}": model for name, model in models.items()}
    titles = {
        "Autoencoder": "New images, autoencoder: codes from a fitted normal",
        "VAE, learned prior": "New images, VAE: codes from its prior",
    }
    pairs = {}
    for name, title in titles.items():
        distance = results[name].get("sample_distance")
        pairs[title if distance is None else f"{title}\n{distance:.1f} from the nearest sprite"] = samples[name]
    save(kvae.plots.overview(labels, test, pairs, names), "comparison.png")
    save(kvae.plots.reconstructions(models, test).figure, "reconstructions.png")
    save(kvae.plots.samples(vae).figure, "samples.png")
    save(kvae.plots.traversals(vae, test, names=names).figure, "traversals.png")
    save(kvae.plots.history(history).figure, "history.png")
    if vae.latent_dim == 2:
        save(kvae.plots.manifold(vae, test).figure, "manifold.png")


def _table(results, seconds):
    """The results as lines of text."""
    columns = {
        "model": 19,
        "squared error": 14,
        "log p(x)": 10,
        "KL": 6,
        "samples": 9,
        "attributes": 11,
        "training": 10,
    }
    shown = {"samples": "sample_distance", "attributes": "attribute_score"}
    shown = {column: key for column, key in shown.items() if key in results["VAE"]}
    columns = {name: width for name, width in columns.items() if name in shown or name not in ("samples", "attributes")}
    lines = ["".join(f"{name:<{width}}" if name == "model" else f"{name:>{width}}" for name, width in columns.items())]
    for name, numbers in results.items():
        density = f"{numbers['log_likelihood']:.1f}" if "log_likelihood" in numbers else "none"
        cells = {
            "model": name,
            "squared error": f"{numbers['squared_error']:.2f}",
            "log p(x)": f">{numbers['elbo']:.1f}" if "elbo" in numbers else density,
            "KL": f"{numbers['kl_loss']:.1f}" if "kl_loss" in numbers else "",
            "training": f"{seconds[name]:.0f} s" if name in seconds else "",
            **{column: f"{numbers[key]:.2f}" for column, key in shown.items()},
        }
        lines.append(
            "".join(f"{cells[n]:<{width}}" if n == "model" else f"{cells[n]:>{width}}" for n, width in columns.items())
        )
    notes = ["\nOn held-out images (squared error and nats are per image; > is a lower bound)\n"]
    if shown:
        notes.append(_SPRITE_NOTES.format(results["VAE"]["reconstruction_distance"]))
    return "\n".join([notes[0], *lines, *notes[1:]])


if __name__ == "__main__":
    main()
