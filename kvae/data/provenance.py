"""The provenance of examples, in words and as a hash of decoded examples, the same for all kinds of files."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat
from kvae.data.errors import clear_errors
from kvae.data.stream import Stream

EXAMPLES = 1024
MOST_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of a Stream's examples.

    Args:
        name, version: of the data set.
        split: the rows of the set, such as "train[:54000]".
        num_examples: int.
        stored: function () to a Stream of the same examples in their stored order.
        source: the source for the note of `pack`, a text or a dict for JSON (see `tfds_source`), or None.
        license: a text, or None.
    """

    name: str
    version: str | None
    split: str
    num_examples: int
    stored: Callable[[], Stream]
    source: dict | str | None = None
    license: str | None = None

    @property
    def known(self) -> dict:
        """Name, version, part and number of examples, a dict for JSON."""
        return {"name": self.name, "version": self.version, "part": self.split, "examples": self.num_examples}

    @functools.cached_property
    def content(self) -> tuple[str, int] | None:
        """The `digest` of the first stored examples, the same for every copy of them; None if they can't be read.

        It reads them when it is first asked for.
        """
        try:
            with clear_errors():
                return digest(_rows(self.stored().epoch(0)))
        except (OSError, ValueError):
            return None  # a run on data with damaged files goes on


def tfds_source(info: Any) -> tuple[dict, str | None]:
    """(source, license) of a set of tensorflow-datasets, from its `tfds.core.DatasetInfo`."""
    name = info.full_name.removesuffix(f"/{info.version}")
    source = {"name": name, "version": str(info.version), "homepage": info.homepage, "citation": info.citation}
    return source, info.redistribution_info.license or None


class Description:
    """The data of a `fit`, in words at once and with a hash of examples on demand.

    Arrays are hashed at once, and so is the first batch of a stream without `provenance`. Other streams are read again
    for their hash, when `complete` is first asked for.

    Args:
        data: (x, y, sample_weight), with None for missing parts.
        first: a batch of x as the model reads it. Its rows are hashed if data is a stream without provenance.

    Attributes:
        known: a dict for JSON with name, version, part, examples and seed, as far as they are known.
    """

    def __init__(self, data: tuple, first: np.ndarray | None = None):
        x = data[0]
        self._provenance = getattr(x, "provenance", None) if isinstance(x, tf.data.Dataset) else None
        seed = {"seed": x.seed} if isinstance(x, Stream) else {}
        self._content = None
        if self._provenance is not None:
            self.known = {**self._provenance.known, **seed}
            self._choice = "that are stored, decoded, before any map"
        elif isinstance(x, tf.data.Dataset):
            self.known, self._choice = {"name": None, **seed}, "of the first batch, as it was read"
            self._content = None if first is None else digest([row] for row in first)
        else:
            arrays = [array for array in tf.nest.flatten(data) if array is not None]
            length = arrays[0].shape[0]
            positions = np.unique(np.linspace(0, length - 1, EXAMPLES).astype(int))
            self.known, self._choice = {"name": "arrays", "examples": length}, "spread evenly over the arrays"
            self._content = digest([np.asarray(array[row : row + 1]) for array in arrays] for row in positions)

    @functools.cached_property
    def complete(self) -> dict:
        """`known` with "content": the SHA-256 of some examples and their choice, or None."""
        content = self._provenance.content if self._provenance is not None else self._content
        if content is None:
            return {**self.known, "content": None}
        sha256, number = content
        return {**self.known, "content": {"sha256": sha256, "of": f"{number} examples {self._choice}"}}


def describe(data: tuple, first: np.ndarray | None = None) -> dict:
    """The data of a `fit` as a dict for JSON, complete with the hash. Arguments as for `Description`."""
    return Description(data, first).complete


def first_batch_hash(dataset: tf.data.Dataset) -> str | None:
    """The SHA-256 of the first batch, of a Stream that of epoch 0. It tells content, batch size, order and maps.

    None if two readings differ, as after a random map or a `shuffle` of tf.data.
    """
    if any(map(_compat.shuffles_unseeded, _compat.sources(dataset))):
        return None
    batches = dataset.epoch(0) if isinstance(dataset, Stream) else dataset
    with clear_errors():
        first, again = (digest(_rows(batches.take(1)))[0] for _ in range(2))
    return first if first == again else None


def digest(examples: Iterable[list]) -> tuple[str, int]:
    """(SHA-256, number) of the first examples, each a list of arrays.

    It takes at most 1,024 examples, and no more than 16 MB after the first one. The dtype, shape and values of each
    array count, and so does the order.

    Example:

    >>> import numpy as np
    >>> from kvae.data.provenance import digest
    >>> digest([np.full(3, row)] for row in range(5))[1]
    5
    """
    sha256, number, size = hashlib.sha256(), 0, 0
    for arrays in examples:
        arrays = [np.ascontiguousarray(array) for array in arrays]
        size += sum(array.nbytes for array in arrays)
        if number == EXAMPLES or (number and size > MOST_BYTES):
            break
        for array in arrays:
            sha256.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
        number += 1
    return sha256.hexdigest(), number


def _rows(batches) -> Iterator[list]:
    for batch in batches.as_numpy_iterator():
        columns = tf.nest.flatten(batch)
        for row in range(len(columns[0])):
            yield [column[row] for column in columns]
