"""The weights in a saved model: numbers that lie in the file itself, and variables no larger than they are."""

import contextlib
import io
import math
from collections.abc import Iterator
from typing import Any

import h5py
import tensorflow as tf

from kvae import _compat
from kvae.saving.refusal import CONFIG, MAX_DEPTH, WEIGHTS, damage, harm


def validate_weights(content: bytes) -> int:
    """The size of the weights in bytes. Raises `Refusal` unless the HDF5 file holds nothing but their numbers."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            size = sum(map(_stored_bytes, _datasets(file)))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise damage(f"its {WEIGHTS} can't be read: {error}") from None
    if size > len(content):
        raise harm(f"its {WEIGHTS} declares {size} bytes and has {len(content)}")
    return size


def _datasets(file):
    groups, seen = [(file["/"], 0)], set()
    while groups:
        group, depth = groups.pop()
        if depth > MAX_DEPTH:
            raise harm(f"its {WEIGHTS} is nested too deep, in more than {MAX_DEPTH} levels")
        for name in group:
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                raise harm(f"{name!r} in its {WEIGHTS} is a {type(link).__name__}")
            member = group[name]
            address = h5py.h5o.get_info(member.id).addr
            if address in seen:
                raise harm(f"{name!r} in its {WEIGHTS} is there twice")
            seen.add(address)
            if isinstance(member, h5py.Group):
                groups.append((member, depth + 1))
            elif isinstance(member, h5py.Dataset):
                yield member
            else:
                raise harm(f"{name!r} in its {WEIGHTS} isn't an array")


def _stored_bytes(dataset):
    """The size of a dataset. Raises `Refusal` unless its numbers lie in the file, unfiltered."""
    properties = dataset.id.get_create_plist()
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise harm(f"{dataset.name} in its {WEIGHTS} has its values in another file")
    if properties.get_nfilters():
        raise harm(f"{dataset.name} in its {WEIGHTS} is filtered or compressed, and Keras doesn't do that")
    if dataset.dtype.kind not in "biufc" and dataset.dtype.str != "|V2":
        raise harm(f"{dataset.name} in its {WEIGHTS} is {dataset.dtype}, expected numbers")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > dataset.id.get_storage_size():
        raise harm(f"{dataset.name} in its {WEIGHTS} declares {size} bytes and has {dataset.id.get_storage_size()}")
    return size


@contextlib.contextmanager
def limit_variables(limit: int) -> Iterator[None]:
    """Context manager. Refuses a model with more than `limit` bytes of variables, before it allocates them."""
    size = 0

    def create(next_creator: Any, **arguments: Any) -> Any:
        nonlocal size
        value = arguments["initial_value"]
        with _compat.scratch_graph():  # gives the value's shape and takes no memory
            tensor: Any = tf.convert_to_tensor(value()) if callable(value) else value  # pyright: ignore
        size += math.prod(tensor.shape) * tf.as_dtype(tensor.dtype).size
        if size > limit:
            raise harm(f"its {CONFIG} wants {size} bytes of weights, more than its {WEIGHTS} may fill")
        return next_creator(**arguments)

    with tf.variable_creator_scope(create):
        yield
