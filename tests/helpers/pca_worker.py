"""One of the processes of `test_shared_pca.py`: python pca_worker.py FOLDER, under a TF_CONFIG, or alone."""

import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import kvae
from kvae.data.arrays import from_arrays
from kvae.data.packed.blocks import BlockReader

ROWS, BATCH_SIZE = 10_017, 100


class Counted:
    """An array that counts the rows that are read of it."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.rows = x, x.shape, x.dtype, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        found = self.x[index]
        self.rows += len(found)
        return found


def images():
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(ROWS, 4)) @ (40 * generator.normal(size=(4, 30)))
    return np.clip(128 + factors + 9 * generator.normal(size=(ROWS, 30)), 0, 255).astype("uint8")


def with_gaps():
    x = images() / np.float32(255)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    return x


def numbers(pca):
    return np.concatenate([np.ravel(w) for w in (pca.mean, pca.explained_variance, pca.noise_variance, pca.components)])


def main(folder):
    strategy = kvae.replicas.strategy()
    worker = strategy.cluster_resolver.task_id if strategy.cluster_resolver else 0
    results = {}

    def pca(**arguments):
        with strategy.scope():
            return kvae.PCA(4, seed=0, **arguments)

    def stream(x):
        def read(number):
            return x[int(number) * BATCH_SIZE : (int(number) + 1) * BATCH_SIZE]

        def batches(epoch, skip, shard_index, num_shards):
            numbers = tf.data.Dataset.range(skip, -(-ROWS // BATCH_SIZE))
            return numbers.map(lambda n: tf.ensure_shape(tf.numpy_function(read, [n], x.dtype), (None, 30)))

        return kvae.data.Stream(batches, -(-ROWS // BATCH_SIZE))

    read = []
    original = BlockReader._read
    BlockReader._read = lambda self, blocks: read.append(original(self, blocks)) or read[-1]
    packed = kvae.data.load(folder / "packed", BATCH_SIZE, validation=0, shuffle=200)[0]
    model = pca().fit(packed, verbose=0)
    results["bytes of packed"], results["packed"] = sum(map(len, read)), numbers(model)

    counted = Counted(images())
    for solver in "covariance", "randomized":
        counted.rows = 0
        results[solver] = numbers(pca(solver=solver).fit(stream(counted), verbose=0))
        results[f"rows of {solver}"] = counted.rows
    weights = np.linspace(0, 2, ROWS, dtype="float32")
    results["weighted"] = numbers(pca().fit(images().astype("float32"), sample_weight=weights, verbose=0))
    results["missing"] = numbers(pca(missing=True).fit(stream(with_gaps()), verbose=0))
    drawn = pca(missing=True, bootstraps=2).fit(images(), verbose=0)
    results["bootstraps"] = np.concatenate([np.ravel(weight) for weight in drawn._bootstraps])
    one_batch = from_arrays((images(),), ROWS, shuffle=False)
    results["one batch"] = numbers(pca().fit(one_batch, verbose=0))

    counted.rows = 0
    results["codes"], results["rows of codes"] = model.transform(stream(counted)), counted.rows
    results["shuffled codes"] = model.transform(packed)
    results["codes of an array"] = model.transform(images()[:10])
    scores = model.score_samples(packed, return_std=True)
    results["scores"], results["errors of scores"] = scores

    class Broken(Exception):
        pass

    def labelled(breaks):
        y = np.arange(ROWS)

        def maybe(x, y):
            if breaks and worker and y[0] >= 9_000:
                raise Broken("worker 1 breaks")
            return x

        data = from_arrays((images(), y), BATCH_SIZE, shuffle=False)
        return data.map(lambda x, y: (tf.ensure_shape(tf.numpy_function(maybe, [x, y], x.dtype), x.shape), y))

    if strategy.num_replicas_in_sync > 1:
        with pytest.raises((Broken, OSError, RuntimeError)) as error:
            model.transform(labelled(True), directory=folder / "codes")
        results["error"] = str(error.value)
        assert not (folder / "codes" / "manifest.json").exists()
        with pytest.raises(ValueError) as error:
            model.fit(tf.data.Dataset.from_tensor_slices(images()).shuffle(9).batch(9), verbose=0)
        results["refusal"] = str(error.value)
    here = folder / ("codes" if strategy.num_replicas_in_sync > 1 else "codes of one")
    model.transform(labelled(False), directory=here)
    model.score_samples(images(), directory=here.with_name(f"scores of {here.name}"))
    with pytest.raises((FileExistsError, OSError)):
        model.transform(labelled(False), directory=here)
    np.savez(folder / f"{strategy.num_replicas_in_sync}-{worker}.npz", **results)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
