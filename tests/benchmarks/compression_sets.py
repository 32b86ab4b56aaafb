"""Small data sets through compress, and through decompress in a new process with other threads: the same SHA-256.

    python tests/benchmarks/compression_sets.py [--sets SET ...] [--data-dir DIR] [--dsprites FILE] [--adbench DIR]

For each set a small VAE is trained on 80 % of it (or on all of it, where there is little), and the rest is compressed
with one thread. A new process with two threads restores it. Prints a table of bits per dimension beside the bound of
that VAE and gzip, bz2, xz, PNG and WebP, in Markdown. Eleven sets are of kvae, scikit-learn and Python's own manual.
Fashion-MNIST has to be prepared by tensorflow-datasets; dSprites and ADBench are files, as disentangled_dsprites.py and
anomalies.py take them.
"""

import argparse
import collections
import hashlib
import lzma
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from compression import others

IMAGES = (
    "sprites",
    "digits as bits",
    "drawn digits",
    "drawn digits, grey",
    "Fashion-MNIST",
    "Fashion-MNIST, grey",
    "dSprites",
)
RESTORE = """
import hashlib, sys
import numpy as np
import kvae
for path in sys.argv[1:]:
    x = kvae.compression.decompress(path + ".kvae", kvae.load(path + ".keras"))
    print(hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(), flush=True)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--data-dir", help="of tensorflow-datasets, with Fashion-MNIST")
    parser.add_argument("--dsprites", help="packed bits of dSprites, .npy.xz")
    parser.add_argument("--adbench", help="folder of ADBench's .npz files")
    options = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before TensorFlow is imported
    names = options.sets or [name for name, needs in SETS.items() if needs[2] is None or getattr(options, needs[2])]
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for number, name in enumerate(names):
            rows[name] = compressed(name, pathlib.Path(folder) / str(number), options)
            print(name, rows[name], flush=True)
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "2", "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-c", RESTORE, *(str(pathlib.Path(folder) / str(k)) for k in range(len(names)))]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    programs = "bound", "kvae", "gzip", "bz2", "xz", "PNG", "WebP"
    print(f"| data | likelihood | examples | {' | '.join(programs)} | SHA-256 |\n|{' --- |' * (len(programs) + 4)}")
    for (name, row), digest in zip(rows.items(), done.stdout.split(), strict=True):
        sizes = " | ".join(f"{row[program]:.3f}" if program in row else "" for program in programs)
        same = "same" if digest == row["sha256"] else "OTHER"
        print(f"| {name} | {row['likelihood']} | {row['examples']:,} | {sizes} | {same} {digest[:8]} |")
    assert done.stdout.split() == [row["sha256"] for row in rows.values()]


def compressed(name, path, options):
    """Train, compress, and save the model: {column: number}."""
    import keras

    import kvae

    make, likelihood, _ = SETS[name]
    x = make(options)
    likelihood = likelihood(kvae)
    test = x if len(x) < 100 else x[len(x) * 4 // 5 :]
    train = x if len(x) < 100 else x[: len(x) * 4 // 5]
    keras.utils.set_random_seed(0)
    counts = "log1p" if isinstance(likelihood, kvae.PoissonLikelihood | kvae.NegativeBinomialLikelihood) else None
    encoder = kvae.networks.dense_encoder(x.shape[1:], 16, (128,), preprocessing=counts)
    decoder = kvae.networks.dense_decoder(likelihood.decoder_shape(x.shape[1:]), 16, (128,))
    model = kvae.VAE(encoder, decoder, likelihood, seed=0)
    model.compile(kvae.optimizers.Adam(2e-3))
    model.fit(train, batch_size=64, epochs=max(1, min(200, 400 * 64 // len(train))), verbose=0)
    model.save(path.with_name(path.name + ".keras"))
    bound = -model.evaluate(test, verbose=0, return_dict=True)["elbo"] / np.log(2) / likelihood.dimensions
    result = kvae.compression.compress(model, test, path.with_name(path.name + ".kvae"), verbose=0)
    row = {"likelihood": type(likelihood).__name__.removesuffix("Likelihood"), "examples": len(test), "bound": bound}
    row |= {
        "kvae": result.bits_per_dimension,
        "sha256": hashlib.sha256(np.ascontiguousarray(test).tobytes()).hexdigest(),
    }
    plain = test.argmax(axis=-1)[..., None] if "one-hot" in name else test
    scale = 16 if "levels" in name else 255 if name in IMAGES and plain.dtype != np.uint8 else 1
    is_binary = len(np.unique(plain)) <= 2
    numbers = plain > 0 if is_binary else np.rint(plain * scale)
    sizes = others(np.reshape(numbers, (len(plain), *shape_of(plain))).astype("uint8"), is_binary)
    kept = sizes if name in IMAGES else {program: sizes[program] for program in ("gzip", "bz2", "xz")}
    return row | {program: size * 8 / (len(test) * likelihood.dimensions) for program, size in kept.items()}


def shape_of(x):
    """Height, width and channels."""
    return x.shape[1:] if x.ndim == 4 else (1, int(np.prod(x.shape[1:])), 1)


def _load(name, **arguments):
    def load(options):
        import kvae

        stream = kvae.data.load(name, 128, data_dir=options.data_dir, shuffle=0, **arguments)[0]
        return np.concatenate(list(stream.take(24).as_numpy_iterator()))

    return load


def _binary(make, dtype="uint8"):
    def load(options):
        x = make(options)
        return (x > 127).astype(dtype) * np.asarray(255 if dtype == "uint8" else 1, dtype)

    return load


def _digits(levels):
    def load(options):
        from sklearn.datasets import load_digits

        x = load_digits().images[..., None]
        return {"bits": (x > 7).astype("float32"), "levels": (x / 16).astype("float32"), "counts": x.astype("int32")}[
            levels
        ]

    return load


def _words(options):
    """Counts of the 60 commonest words in pieces of 200 words of Python's manual."""
    words = re.findall("[a-z]+", _manual().lower())
    common = [word for word, _ in collections.Counter(words).most_common(60)]
    pieces = [collections.Counter(words[k : k + 200]) for k in range(0, len(words) - 200, 50)]
    return np.array([[piece[word] for word in common] for piece in pieces], "int32")


def _letters(options):
    """Pieces of 12 letters of Python's manual, one-hot."""
    letters = np.frombuffer(re.sub("[^a-z]+", " ", _manual().lower()).encode(), "uint8")
    codes = np.where(letters == 32, 26, letters.astype(int) - 97)[: 12 * 4_000].reshape(-1, 12)
    return np.eye(27, dtype="float32")[np.random.default_rng(0).permutation(codes)]


def _manual():
    from pydoc_data import topics

    return " ".join(topics.topics[key] for key in sorted(topics.topics))


def _adbench(file):
    def load(options):
        x = np.load(pathlib.Path(options.adbench) / file)["X"]
        return np.random.default_rng(0).permutation(x)[:6_000]

    return load


def _dsprites(options):
    with lzma.open(options.dsprites) as file:
        packed = np.load(file)
    packed = packed[np.random.default_rng(0).permutation(len(packed))[:5_000]].reshape(5_000, -1)
    return np.unpackbits(packed, axis=1)[:, :4096].reshape(-1, 64, 64, 1) * np.uint8(255)


def _bernoulli(kvae):
    return kvae.BernoulliLikelihood()


def _logistic(kvae):
    return kvae.DiscretizedLogisticLikelihood(3)


def _counts(kvae):
    return kvae.NegativeBinomialLikelihood()


_NOISE = np.random.default_rng(0).integers(0, 2, (5_000, 100)).astype("float32")
# {name: (function of the options to x, likelihood, the option that it needs)}
SETS = {
    "sprites": (_binary(_load("sprites", size=16, examples=4_000)), _bernoulli, None),
    "digits as bits": (_digits("bits"), _bernoulli, None),
    "digits as 17 levels": (_digits("levels"), lambda kvae: kvae.CategoricalLikelihood(17), None),
    "digits as counts": (_digits("counts"), _counts, None),
    "drawn digits": (_binary(_load("drawn_digits", examples=4_000), "float32"), _bernoulli, None),
    "drawn digits, grey": (_load("drawn_digits", examples=4_000), _logistic, None),
    "words of a manual": (_words, _counts, None),
    "its letters, one-hot": (_letters, lambda kvae: kvae.CategoricalLikelihood(), None),
    "constant": (lambda options: np.zeros((5_000, 100), "uint8"), _bernoulli, None),
    "one row": (lambda options: _NOISE[:1], _bernoulli, None),
    "noise": (lambda options: _NOISE, _bernoulli, None),
    "Fashion-MNIST": (_binary(_load("fashion_mnist")), _bernoulli, "data_dir"),
    "Fashion-MNIST, grey": (_load("fashion_mnist"), _logistic, "data_dir"),
    "dSprites": (_dsprites, _bernoulli, "dsprites"),
    "celeba's attributes": (lambda o: _adbench("8_celeba.npz")(o).astype("bool"), _bernoulli, "adbench"),
    "satellite": (lambda o: _adbench("30_satellite.npz")(o).astype("int32"), _counts, "adbench"),
}


if __name__ == "__main__":
    main()
