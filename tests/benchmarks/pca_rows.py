"""PCA of 100,000,000 rows of 784 uint8 with a known covariance: its eigenvalues, CPU seconds and memory.

python tests/benchmarks/pca_rows.py [--rows 100000000]

A row is the sum of two random rows, each of its own table of 1,024. So the covariance of all possible rows is known,
and so are the fourth moments, which give the sampling errors of the eigenvalues. The rows that were drawn are known as
well, by how often each pair was: the sums of their products are exact, in integers. One process, one BLAS thread. The
CPU seconds of making the rows are measured apart, on the first tenth of them, and taken off.
"""

import argparse
import os
import resource

os.environ.update(OPENBLAS_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np
import scipy.linalg
import tensorflow as tf

import kvae

LATENT_DIM, FEATURES, KINDS, BATCH_SIZE = 10, 784, 1024, 2000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    options = parser.parse_args()
    rows = options.rows // BATCH_SIZE * BATCH_SIZE
    tables = [table(seed) for seed in range(2)]
    kvae.PCA(LATENT_DIM).fit(made(tables, 4 * BATCH_SIZE), verbose=0)  # threads and traces
    tenth = rows // (10 * BATCH_SIZE) * BATCH_SIZE
    making, _ = cpu_seconds(lambda: made(tables, tenth).reduce(0, lambda count, _: count + 1).numpy())
    making *= rows / tenth
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak of the memory starts anew
    before = memory("VmRSS")
    seconds, pca = cpu_seconds(lambda: kvae.PCA(LATENT_DIM).fit(made(tables, rows), verbose=0))
    growth = memory("VmHWM") - before
    print(f"{rows:,} rows: {seconds - making:,.0f} CPU s, and {making:,.0f} of making them; {growth / 1e6:.0f} MB more")
    found = np.asarray(pca.explained_variance) * 255**2

    values, errors = expected(tables, rows)
    print(f"sampling errors from the known eigenvalues, at most: {np.abs((found - values) / errors).max():.2f}")
    values = eigenvalues(of_these_rows(tables, rows))
    relative = np.abs(found / values - 1).max()
    mean_noise = np.asarray(pca.noise_variance) * 255**2
    print(f"relative difference from the rows' own eigenvalues, at most: {relative:.1e}")
    print(f"eigenvalues from {found[0]:,.0f} to {found[-1]:,.0f}, noise {mean_noise:.1f}")


def table(seed):
    """Rows of 20 factors and noise, uint8 up to 127."""
    generator = np.random.default_rng(seed)
    loadings = generator.normal(size=(20, FEATURES)) / np.arange(1, 21)[:, None]
    rows = 64 + 15 * generator.normal(size=(KINDS, 20)) @ loadings + generator.uniform(-12, 12, (KINDS, FEATURES))
    return np.clip(np.rint(rows), 0, 127).astype("uint8")


def drawn(number):
    """The numbers of the two rows for each row of a batch, (BATCH_SIZE, 2)."""
    return tf.random.stateless_uniform((BATCH_SIZE, 2), (0, number), 0, KINDS, tf.int32)


def made(tables, rows):
    """A stream of these rows, the same ones whenever it is read."""

    def batch(number):
        first, second = tf.unstack(drawn(number), axis=1)
        return tf.gather(tables[0], first) + tf.gather(tables[1], second)

    return tf.data.Dataset.range(rows // BATCH_SIZE).map(batch)


def expected(tables, rows):
    """(the largest eigenvalues of the covariance of all possible rows, their sampling errors)."""
    centered = [table - table.mean(axis=0) for table in tables]
    values, vectors = scipy.linalg.eigh(sum(each.T @ each / KINDS for each in centered))
    values, vectors = values[: -LATENT_DIM - 1 : -1], vectors[:, : -LATENT_DIM - 1 : -1]
    scores = [each @ vectors for each in centered]
    cumulants = sum(np.mean(each**4, axis=0) - 3 * np.mean(each**2, axis=0) ** 2 for each in scores)
    return values, np.sqrt((cumulants + 2 * values**2) / rows)


def of_these_rows(tables, rows):
    """The covariance of the rows that were drawn: exact sums of integers, divided once."""
    pairs = np.zeros(KINDS * KINDS, np.int64)
    for number in range(rows // BATCH_SIZE):
        first, second = drawn(number).numpy().T
        np.add.at(pairs, first * KINDS + second, 1)
    pairs = pairs.reshape(KINDS, KINDS)
    first, second = (table.astype(np.int64) for table in tables)
    counts = pairs.sum(axis=1), pairs.sum(axis=0)
    total = counts[0] @ first + counts[1] @ second
    mixed = first.T @ (pairs @ second)
    products = (first.T * counts[0]) @ first + (second.T * counts[1]) @ second + mixed + mixed.T
    mean = total // rows  # an integer near the mean, so that little is lost in the subtraction of the squares
    total = total - rows * mean
    products -= np.outer(mean, total) + np.outer(total, mean) + rows * np.outer(mean, mean)
    return products / rows - np.outer(total / rows, total / rows)


def eigenvalues(covariance):
    return scipy.linalg.eigvalsh(covariance)[: -LATENT_DIM - 1 : -1]


def cpu_seconds(function):
    """(of this process within the call, what it returns)."""
    start = resource.getrusage(resource.RUSAGE_SELF)
    result = function()
    end = resource.getrusage(resource.RUSAGE_SELF)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime, result


def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


if __name__ == "__main__":
    main()
