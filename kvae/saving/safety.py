"""What a file from a stranger may hold: a configuration of harmless parts, and weights that are numbers in the file."""

import collections
import contextlib
import functools
import io
import json
import math
import re
import sys
import types
from collections.abc import Iterator
from typing import Any, TypeGuard

import h5py
import keras
import tensorflow as tf

from kvae import _compat

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MAX_DEPTH = 50
_PATH_KEY = re.compile(r"vocabulary|.*(path|file|filename|folder|directory|url|uri)")
_VALUES = "__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"
_PARTS = (
    keras.Operation,
    keras.Loss,
    keras.Metric,
    keras.Initializer,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.random.SeedGenerator,
)
_RUN_CODE = (
    keras.layers.Lambda,
    keras.layers.TFSMLayer,
    keras.layers.TorchModuleWrapper,
    keras.layers.JaxLayer,
    keras.layers.FlaxLayer,
)
_TABLES = keras.layers.MelSpectrogram, keras.layers.STFTSpectrogram, keras.utils.FeatureSpace
_FREE = keras.optimizers.schedules.LearningRateSchedule, keras.optimizers.Optimizer
_FREE_KEY = re.compile(
    r".*seed|shared_object_id|(batch_)?(input_)?shape|max_tokens|output_sequence_length|examples"
)  # no memory
_MAX_INTEGER, _MAX_LOOPS = 2**14, 1_000
_MOST = (keras.layers.Layer, "layers", 1_500), (keras.Metric, "metrics", 100), (object, "parts", 20_000)
_MANY = 2**16  # numbers in a variable whose initial values the file gives
_FUNCTION_MODULES = "activations", "constraints", "initializers", "losses", "metrics", "regularizers"  # of keras
_NO_PARTS = "get", "deserialize", "serialize"  # in these modules


class Refusal(Exception):
    """The message continues a sentence that begins with the file's name."""


def harm(reason: object) -> Refusal:
    return Refusal(f"refused: {reason}")


def damage(reason: object) -> Refusal:
    return Refusal(f"damaged or not a .keras file: {reason}")


# The configuration ----------------------------------------------------------------------------------------------------


def validate_config(config: Any, weights_bytes: int = 0) -> None:
    """Raises `Refusal` unless a model's configuration is safe to make a model from, in little time and memory.

    Args:
        config: the configuration.
        weights_bytes: the size of the weights. The integers in `config` may be as large, or 16,384: most are sizes of
            something that Keras makes.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise damage(f"its {CONFIG} isn't that of a model")
    _Validation(max(_MAX_INTEGER, weights_bytes)).validate(config, 0)


class _Validation:
    def __init__(self, largest: int):
        self.largest, self.counts = largest, collections.Counter()
        self.longest, self.unrolls = 0, False

    def validate(self, value: Any, depth: int, is_free: bool = False) -> None:
        """Raises `Refusal` for a value of the configuration. With `is_free`, integers may have any size."""
        if depth > MAX_DEPTH:
            raise harm(f"its {CONFIG} is nested too deep, in more than {MAX_DEPTH} levels")
        if isinstance(value, str):
            _validate_registered(value)
        elif isinstance(value, int) and abs(value) > self.largest and not is_free:
            raise harm(f"its {CONFIG} has the size {value}, more than its weights are for")
        elif isinstance(value, list):
            for entry in value:
                self.validate(entry, depth + 1, is_free)
        elif isinstance(value, dict):
            if "class_name" in value:
                target = _validate_part(value)
                self._count(target)
                is_free = is_free or _is_one_of(target, _FREE)
                self._validate_loops(target, value)
            for key, entry in value.items():
                if isinstance(entry, str) and _PATH_KEY.fullmatch(key):
                    raise harm(f"its {CONFIG} names a file, {key} {entry[:100]!r}")
                if key == "inbound_nodes":
                    _validate_nodes(entry)
                self.validate(entry, depth + 1, is_free or _FREE_KEY.fullmatch(key) is not None)

    def _count(self, target):
        for kind, name, most in _MOST:
            if _is_one_of(target, (kind,)):
                self.counts[name] += 1
                if self.counts[name] > most:
                    trusted = "if you trust the file, keras.saving.load_model may load it"
                    raise harm(f"its {CONFIG} has more than {most:,} {name}; {trusted}")

    def _validate_loops(self, target, part):
        """Raises `Refusal` for loops in Python of many turns: they take time."""
        config = part["config"] if isinstance(part.get("config"), dict) else {}
        steps, shape = config.get("steps"), config.get("batch_shape")
        is_ours = _begins(getattr(target, "__module__", None), "kvae") and not _is_one_of(target, _FREE)
        if is_ours and isinstance(steps, int) and steps > _MAX_LOOPS:
            raise harm(f"its {CONFIG} has a {target.__name__} of {steps} steps, expected {_MAX_LOOPS} at most")
        sizes = [size for size in shape if isinstance(size, int)] if isinstance(shape, list) else []
        self.longest, self.unrolls = max([self.longest, *sizes]), self.unrolls or bool(config.get("unroll"))
        if self.unrolls and self.longest > _MAX_LOOPS:
            raise harm(f"its {CONFIG} unrolls a loop over inputs of size {self.longest}, expected {_MAX_LOOPS} at most")


def _validate_nodes(nodes: Any) -> None:
    """Raises `Refusal` for calls without a symbolic tensor: Keras would compute them, whatever their size."""
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and "__keras_tensor__" not in json.dumps(node):
            raise harm(f"its {CONFIG} computes something that isn't a function of the model's input")


def _is_one_of(target: Any, kinds: tuple) -> TypeGuard[type]:
    return isinstance(target, type) and issubclass(target, kinds)


def _validate_registered(name: str) -> None:
    """Keras takes a registered name for the registered object, in any place."""
    registered = keras.saving.get_registered_object(name)
    if registered is not None and not _is_ours(registered):
        raise _foreign(name, registered.__module__)


def _validate_part(part: dict[str, Any]) -> Any:
    """The class or function of a part, or None for a value. Raises `Refusal` for other things than parts of a model."""
    name, module, config = (part.get(key) for key in ("class_name", "module", "config"))
    if name in _VALUES:
        if name == "__numpy__" and not _is_number(config):
            raise harm(f"its {CONFIG} has an array of {str(config)[:100]}")
        return None
    is_function = name == "function"
    name = config if is_function else name
    if not isinstance(name, str):
        raise damage(f"its {CONFIG} has a class without a name")
    target: Any = keras.saving.get_registered_object(name if is_function else str(part.get("registered_name") or name))
    if target is None and isinstance(module, str):
        target = _find_function(module, name) if is_function else getattr(sys.modules.get(module), name, None)
    if not (_begins(module) if target is None else _is_ours(target)):
        raise _foreign(name, module if target is None else target.__module__)
    if _is_one_of(target, _RUN_CODE):
        raise harm(f"its {CONFIG} has a {target.__name__}, which can run code of the file's")
    if _is_one_of(target, _TABLES):
        raise harm(f"its {CONFIG} has a {target.__name__}, which makes tables that aren't in the file")
    if is_function:
        is_part = isinstance(target, types.FunctionType)
    else:
        is_part = isinstance(target, type) and (issubclass(target, _PARTS) or _begins(target.__module__, "kvae"))
    if not (is_part and _is_ours(target)):
        raise harm(f"its {CONFIG} names {module}.{name}, which isn't a part of a model")
    return target


def _find_function(module: str, name: str) -> Any:
    """A function from one of Keras' modules with parts of models, or None."""
    modules = [f"keras.{each}" for each in _FUNCTION_MODULES]
    for each in modules if module == "builtins" else {module}.intersection([*modules, "keras.ops"]):
        if name not in _NO_PARTS and hasattr(sys.modules[each], name):
            return getattr(sys.modules[each], name)
    return None


def _is_ours(target: Any) -> bool:
    return _begins(getattr(target, "__module__", None))


def _begins(module: Any, *packages: str) -> bool:
    return str(module).split(".")[0] in (packages or ("keras", "kvae"))


def _foreign(name: str, module: Any) -> Refusal:
    return harm(
        f"its {CONFIG} names {name!r} of {module}, and only keras' and kvae's own are loaded; if you trust the file, "
        "keras.saving.load_model may load it"
    )


def _is_number(config: Any) -> Any:
    return isinstance(config, dict) and re.fullmatch(r"bool|(u?int|float|bfloat|complex)\d+", str(config.get("dtype")))


# The weights ----------------------------------------------------------------------------------------------------------


def validate_weights(content: bytes) -> tuple[int, int]:
    """(bytes, number) of the weights' arrays. Raises `Refusal` unless the HDF5 file holds nothing but their numbers."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            sizes = list(map(_stored_bytes, _datasets(file)))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise damage(f"its {WEIGHTS} can't be read: {error}") from None
    size = sum(sizes)
    if size > len(content):
        raise harm(f"its {WEIGHTS} declares {size} bytes and has {len(content)}")
    return size, len(sizes)


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
    if dataset.dtype.kind not in "biuf" and dataset.dtype.str != "|V2":
        raise harm(f"{dataset.name} in its {WEIGHTS} is {dataset.dtype}, expected real numbers")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > dataset.id.get_storage_size():
        raise harm(f"{dataset.name} in its {WEIGHTS} declares {size} bytes and has {dataset.id.get_storage_size()}")
    return size


@contextlib.contextmanager
def limit_variables(limit: int, most: int) -> Iterator[None]:
    """Context manager. Refuses a model with more than `limit` bytes of variables, or `most`, before it allocates them.

    Large variables begin with zeros, as the file gives their values.
    """
    size = count = 0

    def create(next_creator: Any, **arguments: Any) -> Any:
        nonlocal size, count
        value = arguments["initial_value"]
        with _compat.scratch_graph():  # gives the value's shape and takes no memory
            tensor: Any = tf.convert_to_tensor(value()) if callable(value) else value  # pyright: ignore
        shape, dtype = tensor.shape, tf.as_dtype(tensor.dtype)
        size, count = size + math.prod(shape) * dtype.size, count + 1
        if size > limit:
            raise harm(f"its {CONFIG} wants {size} bytes of weights, more than its {WEIGHTS} may fill")
        if count > most:
            raise harm(f"its {CONFIG} wants more than {most} variables, more than its {WEIGHTS} may fill")
        if callable(value) and math.prod(shape) > _MANY and dtype.is_floating:
            arguments["initial_value"] = functools.partial(tf.zeros, shape, dtype)
        return next_creator(**arguments)

    with tf.variable_creator_scope(create):
        yield
