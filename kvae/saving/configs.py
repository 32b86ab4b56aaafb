"""The configuration in a saved model: what it may name."""

import re
import sys
import types

import keras

from kvae.saving.refusal import CONFIG, DEEPEST, damage, harm

_PATH_KEY = re.compile(r"vocabulary|.*(path|file|filename|folder|directory|url|uri)")
_VALUES = "__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"
_CLASSES = (
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
_MAKE_PARTS = "get", "deserialize", "serialize"  # in these modules, and are no parts themselves
_FUNCTIONS = "activations", "constraints", "initializers", "losses", "metrics", "regularizers"  # modules of keras


def check_config(config):
    if not isinstance(config, dict) or "class_name" not in config:
        raise damage(f"its {CONFIG} isn't that of a model")
    _check_part(config, 0)


def _check_part(part, depth):
    if depth > DEEPEST:
        raise harm(f"its {CONFIG} is nested too deep, in more than {DEEPEST} levels")
    if isinstance(part, str):
        _check_registered(part)
    elif isinstance(part, list):
        for each in part:
            _check_part(each, depth + 1)
    elif isinstance(part, dict):
        if "class_name" in part:
            _check_class(part)
        for key, value in part.items():
            if isinstance(value, str) and _PATH_KEY.fullmatch(key):
                raise harm(f"its {CONFIG} names a file, {key} {value[:100]!r}")
            _check_part(value, depth + 1)


def _check_registered(name):
    """Keras takes a registered name, wherever it stands, for what is registered."""
    found = keras.saving.get_registered_object(name)
    if found is not None and not _is_ours(found):
        raise _outside(name, found.__module__)


def _check_class(part):
    name, module, config = (part.get(key) for key in ("class_name", "module", "config"))
    if name in _VALUES:
        if name == "__numpy__" and not _is_number(config):
            raise harm(f"its {CONFIG} has an array of {str(config)[:100]}")
        return
    function = name == "function"
    name = config if function else name
    if not isinstance(name, str):
        raise damage(f"its {CONFIG} has a class without a name")
    found = keras.saving.get_registered_object(name if function else str(part.get("registered_name") or name))
    if found is None and isinstance(module, str):
        found = _function(module, name) if function else getattr(sys.modules.get(module), name, None)
    if not (_begins(module) if found is None else _is_ours(found)):
        raise _outside(name, module if found is None else found.__module__)
    if isinstance(found, type) and issubclass(found, _RUN_CODE):
        raise harm(f"its {CONFIG} has a {found.__name__}, which can run code of the file's")
    known = isinstance(found, types.FunctionType if function else type)
    if not (
        known and _is_ours(found) and (function or issubclass(found, _CLASSES) or _begins(found.__module__, "kvae"))
    ):
        raise harm(f"its {CONFIG} names {module}.{name}, which isn't a part of a model")


def _function(module, name):
    """A function of those modules of keras that hold what models are made of."""
    places = [f"keras.{place}" for place in _FUNCTIONS]
    for place in places if module == "builtins" else {module}.intersection([*places, "keras.ops"]):
        if name not in _MAKE_PARTS and hasattr(sys.modules[place], name):
            return getattr(sys.modules[place], name)
    return None


def _is_ours(found):
    return _begins(getattr(found, "__module__", None))


def _begins(module, *packages):
    return str(module).split(".")[0] in (packages or ("keras", "kvae"))


def _outside(name, module):
    return harm(
        f"its {CONFIG} names {name!r} of {module}, and only keras' and kvae's own are loaded; if you trust the file, "
        "keras.saving.load_model may load it"
    )


def _is_number(config):
    return isinstance(config, dict) and re.fullmatch(r"bool|(u?int|float|bfloat|complex)\d+", str(config.get("dtype")))
