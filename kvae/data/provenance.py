"""What was trained on, said in words and by a hash of examples as they are decoded, whatever files hold them."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kvae.data.errors import clear_errors
from kvae.data.stream import Stream

EXAMPLES = 1024
MOST_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a Stream's examples come from.

    name, version: the set's. split: which of its rows. num_examples: how many. stored: function that gives a Stream of
    the same examples in the order in which they are stored. source, license: what `pack` notes of them, see
    `tfds_source`.
    """

    name: str
    version: str | None
    split: str
    num_examples: int
    stored: Callable[[], Stream]
    source: dict | str | None = None
    license: str | None = None

    @functools.cached_property
    def content(self):
        """The digest of the first examples as they are stored, that of any copy of them, prepared again or packed.

        None where they can't be read.
        """
        try:
            with clear_errors():
                return digest(_rows(self.stored().epoch(0)))
        except (OSError, ValueError):
            return None  # which a run that passes over damaged files survives


def tfds_source(info):
    """(where a set of tensorflow-datasets comes from, a dict of which JSON can be made; its licence or None).

    info: its `tfds.core.DatasetInfo`.
    """
    name = info.full_name.removesuffix(f"/{info.version}")
    said = {"name": name, "version": str(info.version), "homepage": info.homepage, "citation": info.citation}
    return said, info.redistribution_info.license or None


def describe(data, first=None):
    """What `fit` was given, a dict of which JSON can be made: name, version, part, examples and seed where they are
    known, and under "content" a hash of some examples and which these are.

    data: x, y and sample_weight, or what stands for them. first: a batch of x as the model reads it, of which the hash
    is where data is a stream that doesn't say where its examples come from.
    """
    x = data[0]
    if not isinstance(x, tf.data.Dataset):
        arrays = [array for array in tf.nest.flatten(data) if array is not None]
        places = np.unique(np.linspace(0, arrays[0].shape[0] - 1, EXAMPLES).astype(int))
        content = digest([np.asarray(array[place : place + 1]) for array in arrays] for place in places)
        return {
            "name": "arrays",
            "examples": arrays[0].shape[0],
            "content": _said(content, "spread evenly over the arrays"),
        }
    source = getattr(x, "provenance", None)
    seed = {"seed": x.seed} if isinstance(x, Stream) else {}
    if source is None:
        content = None if first is None else digest([row] for row in first)
        return {"name": None, **seed, "content": _said(content, "of the first batch, as it was read")}
    said = {"name": source.name, "version": source.version, "part": source.split, "examples": source.num_examples}
    return {**said, **seed, "content": _said(source.content, "that are stored, decoded, before any map")}


def digest(examples):
    """(SHA-256, number) of the first examples, lists of arrays: at most 1,024, and no more than 16 MB after the first.

    The dtype, the shape and the values of each array count, and the order.
    """
    found, number, size = hashlib.sha256(), 0, 0
    for arrays in examples:
        arrays = [np.ascontiguousarray(array) for array in arrays]
        size += sum(array.nbytes for array in arrays)
        if number == EXAMPLES or (number and size > MOST_BYTES):
            break
        for array in arrays:
            found.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
        number += 1
    return found.hexdigest(), number


def _rows(batches):
    for batch in batches.as_numpy_iterator():
        columns = tf.nest.flatten(batch)
        for place in range(len(columns[0])):
            yield [column[place] for column in columns]


def _said(content, which):
    return content and {"sha256": content[0], "of": f"{content[1]} examples {which}"}
