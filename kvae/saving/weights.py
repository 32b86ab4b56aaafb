"""The weights in a saved model: where their values may stand, and how large they may be."""

import contextlib
import io
import math

import h5py
import tensorflow as tf

from kvae.saving.refusal import CONFIG, DEEPEST, WEIGHTS, damage, harm


def check_weights(content):
    """How many bytes the weights have, all of which are in the file."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            size = sum(map(_stored, _datasets(file)))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise damage(f"its {WEIGHTS} can't be read: {error}") from None
    if size > len(content):
        raise harm(f"its {WEIGHTS} declares {size} bytes and has {len(content)}")
    return size


def _datasets(file):
    groups, seen = [(file["/"], 0)], set()
    while groups:
        group, depth = groups.pop()
        if depth > DEEPEST:
            raise harm(f"its {WEIGHTS} is nested too deep, in more than {DEEPEST} levels")
        for name in group:
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                raise harm(f"{name!r} in its {WEIGHTS} is a {type(link).__name__}")
            found = group[name]
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                raise harm(f"{name!r} in its {WEIGHTS} is there twice")
            seen.add(address)
            if isinstance(found, h5py.Group):
                groups.append((found, depth + 1))
            elif isinstance(found, h5py.Dataset):
                yield found
            else:
                raise harm(f"{name!r} in its {WEIGHTS} isn't an array")


def _stored(dataset):
    """The bytes of a dataset, which is one of numbers that stand in the file as they are."""
    made = dataset.id.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
        raise harm(f"{dataset.name} in its {WEIGHTS} has its values in another file")
    if made.get_nfilters():
        raise harm(f"{dataset.name} in its {WEIGHTS} is filtered or compressed, and Keras doesn't do that")
    if dataset.dtype.kind not in "biufc" and dataset.dtype.str != "|V2":
        raise harm(f"{dataset.name} in its {WEIGHTS} is {dataset.dtype}, expected numbers")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > dataset.id.get_storage_size():
        raise harm(f"{dataset.name} in its {WEIGHTS} declares {size} bytes and has {dataset.id.get_storage_size()}")
    return size


@contextlib.contextmanager
def variables_within(limit):
    """Within it a model whose variables want more than `limit` bytes is refused before they are there."""
    size = 0

    def create(next_creator, **arguments):
        nonlocal size
        value = arguments["initial_value"]
        with tf.__internal__.FuncGraph("shape").as_default():  # where it has its shape, and takes no memory
            tensor = tf.convert_to_tensor(value()) if callable(value) else value
        size += math.prod(tensor.shape) * tf.as_dtype(tensor.dtype).size
        if size > limit:
            raise harm(f"its {CONFIG} wants {size} bytes of weights, more than its {WEIGHTS} may fill")
        return next_creator(**arguments)

    with tf.variable_creator_scope(create):
        yield
