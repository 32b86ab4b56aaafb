"""Filling gaps: `python tests/benchmarks/missing_values.py [imputation] [steps] [seeds] [memory]`, all without a name.

imputation: scikit-learn's breast_cancer, standardized, with half of the entries hidden, drawn as in the notebook of
MIWAE's authors with numpy's legacy seed 1234. Prints the mean squared error of PCA and VAE with 10 latents in the
hidden entries, and the share of these in the 90 % intervals of 200 draws. The VAE's weight decay was chosen among 1, 2
and 4 by the error in a tenth of the observed entries, hidden from it for that.
steps: CPU seconds of a step with gaps and `missing=True`, against one without, on complete rows: the least of 15 runs,
since other work on the machine adds to them.
seeds: how often log p(x observed) of a linear VAE lies within 1.96 standard errors of the draws, over 100 seeds.
memory: the peak of a PCA of 1,000,000 x 784 with 30 % missing, against that of 50,000 rows. Minutes a pass.
"""

import os
import resource
import subprocess
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

import kvae

LATENTS, HIDDEN, EPOCHS, BATCH, DRAWS = 10, (128, 128), 600, 64, 200


def breast_cancer():
    """(x, x with gaps), standardized."""
    x = load_breast_cancer().data
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    np.random.seed(1234)
    gaps = x.ravel().copy()
    gaps[np.random.choice(x.size, x.size // 2, replace=False)] = np.nan
    return x, gaps.reshape(x.shape)


def networks(features, missing=True, hidden=HIDDEN, latents=LATENTS):
    return (
        kvae.networks.dense_encoder((features,), latents, hidden=hidden, activation="tanh", missing=missing),
        kvae.networks.dense_decoder((features,), latents, hidden=hidden, activation="tanh"),
    )


def trained_vae(gaps, weight_decay=1.0, seed=0):
    keras.utils.set_random_seed(seed)
    likelihood = kvae.GaussianLikelihood("pixel", initial_variance=0.3, min_variance=0.01)
    model = kvae.VAE(*networks(gaps.shape[1]), likelihood, seed=seed, missing=True)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, EPOCHS * -(-len(gaps) // BATCH))
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=weight_decay), loss=kvae.IWAE(20))
    model.fit(gaps.astype("float32"), epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def quality(model, x, gaps, samples=5_000):
    """(mean squared error, share within 90 % intervals) of the hidden entries."""
    found, hidden = model.impute(gaps.astype(model.variable_dtype), draws=DRAWS, samples=samples), np.isnan(gaps)
    low, high = np.quantile(found.draws, [0.05, 0.95], axis=0)
    return np.mean(np.square(found.mean - x)[hidden]), np.mean(((low <= x) & (x <= high))[hidden])


def imputation():
    x, gaps = breast_cancer()
    for name, make in {
        "PCA": lambda: kvae.PCA(LATENTS, missing=True).fit(gaps, verbose=0),
        "PCA, 20 bootstraps": lambda: kvae.PCA(LATENTS, seed=0, missing=True, bootstraps=20).fit(gaps, verbose=0),
        "VAE": lambda: trained_vae(gaps),
    }.items():
        start = time.process_time()
        error, covered = quality(make(), x, gaps)
        print(
            f"{name}: squared error {error:.4f}, {covered:.1%} in 90 % intervals, {time.process_time() - start:.0f} s"
        )


def steps():
    rng = np.random.default_rng(0)
    for features, hidden, loss in ((30, (128, 128), kvae.IWAE(20)), (784, (512, 256), kvae.ELBO())):
        x = rng.normal(size=(128 * 40, features)).astype("float32")
        gaps = np.where(rng.random(x.shape) < 0.3, np.nan, x).astype("float32")
        models = {}
        for missing in (False, True):
            keras.utils.set_random_seed(0)
            models[missing] = kvae.VAE(*networks(features, False, hidden), seed=0, missing=missing)
            models[missing].compile(loss=loss, steps_per_execution=20)
            models[missing].fit(gaps if missing else x, epochs=1, batch_size=128, verbose=0)
        seconds = {False: [], True: []}
        for _ in range(15):  # in turn, since other processes disturb
            for missing, model in models.items():
                start = time.process_time()
                model.fit(gaps if missing else x, epochs=2, batch_size=128, verbose=0)
                seconds[missing].append((time.process_time() - start) / 80)
        plain, masked = (min(seconds[missing]) * 1e3 for missing in (False, True))
        print(f"{features} features: {plain:.2f} ms a step, {masked:.2f} with gaps ({masked / plain - 1:+.1%})")


def seeds(count=100, samples=2_000):
    """q(z|x) is wider than p(z|x observed) and has another mean, so that the weights differ."""
    features, latents, noise = 8, 2, 0.5
    inside = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        weights, bias = rng.normal(size=(features, latents)), rng.normal(size=features)
        keras.utils.set_random_seed(seed)
        model = kvae.VAE(*networks(features, False, (), latents), kvae.GaussianLikelihood(noise), seed=0, missing=True)
        model.decoder.layers[1].set_weights([weights.T, bias])
        z = rng.normal(size=(50, latents))
        x = z @ weights.T + bias + np.sqrt(noise) * rng.normal(size=(50, features))
        x = np.where(rng.random(x.shape) < 0.4, np.nan, x)
        projection = np.linalg.solve(weights.T @ weights + noise * np.eye(latents), weights.T).T
        model.encoder.get_layer("z_mean").set_weights([projection, -bias @ projection])
        model.encoder.get_layer("z_log_var").set_weights([np.zeros((features, latents)), np.full(latents, 0.3)])
        model.fill_in.fill.assign(bias)
        covariance, exact = weights @ weights.T + noise * np.eye(features), []
        for row in x:
            seen = ~np.isnan(row)
            part = scipy.stats.multivariate_normal(bias[seen], covariance[np.ix_(seen, seen)]) if seen.any() else None
            exact.append(0.0 if part is None else part.logpdf(row[seen]))
        found = kvae.evaluation.log_likelihood(model, x.astype("float32"), samples=samples, seed=seed, verbose=0)
        inside += abs(found.mean - found.bias - np.mean(exact)) < 1.96 * found.sampling_error
    print(f"log p(x observed) within 1.96 standard errors of the draws in {inside} of {count} seeds")


def rows_with_gaps(count, features=784, batch=4096, missing=0.3):
    """A stream of rows of 20 factors and noise, made as they are read."""
    weights = tf.constant(np.random.default_rng(0).normal(size=(20, features)), tf.float32)

    def make(number):
        def drawn(*shape, key):
            return tf.random.stateless_normal(shape, [number, key])

        x = drawn(batch, 20, key=0) @ weights + drawn(batch, features, key=1)
        hidden = tf.random.stateless_uniform((batch, features), [number, 2]) < missing
        return tf.where(hidden, np.float32(np.nan), x)[: tf.minimum(count - number * batch, batch)]

    return tf.data.Dataset.range(-(-count // batch)).map(lambda n: make(tf.cast(n, tf.int32)))


def memory():
    if len(sys.argv) == 3:
        start = time.process_time()
        warnings.simplefilter("ignore")  # of passes that don't suffice
        kvae.PCA(10, missing=True, max_passes=2, seed=0).fit(rows_with_gaps(int(sys.argv[2])), verbose=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{int(sys.argv[2]):,} rows: {peak:.0f} MB at most, {time.process_time() - start:.0f} CPU s", flush=True)
        return
    for count in (50_000, 1_000_000):
        subprocess.run([sys.executable, __file__, "memory", str(count)], check=True)


def main():
    parts = {"imputation": imputation, "steps": steps, "seeds": seeds, "memory": memory}
    for name in [name for name in sys.argv[1:] if not name.isdigit()] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
