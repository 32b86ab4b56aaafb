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

import kvae
from kvae import replicas


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
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="Adam's, decaying to 0 by a cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes on this machine that train together; over several machines, set TF_CONFIG on each instead",
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("kvae-run"), help="folder for results")
    parser.add_argument("--version", action="version", version=f"kvae {kvae.__version__}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the main job, as `python -m kvae` does, with the options `argv`, or those of the command line."""
    options = parse(argv)
    strategy = replicas.strategy()
    workers = max(options.workers, replicas.workers(strategy))
    if options.batch_size % workers:
        sys.exit(f"--batch-size is {options.batch_size}, expected a multiple of the {workers} workers")
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
            schedule: Any = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps * options.epochs)
            with strategy.scope():
                model.compile(kvae.optimizers.Adam(schedule))
            history = model.fit(train, validation_data=validation, epochs=options.epochs)
        seconds[name] = time.perf_counter() - started

    results = kvae.evaluation.compare(models, test)
    with replicas.first_alone(strategy, "write the results") as is_first:  # a worker that left would end all others
        if is_first:
            _write_results(models, results, seconds, history, test, options)


def _write_results(models, results, seconds, history, test, options):
    print(_table(results, seconds))
    for name, model in models.items():
        model.save(options.output / f"{name.lower()}.keras", overwrite=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2))
    _save_plots(models, results, history, test, options.output)
    print(f"\nModels and pictures are in {options.output.resolve()}")


def _load(options):
    """Streams of the training, validation and test images."""
    sprites = {"size": options.size, "examples": options.examples} if options.data == "sprites" else {}
    return kvae.data.load(options.data, options.batch_size, seed=options.seed, data_dir=options.data_dir, **sprites)


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
    return [{**os.environ, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def _models(shape, options):
    """PCA, an autoencoder and a VAE of equal code size."""

    def networks():
        return (
            kvae.networks.conv_encoder(shape, options.latent_dim),
            kvae.networks.conv_decoder(shape, options.latent_dim),
        )

    return {
        "PCA": kvae.PCA(options.latent_dim, seed=options.seed),
        "Autoencoder": kvae.Autoencoder(*networks()),
        "VAE": kvae.VAE(*networks(), likelihood=kvae.GaussianLikelihood(), seed=options.seed),
    }


def _save_plots(models, results, history, test, folder):
    def save(ax, name):
        ax.figure.savefig(folder / name, dpi=150, bbox_inches="tight")

    save(kvae.plots.comparison(results, models["VAE"].latent_dim), "comparison.png")
    save(kvae.plots.reconstructions(models, test), "reconstructions.png")
    save(kvae.plots.samples(models["VAE"]), "samples.png")
    save(kvae.plots.traversals(models["VAE"], test), "traversals.png")
    save(kvae.plots.history(history), "history.png")
    if models["VAE"].latent_dim == 2:
        save(kvae.plots.manifold(models["VAE"]), "manifold.png")


def _table(results, seconds):
    """The results as lines of text."""
    lines = [
        "\nOn held-out images (squared error and nats are per image)",
        f"{'model':<12} {'squared error':>14} {'log p(x)':>14} {'KL':>8} {'training':>10}",
    ]
    for name, numbers in results.items():
        density = f"{numbers['log_likelihood']:.1f}" if "log_likelihood" in numbers else "none"
        density = f">= {numbers['elbo']:.1f}" if "elbo" in numbers else density
        divergence = f"{numbers['kl_loss']:.1f}" if "kl_loss" in numbers else ""
        lines.append(
            f"{name:<12} {numbers['squared_error']:>14.2f} {density:>14} {divergence:>8} {seconds[name]:>8.0f} s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
