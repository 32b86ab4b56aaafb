"""Examples to a file and back, a block at a time."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import scipy
import tensorflow as tf
from keras import ops

from kvae import arguments, files
from kvae.compression.blocks import Coder, check_compresses
from kvae.compression.container import Reader, Writer, digest_of
from kvae.compression.exact import Networks
from kvae.compression.levels import Levels
from kvae.data import elements, packed
from kvae.evaluation import scoring
from kvae.saving import model_card

_BLOCK_VALUES = 2**23
_MOST_EXAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What `compress` wrote.

    Attributes:
        path: of the file.
        examples: int, their number.
        size: int, the file's bytes.
        dimensions: int, the values of an example.
    """

    path: pathlib.Path
    examples: int
    size: int
    dimensions: int

    @property
    def nats(self) -> float:
        """The file's length per example, in nats: to compare with -ELBO."""
        return self.size * 8 * math.log(2) / self.examples

    @property
    def bits_per_dimension(self) -> float:
        """The file's length per value of x, in bits."""
        return self.size * 8 / (self.examples * self.dimensions)

    def __str__(self):
        return (
            f"{self.examples:,} examples in {self.size:,} bytes: {self.nats:.3f} nats per example, "
            f"{self.bits_per_dimension:.4f} bits per dimension"
        )


def compress(
    model: Any,
    data: Any,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    batch_size: int = elements.BATCH_SIZE,
    verbose: bool | str = "auto",
) -> Compressed:
    """Write x of `data` to a file without loss: about -ELBO / log 2 bits per example.

    Bits-back coding with asymmetric numeral systems. Memory holds one block of at most 10,000 examples. Labels and
    weights aren't stored. The file is only of use with the same model: `decompress` compares the weights.

    Args:
        model: a `kvae.VAE` with a diagonal posterior, a prior of diagonal normals (one, or a mixture such as a
            `kvae.VampPrior`), and a discrete likelihood: Bernoulli, categorical, discretized logistic, Poisson or
            negative binomial.
        data: a stream of batches or an array, as the model reads it. A `Stream` gives its epoch 0.
        path: of the file.
        overwrite: bool, whether to replace a file that is there. Default False.
        batch_size: of arrays.
        verbose: whether to show a progress bar. "auto" shows one on a terminal and in a notebook.

    Returns:
        A `Compressed`.

    Raises:
        TypeError: if the model can't compress.
        ValueError: if x holds values without a probability.
        FileExistsError: if the file exists and `overwrite` is False.
        OSError: if it can't be written, or is a folder; an older file then stays.

    Example:

    >>> import tempfile, pathlib
    >>> x = (np.random.default_rng(0).random((300, 12)) < 0.1).astype("float32")
    >>> networks = kvae.networks.dense_encoder((12,), 2), kvae.networks.dense_decoder((12,), 2)
    >>> model = kvae.VAE(*networks, "bernoulli", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "x.kvae"
    ...     compressed = kvae.compression.compress(model, x, path, verbose=0)
    ...     bool(np.array_equal(kvae.compression.decompress(path, model), x))
    True

    Reference:
        Townsend, Bird and Barber (2019), "Practical lossless compression with latent variables using bits back coding".
    """
    overwrite = arguments.boolean("overwrite", overwrite)
    check_compresses(model)
    path = files.absolute(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file.")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists: give another name, or overwrite=True to replace what is there")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be written: there is no folder {path.parent}")
    examples, coder, writer = 0, None, None
    advice = "make room, or give another folder; an older file is as it was"
    with files.explain_errors(path, advice=advice), files.atomic_write(path) as file:
        for x in _blocks(model, data, batch_size, verbose):
            if coder is None or writer is None:
                coder = Coder(Networks(model), Levels(model.likelihood, x.dtype))
                writer = Writer(file, _header(model, x))
            if x.dtype != coder.levels.dtype:
                raise ValueError(f"A batch is {x.dtype}, those before it {coder.levels.dtype}; expected one dtype.")
            writer.add(coder.compress(x), digest_of(x))
            examples += len(x)
        if writer is None:
            raise ValueError("data holds no examples: there is nothing to compress.")
        writer.close()
        size = file.tell()
    return Compressed(path, examples, size, model.likelihood.dimensions)


@overload
def decompress(
    path: str | os.PathLike[str], model: Any, *, start: int = ..., stop: int | None = ..., directory: None = None
) -> np.ndarray: ...


@overload
def decompress(
    path: str | os.PathLike[str],
    model: Any,
    *,
    start: int = ...,
    stop: int | None = ...,
    directory: str | os.PathLike[str],
) -> None: ...


def decompress(
    path: str | os.PathLike[str],
    model: Any,
    *,
    start: int = 0,
    stop: int | None = None,
    directory: Any = None,
) -> np.ndarray | None:
    """Return the examples that `compress` wrote, bit by bit, in their order and dtype: an array (n, ...).

    Numbers come in the order of bytes of this machine.

    Args:
        path: of the file.
        model: the model that compressed them, or the same one loaded.
        start: int >= 0, the first example. Only blocks with examples from `start` to `stop` are read.
        stop: int, the example after the last one; None is all.
        directory: None, or a new folder for the examples: then one block is in memory, and `kvae.data.load(directory)`
            streams them.

    Raises:
        TypeError: if the model can't compress.
        ValueError: if the file is damaged, of another model or of other weights, or if the machine computes
            otherwise than the one that compressed. Wrong examples are never returned.
        OSError: if the file can't be read.
    """
    check_compresses(model)
    start = arguments.integer_at_least("start", start, 0)
    stop = None if stop is None else arguments.integer_at_least("stop", stop, start)
    if directory is None:
        parts = list(_examples(path, model, start, stop))
        return np.concatenate(parts) if parts else np.empty((0, *model.event_shape), _read_header(path)["dtype"])
    directory = files.absolute(directory, "directory")
    packed.write_columns({"train": ({"image": x} for x in _examples(path, model, start, stop))}, directory, progress=0)
    return None


def _blocks(model, data, batch_size, verbose) -> Iterator[np.ndarray]:
    """x in arrays of as many examples as a block has."""
    most = max(1, min(_MOST_EXAMPLES, _BLOCK_VALUES // max(1, model.likelihood.dimensions)))
    parts, count = [], 0
    for x, _ in scoring.chunks(model, data, most, batch_size, verbose):
        x = ops.convert_to_numpy(x)
        while count + len(x) >= most:
            parts.append(x[: most - count])
            yield np.concatenate(parts)
            x, parts, count = x[most - count :], [], 0
        parts, count = [*parts, x], count + len(x)
    if count:
        yield np.concatenate(parts)


def _header(model, x):
    return {
        "weights": _weights_hash(model),
        "event_shape": list(model.event_shape),
        "latent_dim": int(model.latent_dim),
        "dtype": str(x.dtype),
        "likelihood": type(model.likelihood).__name__,
        "versions": _versions(),
    }


def _weights_hash(model):
    return model_card.weights_hash(model.weights)[:32]


def _versions():
    return {"numpy": np.__version__, "scipy": scipy.__version__, "tensorflow": tf.__version__}


def _read_header(path):
    with files.open_regular(path) as file:
        return Reader(file, path).header


def _examples(path, model, start, stop) -> Iterator[np.ndarray]:
    """The examples from start to stop, a block at a time."""
    with files.open_regular(path) as file:
        try:
            reader = Reader(file, path)
            header = reader.header
            expected = header["weights"], tuple(header["event_shape"]), np.dtype(header["dtype"])
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise ValueError(f"{path} can't be decompressed: its header is damaged ({error}).") from None
        weights, event_shape, dtype = expected
        if event_shape != tuple(model.event_shape):
            raise ValueError(f"{path} holds examples of shape {event_shape}; the model's have {model.event_shape}.")
        if weights != _weights_hash(model):
            raise ValueError(
                f"{path} was compressed with other weights ({header['likelihood']}, SHA-256 {weights[:12]}...): "
                "give the model that compressed it, as it was then."
            )
        coder, first = Coder(Networks(model), Levels(model.likelihood, dtype)), 0
        for number, count in enumerate(reader.examples):
            if first + count > start and (stop is None or first < stop):
                block, digest = reader.block(number)
                x = _decompressed(coder, block, digest, header, f"block {number} of {path}")
                yield x[max(start - first, 0) : None if stop is None else max(stop - first, 0)]
            first += count


def _decompressed(coder, block, digest, header, name):
    try:
        x = coder.decompress(block)
        if digest_of(x) == digest:
            return x
        reason = "the result has another checksum"
    except (ValueError, IndexError) as error:
        reason = str(error)
    here = _versions()
    others = [f"{key} {value} (here {here.get(key)})" for key, value in header["versions"].items()]
    raise ValueError(
        f"{name} can't be decompressed: {reason}. The model's networks or the libraries compute otherwise than when it "
        f"was compressed, with {', '.join(others)}: use those versions, and the same model."
    )
