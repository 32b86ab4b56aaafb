"""Keras networks as data for the JavaScript of `page/network.js`: their layers in order, and their weights."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kvae.widgets.weights import Weights

_ACTIVATIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid", "tanh"),
    *("softplus", "softsign", "exponential", "softmax", "log1p", "exp", "abs", "square"),
)
_ADVICE = "build the network of layers as kvae.networks does, or show the model with a kernel"


def describe(network: Any, role: str, weights: Weights, inputs: np.ndarray | None = None) -> dict[str, Any]:
    """A functional or sequential Keras network as a dict for JSON: inputs, steps in order, outputs.

    Args:
        network: the Keras model.
        role: what errors call it, "encoder" or "decoder".
        weights: takes the network's weights.
        inputs: examples, for rounding the matrices of dense layers. None keeps float16.

    Raises:
        ValueError: for networks and layers that the page can't run. It names the layer.
    """
    if isinstance(network, keras.Sequential) and network.built:
        return _sequential(network, role, weights, _layer_inputs(network, inputs))
    if not hasattr(network, "operations"):
        raise ValueError(
            f"The {role} is a {type(network).__name__}; a page without a kernel runs functional and sequential Keras "
            f"models alone: {_ADVICE}."
        )
    operations = {operation.name: operation for operation in network.operations}
    for operation in operations.values():
        _handler(operation, role)  # ahead of get_config, which fails for some layers, or warns
        if getattr(operation, "activation", None) is not None:
            _activation(operation)
    config = network.get_config()
    nodes = {entry["name"]: entry["inbound_nodes"] for entry in config["layers"]}
    steps, known, seen = [], set(), _layer_inputs(network, inputs)

    def visit(history):
        name, node, _ = history
        key = f"{name}:{node}"
        if key in known:
            return key
        known.add(key)
        if nodes[name]:
            arguments = _flat(nodes[name][node])
            sources = [visit(part["config"]["keras_history"]) for part in arguments if _is_tensor(part)]
            constants = [None if _is_tensor(part) else part for part in arguments]
            step = _step(operations[name], role, weights, constants, seen)
            steps.append({**step, "from": sources, "to": key})
        return key

    outputs = [visit(history) for history in _histories(config["output_layers"])]
    names = [visit(history) for history in _histories(config["input_layers"])]
    shapes = [list(tensor.shape[1:]) for tensor in network.inputs]
    return {"inputs": names, "shapes": shapes, "steps": steps, "outputs": outputs}


def linear(matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, ...], weights: Weights) -> dict[str, Any]:
    """The network z matrix + offset, reshaped, as `describe` gives one."""
    dense = {"op": "dense", "kernel": weights.add(matrix), "bias": weights.add(offset), "from": ["z"], "to": "h"}
    reshape = {"op": "reshape", "shape": list(shape), "from": ["h"], "to": "x"}
    return {"inputs": ["z"], "shapes": [[len(matrix)]], "steps": [dense, reshape], "outputs": ["x"]}


def _layer_inputs(network, inputs):
    """{layer: its inputs (n, d)} of the dense layers. Empty without examples."""
    if inputs is None:
        return {}
    dense = [layer for layer in network.layers if isinstance(layer, layers.Dense) and len(layer.input.shape) == 2]
    found = keras.Model(network.inputs, [layer.input for layer in dense])([inputs], training=False) if dense else []
    return {layer.name: ops.convert_to_numpy(values) for layer, values in zip(dense, found, strict=True)}


def _sequential(network, role, weights, seen):
    steps = []
    for number, layer in enumerate(network.layers):
        steps.append({**_step(layer, role, weights, [None], seen), "from": [str(number)], "to": str(number + 1)})
    return {
        "inputs": ["0"],
        "shapes": [list(network.input_shape[1:])],
        "steps": steps,
        "outputs": [str(len(steps))],
    }


def _histories(layers_of_config):
    """The histories (layer, node, tensor) in a configuration: Keras leaves the list out for a single tensor."""
    single = layers_of_config and isinstance(layers_of_config[0], str)
    return [layers_of_config] if single else layers_of_config


def _is_tensor(part):
    return isinstance(part, dict) and part.get("class_name") == "__keras_tensor__"


def _flat(call):
    """The arguments of a call in a configuration, without lists; `training` and `mask` are no part of it."""
    kwargs = [value for name, value in call["kwargs"].items() if name not in ("training", "mask")]
    found = []
    for part in (*call["args"], *kwargs):
        found += part if isinstance(part, list) else [part]
    return found


def _step(operation, role, weights, constants, seen):
    step = _handler(operation, role)(operation, constants)
    if step is None:
        raise _refusal(operation, role, "with these arguments")
    inputs = seen.get(operation.name)
    return {name: weights.add(value, inputs) if _is_array(value) else value for name, value in step.items()}


def _is_array(value):
    return isinstance(value, np.ndarray | keras.Variable) or ops.is_tensor(value)


def _handler(operation, role) -> Callable:
    kind = type(operation)
    is_keras = kind.__module__.split(".")[0] == "keras"
    if is_keras and kind.__name__ in _HANDLERS:
        return _HANDLERS[kind.__name__]
    if is_keras and _snake(kind.__name__) in _ACTIVATIONS and not isinstance(operation, layers.Layer):
        return lambda operation, constants: {"op": "activation", "activation": _snake(kind.__name__)}
    raise _refusal(operation, role)


def _refusal(operation, role, how=""):
    kind = f"{type(operation).__name__} {how}".strip()
    return ValueError(
        f"The {role}'s layer {operation.name!r} is a {kind}, which a page without a kernel can't run; it runs "
        f"{', '.join(name for name in _HANDLERS if hasattr(layers, name))}, log1p and activations: {_ADVICE}."
    )


def _snake(name):
    return {"LeakyRelu": "leaky_relu", "HardSigmoid": "hard_sigmoid"}.get(name, name.lower())


def _activation(layer):
    """The name of a layer's activation, or raises ValueError."""
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    is_keras = (getattr(layer.activation, "__module__", "") or "").split(".")[0] == "keras"
    if name not in _ACTIVATIONS or not is_keras:
        raise ValueError(
            f"The activation {name} of the layer {layer.name!r} is unknown to a page without a kernel; it knows "
            f"{', '.join(_ACTIVATIONS)}."
        )
    return name


def _affine(layer):
    bias = layer.bias if layer.use_bias else np.zeros(1)
    return {"kernel": ops.convert_to_tensor(layer.kernel), "bias": bias, "activation": _activation(layer)}


def _dense(layer, constants):
    return {"op": "dense", **_affine(layer)}


def _convolution(layer, constants):
    plain = (
        layer.data_format == "channels_last" and getattr(layer, "groups", 1) == 1 and set(layer.dilation_rate) == {1}
    )
    transposed = isinstance(layer, layers.Conv2DTranspose)
    if not plain or (transposed and layer.output_padding is not None) or layer.padding not in ("same", "valid"):
        return None
    name = "convolution_transposed" if transposed else "convolution"
    return {"op": name, "strides": list(layer.strides), "padding": layer.padding, **_affine(layer)}


def _batch_normalization(layer, constants):
    if layer.axis not in (-1, len(layer.input.shape) - 1):
        return None
    scale = 1 / np.sqrt(ops.convert_to_numpy(layer.moving_variance) + layer.epsilon)
    scale = scale * ops.convert_to_numpy(layer.gamma) if layer.scale else scale
    offset = -ops.convert_to_numpy(layer.moving_mean) * scale
    offset = offset + ops.convert_to_numpy(layer.beta) if layer.center else offset
    return {"op": "affine", "scale": scale, "offset": offset}


def _normalization(layer, constants):
    if tuple(layer.axis) not in ((-1,), (len(layer.input.shape) - 1,)) or layer.invert:
        return None
    mean, variance = (ops.convert_to_numpy(values).ravel() for values in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return {"op": "affine", "scale": scale, "offset": -mean * scale}


def _cropping(layer, constants):
    return {"op": "crop", "cropping": [list(side) for side in layer.cropping]}


def _pooling(layer, constants):
    return {"op": "average", "keep": layer.keepdims} if layer.data_format == "channels_last" else None


def _concatenate(layer, constants):
    return {"op": "concatenate"} if layer.axis in (-1, len(layer.output.shape) - 1) else None


def _relu(layer, constants):
    limit = None if layer.max_value is None else float(layer.max_value)
    return {"op": "relu", "slope": float(layer.negative_slope), "limit": limit} if layer.threshold == 0 else None


def _rescaling(layer, constants):
    return {"op": "affine", "scale": np.atleast_1d(layer.scale), "offset": np.atleast_1d(layer.offset)}


def _arithmetic(scale_and_offset):
    """The handler of x and a number: `scale_and_offset` gives both from the number, and whether it stands first."""

    def handle(operation, constants):
        numbers = [part for part in constants if part is not None]
        if len(constants) != 2 or len(numbers) != 1 or not isinstance(numbers[0], int | float):
            return None
        pair = scale_and_offset(float(numbers[0]), constants[0] is not None)
        return pair and {"op": "affine", "scale": np.array([pair[0]]), "offset": np.array([pair[1]])}

    return handle


def _add(operation, constants):
    if all(part is None for part in constants):
        return {"op": "add"}
    return _arithmetic(lambda number, first: (1.0, number))(operation, constants)


def _unchanged(layer, constants):
    return {"op": "activation", "activation": "linear"}


_HANDLERS: dict[str, Callable] = {
    "InputLayer": _unchanged,
    "Dense": _dense,
    "Conv2D": _convolution,
    "Conv2DTranspose": _convolution,
    "Reshape": lambda layer, constants: {"op": "reshape", "shape": list(layer.target_shape)},
    "Flatten": lambda layer, constants: {"op": "reshape", "shape": [-1]},
    "Cropping2D": _cropping,
    "GlobalAveragePooling2D": _pooling,
    "BatchNormalization": _batch_normalization,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Add": _add,
    "Activation": lambda layer, constants: {"op": "activation", "activation": _activation(layer)},
    "ReLU": _relu,
    "LeakyReLU": lambda layer, constants: {"op": "relu", "slope": float(layer.negative_slope), "limit": None},
    "Dropout": _unchanged,
    "SpatialDropout2D": _unchanged,
    "GaussianNoise": _unchanged,
    "Identity": _unchanged,
    "Subtract": _arithmetic(lambda number, first: (-1.0, number) if first else (1.0, -number)),
    "Multiply": _arithmetic(lambda number, first: (number, 0.0)),
    "TrueDivide": _arithmetic(lambda number, first: None if first else (1 / number, 0.0)),
    "Divide": _arithmetic(lambda number, first: None if first else (1 / number, 0.0)),
}
