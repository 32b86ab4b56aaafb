"""dSprites under the protocol of the papers on disentanglement: a VAE, a beta-VAE, a beta-TCVAE and a FactorVAE.

    python tests/benchmarks/disentangled_dsprites.py speed MODEL --dsprites FILE
    python tests/benchmarks/disentangled_dsprites.py train MODEL --dsprites FILE --runs RUNS --steps 300000
    python tests/benchmarks/disentangled_dsprites.py measure MODEL --dsprites FILE --runs RUNS
    python tests/benchmarks/disentangled_dsprites.py table

`train` goes on where it was stopped, also to more steps than it was first given. `measure` takes the last weights of
`train`, writes settings, curve and scores to tests/benchmarks/published/disentanglement/MODEL-SEED.json, and `table`
prints those. FILE is the data set's dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz, or its images alone, as
np.packbits(images.reshape(737280, 4096), axis=1) in a .npy or .npy.xz. No image is held out, as in the papers.

The protocol (Locatello et al. 2019, appendix; Kim and Mnih 2018; Chen et al. 2018): 737,280 binary images of 64x64;
four convolutions of 4x4 with stride 2 and 32, 32, 64 and 64 filters, a dense layer of 256 units, 10 latents, and the
same the other way; Bernoulli likelihood; Adam at 1e-4, batches of 64, 300,000 steps. The discriminator has six layers
of 1,000 units and Adam(1e-4, beta_1=0.5, beta_2=0.9). The scores are of the posterior means of 10,000 images at random.
"""

import argparse
import json
import lzma
import pathlib
import resource
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import kvae

HERE = pathlib.Path(__file__).parent / "published" / "disentanglement"
SIZES = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
IMAGES, SHAPE, LATENTS = 737_280, (64, 64, 1), 10
BATCH, LEARNING_RATE, STEPS_OF_AN_EPOCH = 64, 1e-4, 1_000
ROWS = 10_000
LOSSES = {
    "vae": lambda: kvae.ELBO(),
    "beta-vae": lambda: kvae.ELBO(beta=4.0),
    "beta-tcvae": lambda: kvae.BetaTCVAE(IMAGES, beta=6.0),
    "factor-vae": lambda: kvae.ELBO(),
}
GAMMA = 35.0  # of the FactorVAE


def networks():
    x, z = layers.Input(SHAPE), layers.Input((LATENTS,))
    h = x
    for filters in (32, 32, 64, 64):
        h = layers.Conv2D(filters, 4, 2, "same", activation="relu")(h)
    h = layers.Dense(256, "relu")(layers.Flatten()(h))
    encoder = keras.Model(x, [layers.Dense(LATENTS)(h), layers.Dense(LATENTS)(h)])
    h = layers.Dense(4 * 4 * 64, "relu")(layers.Dense(256, "relu")(z))
    h = layers.Reshape((4, 4, 64))(h)
    for filters in (64, 32, 32):
        h = layers.Conv2DTranspose(filters, 4, 2, "same", activation="relu")(h)
    return encoder, keras.Model(z, layers.Conv2DTranspose(1, 4, 2, "same")(h))


def new_model(name, seed):
    keras.utils.set_random_seed(seed)
    options = {"likelihood": kvae.BernoulliLikelihood(), "seed": seed}
    adam = kvae.optimizers.Adam(LEARNING_RATE)
    if name == "factor-vae":
        model = kvae.FactorVAE(*networks(), kvae.networks.dense_discriminator(LATENTS), **options)
        model.compile(adam, loss=LOSSES[name](), gamma=GAMMA)
    else:
        model = kvae.VAE(*networks(), **options)
        model.compile(adam, loss=LOSSES[name]())
    return model


def packed_images(path):
    """(737280, 512) uint8, eight pixels a byte."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            images = file["imgs"]
        parts = np.array_split(images, 90)
        return np.concatenate([np.packbits(part.reshape(len(part), -1), axis=1) for part in parts])
    with lzma.open(path) if path.suffix == ".xz" else open(path, "rb") as file:
        return np.load(file)


def unpacked(rows):
    """float32 images (n, 64, 64, 1) of zeros and ones."""
    bits = tf.bitwise.right_shift(rows[..., None], tf.constant([7, 6, 5, 4, 3, 2, 1, 0], "uint8"))
    return tf.reshape(tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(1, "uint8")), "float32"), (-1, *SHAPE))


def stream(packed, seed=0):
    """All images in an order of its own each epoch."""
    packed, steps = tf.constant(packed), len(packed) // BATCH

    def batches(epoch, skip, shard_index, num_shards):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(packed)), [seed, epoch])

        def batch(step):
            rows = order[step * BATCH : (step + 1) * BATCH][shard_index::num_shards]
            return unpacked(tf.gather(packed, rows))

        return tf.data.Dataset.range(skip, steps).map(batch, num_parallel_calls=2)

    return kvae.data.Stream(batches, num_batches=steps, seed=seed)


def factors_of(rows):
    """{name: class numbers (n,)} of the images with these positions."""
    return dict(zip(SIZES, np.unravel_index(rows, tuple(SIZES.values())), strict=True))


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def speed(name, seed, dsprites, steps=100):
    """CPU seconds a step, in both precisions, after as many steps that aren't counted."""
    data = stream(packed_images(dsprites), seed)
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        model = new_model(name, seed)
        model.fit(data, steps_per_epoch=steps, verbose=0)
        before, clock = cpu_seconds(), time.perf_counter()
        model.fit(data, steps_per_epoch=steps, verbose=0)
        cpu, seconds = (cpu_seconds() - before) / steps, (time.perf_counter() - clock) / steps
        print(f"{name}, {policy}: {cpu:.3f} CPU seconds a step, {seconds:.3f} seconds by the clock", flush=True)


def train(name, seed, dsprites, runs, steps):
    run = runs / f"{name}-{seed}"
    model = new_model(name, seed)
    checkpoint = kvae.callbacks.Checkpoint(run / "checkpoint", save_every=STEPS_OF_AN_EPOCH)
    started = cpu_seconds()
    history = model.fit(
        stream(packed_images(dsprites), seed),
        steps_per_epoch=STEPS_OF_AN_EPOCH,
        epochs=steps // STEPS_OF_AN_EPOCH,
        callbacks=[checkpoint],
        verbose=2,
    ).history
    model.save(run / "last.keras", overwrite=True)
    curve = {key: [round(value, 3) for value in values] for key, values in history.items()}
    (run / "curve.json").write_text(json.dumps({"curve": curve, "cpu_seconds": round(cpu_seconds() - started)}))


def measure(name, seed, dsprites, runs):
    run = runs / f"{name}-{seed}"
    model = kvae.load(run / "last.keras")
    rows = np.sort(np.random.default_rng(0).choice(IMAGES, ROWS, replace=False))
    x = np.asarray(unpacked(tf.constant(packed_images(dsprites)[rows])))
    numbers = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    aggregate = kvae.evaluation.aggregate_posterior(model, x, components=2_000)
    turns = {0: 39 / 4, 1: 39 / 2, 2: 39}  # of squares, ellipses and hearts: the first and last of 40 angles are equal
    kinds = {
        "shape": "categorical",
        "orientation": kvae.data.Factor("periodic", period=turns, given="shape"),
        **dict.fromkeys(("scale", "x", "y"), "ordered"),
    }
    found = kvae.evaluation.disentanglement(model.transform(x), factors_of(rows), kinds)
    result = {
        "model": name,
        "seed": seed,
        "steps": int(model.optimizer.iterations),
        "scores": {score: list(values) for score, values in found.scores.items()},
        "columns_of_scores": ["from ranks", "standard error", "as published"],
        "information": np.round(found.information, 4).tolist(),
        "numbers": {key: round(value, 3) for key, value in numbers.items()},
        "mutual_information": round(float(np.mean(aggregate.mutual_information)), 3),
        "total_correlation": round(float(np.mean(aggregate.total_correlation)), 3),
        "active_latents": int(found.active.sum()),
        "settings": {
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "rows": ROWS,
            "factors": {factor: str(kind) for factor, kind in kinds.items()},
            "compile": model.get_compile_config(),
        },
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        **json.loads((run / "curve.json").read_text()),
    }
    HERE.mkdir(parents=True, exist_ok=True)
    (HERE / f"{name}-{seed}.json").write_text(json.dumps(result))
    print(found)


def table():
    names = "MIG", "SAP", "DCI disentanglement", "FactorVAE", "beta-VAE"
    print("| model | seed | steps | ELBO | KL | total correlation |", *(f"{name} |" for name in names))
    print("| --- | --- | --- | --- | --- | --- |", *["--- |"] * len(names))
    for path in sorted(HERE.glob("*.json")):
        run = json.loads(path.read_text())
        numbers = run["numbers"]
        scores = [f"{run['scores'][name][0]:.2f} ({run['scores'][name][2]:.2f}) |" for name in names]
        print(f"| {run['model']} | {run['seed']} | {run['steps']:,} |", end=" ")
        print(f"{numbers['elbo']:.2f} | {numbers['kl_loss']:.2f} | {run['total_correlation']:.2f} |", *scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("speed", "train", "measure"):
        arguments = commands.add_parser(command)
        arguments.add_argument("name", choices=list(LOSSES), metavar="MODEL", help=", ".join(LOSSES))
        arguments.add_argument("--dsprites", type=pathlib.Path, required=True, help="the data set's file")
        arguments.add_argument("--seed", type=int, default=0)
        if command != "speed":
            arguments.add_argument(
                "--runs", type=pathlib.Path, required=True, help="a folder for what it takes to go on"
            )
    commands.choices["train"].add_argument("--steps", type=int, default=300_000, help="in all, a multiple of 1,000")
    commands.choices["train"].add_argument("--policy", default="float32", help="or mixed_bfloat16")
    commands.add_parser("table")
    options = vars(parser.parse_args())
    command = {"speed": speed, "train": train, "measure": measure, "table": table}[options.pop("command")]
    keras.config.set_dtype_policy(options.pop("policy", "float32"))
    command(**options)


if __name__ == "__main__":
    main()
