"""Files that do harm, or are damaged, and the reasons for which they are refused.

Their payloads touch a marker. The files that they would have read are pipes, whose reader would wait for ever.
"""

import base64
import contextlib
import io
import json
import os
import pickle
import stat
import struct
import warnings
import zipfile

import h5py
import keras
import numpy as np

import kvae


class Folder:
    """Where a test's files are: an honest archive's members, a marker and a pipe."""

    def __init__(self, path):
        self.path, self.file = path, path / "model.keras"
        self.marker, self.pipe = path / "marker", path / "pipe"
        os.mkfifo(self.pipe)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh")])
        keras.saving.save_model(model, self.file)
        with zipfile.ZipFile(self.file) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.config = json.loads(self.members["config.json"])
        self.layer = self.config["config"]["layers"][1]

    def write(self, members=None, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(self.file, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            for name, content in (members or self.members).items():
                archive.writestr(name, content)

    def with_config(self, config):
        self.write({**self.members, "config.json": json.dumps(config)})

    def with_layer(self, layer):
        self.config["config"]["layers"].append(layer)
        self.with_config(self.config)

    @contextlib.contextmanager
    def weights(self):
        file = io.BytesIO(self.members["model.weights.h5"])
        with h5py.File(file, "a") as weights:
            yield weights["layers/dense/vars"]
        self.write({**self.members, "model.weights.h5": file.getvalue()})


def part(module, name, config, **more):
    return {"module": module, "class_name": name, "config": config, "registered_name": None, **more}


def function(module, name):
    return part(module, "function", name, registered_name=name)


def wrapped(layer):
    return part("keras.layers", "TimeDistributed", {"name": "wrapper", "layer": layer})


def touching(name):
    return keras.layers.Lambda(lambda x: (open(__import__("os").environ["KVAE_MARKER"], "w").close(), x)[1], name=name)


def lambda_layer(folder):
    layer = touching("touching")
    return keras.saving.serialize_keras_object(layer)


def tfsm(folder, module="keras.layers"):
    saved = folder.path / "saved"
    saved.mkdir()
    os.mkfifo(saved / "saved_model.pb")
    return part(module, "TFSMLayer", {"filepath": str(saved), "call_endpoint": "serve", "name": "tfsm"})


class Touch:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def torch_wrapper(folder):
    module = base64.b64encode(pickle.dumps(Touch(folder.marker))).decode()
    return part("keras.layers", "TorchModuleWrapper", {"module": module, "name": "torch"})


@keras.saving.register_keras_serializable("elsewhere")
class Toucher(keras.layers.Layer):
    def __init__(self, marker=None, **kwargs):
        super().__init__(**kwargs)
        open(marker, "w").close()


CONFIGS = {
    "a Lambda": (lambda f: f.with_layer(lambda_layer(f)), "has a Lambda, which can run code"),
    "a wrapped Lambda": (lambda f: f.with_layer(wrapped(lambda_layer(f))), "has a Lambda, which can run code"),
    "a lambda as an activation": (
        lambda f: activation(
            f, {"class_name": "__lambda__", "config": lambda_layer(f)["config"]["function"]["config"]}
        ),
        "names '__lambda__'",
    ),
    "a system call": (lambda f: activation(f, function("os", "system")), "names 'system' of os"),
    "a process": (
        lambda f: f.with_layer(part("subprocess", "Popen", {"args": ["touch", str(f.marker)]})),
        "names 'Popen' of subprocess",
    ),
    "eval": (lambda f: activation(f, function("builtins", "eval")), "names 'eval' of builtins"),
    "unsafe deserialization": (
        lambda f: activation(f, function("keras.config", "enable_unsafe_deserialization")),
        "keras.config.enable_unsafe_deserialization, which isn't a part of a model",
    ),
    "a download": (
        lambda f: f.with_layer(part("keras.utils", "get_file", {"origin": f.marker.as_uri()})),
        "keras.utils.get_file, which isn't a part of a model",
    ),
    "an unpickler of keras": (
        lambda f: activation(f, function("keras.src.utils.python_utils", "func_load")),
        "func_load, which isn't a part of a model",
    ),
    "a maker of parts": (
        lambda f: activation(f, function("keras.losses", "deserialize")),
        "keras.losses.deserialize, which isn't a part of a model",
    ),
    "a TFSMLayer": (lambda f: f.with_layer(tfsm(f)), "has a TFSMLayer, which can run code"),
    "a wrapped TFSMLayer": (lambda f: f.with_layer(wrapped(tfsm(f))), "has a TFSMLayer, which can run code"),
    "a TFSMLayer where it is made": (
        lambda f: f.with_layer(tfsm(f, "keras.src.export.tfsm_layer")),
        "has a TFSMLayer, which can run code",
    ),
    "a TFSMLayer for from_config": (lambda f: f.with_layer(wrapped(tfsm(f, None))), "names 'TFSMLayer' of None"),
    "a TorchModuleWrapper": (lambda f: f.with_layer(torch_wrapper(f)), "has a TorchModuleWrapper, which can run code"),
    "a StringLookup of a file": (
        lambda f: f.with_layer(part("keras.layers", "StringLookup", {"vocabulary": str(f.pipe)})),
        "names a file, vocabulary",
    ),
    "a TextVectorization of a file": (
        lambda f: f.with_layer(wrapped(part("keras.layers", "TextVectorization", {"vocabulary": "pipe"}))),
        "names a file, vocabulary 'pipe'",
    ),
    "a registered class under kvae's name": (
        lambda f: f.with_layer(
            part("kvae.models.vae", "VAE", {"marker": str(f.marker)}, registered_name="elsewhere>Toucher")
        ),
        "only keras' and kvae's own are loaded",
    ),
    "a registered name alone": (lambda f: activation(f, "elsewhere>Toucher"), "names 'elsewhere>Toucher'"),
    "an array of long strings": (
        lambda f: activation(f, part(None, "__numpy__", {"value": ["a"], "dtype": "U1000000000"})),
        "has an array of",
    ),
    "1.6 TB of weights": (
        lambda f: f.with_layer(part("keras.layers", "Dense", {"units": 10**11, "name": "large"})),
        "has the size 100000000000, more than its weights are for",
    ),
    "nested 10,000 deep": (
        lambda f: f.write({**f.members, "config.json": '{"class_name":' + "[" * 10_000 + "]" * 10_000 + "}"}),
        "config.json is nested too deep",
    ),
    "nested 60 deep": (lambda f: f.with_layer(deep(60)), "config.json is nested too deep, in more than 50 levels"),
    "units that are no number": (
        lambda f: (f.layer["config"].update(units="x"), f.with_config(f.config)),
        "damaged or not a .keras file: Keras makes no model of it, TypeError",
    ),
    "a list": (lambda f: f.with_config([f.config]), "config.json isn't that of a model"),
    "no JSON": (lambda f: f.write({**f.members, "config.json": b"\x80\x04\x95"}), "config.json isn't JSON"),
}


def activation(folder, value):
    folder.layer["config"]["activation"] = value
    folder.with_config(folder.config)


def deep(levels):
    return {"config": deep(levels - 1)} if levels else {}


def dataset(name, **arguments):
    """Puts another array in the place of the weights' first."""

    def write(folder):
        with folder.weights() as weights:
            del weights["0"]
            weights.create_dataset("0", **arguments)

    return write, name


def link(make, name):
    def write(folder):
        with folder.weights() as weights:
            del weights["0"]
            weights["0"] = make(folder, weights)

    return write, name


def raw(folder):
    with folder.weights() as weights:
        del weights["0"]
        weights.create_dataset("0", (3, 4), "float32", external=[(str(folder.pipe), 0, 48)])


def virtual(folder):
    layout = h5py.VirtualLayout((3, 4), "float32")
    layout[:] = h5py.VirtualSource(str(folder.pipe), "x", (3, 4))
    with folder.weights() as weights:
        del weights["0"]
        weights.create_virtual_dataset("0", layout)


def deep_group(folder):
    with folder.weights() as weights:
        for _ in range(1_000):
            weights = weights.create_group("g")


def loop(folder):
    with folder.weights() as weights:
        weights["again"] = weights.parent


WEIGHTS = {
    "an external link": link(lambda f, _: h5py.ExternalLink(str(f.pipe), "x"), "'0' in its model.weights.h5 is a Ext"),
    "a soft link": link(lambda f, _: h5py.SoftLink("/elsewhere"), "is a SoftLink"),
    "raw external data": (raw, "has its values in another file"),
    "virtual data": (virtual, "has its values in another file"),
    "160 GB declared": dataset("declares 160000000000 bytes and has 0", shape=(200_000, 200_000), dtype="float32"),
    "160 GB declared, compressed": dataset(
        "is filtered or compressed", shape=(200_000, 200_000), dtype="float32", chunks=(100, 100), compression="gzip"
    ),
    "strings": dataset("expected real numbers", data=["a"] * 3),
    "nested 1,000 deep": (deep_group, "model.weights.h5 is nested too deep"),
    "a loop": (loop, "is there twice"),
    "no HDF5": (lambda f: f.write({**f.members, "model.weights.h5": b"x" * 999}), "model.weights.h5 can't be read"),
}


def added(name, mode=stat.S_IFREG | 0o644):
    def write(folder):
        folder.write()
        with zipfile.ZipFile(folder.file, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "../../marker")

    return write


def zeros(folder):
    with zipfile.ZipFile(folder.file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("config.json", "w") as file:
            for _ in range(200):
                file.write(bytes(2**20))
        archive.writestr("model.weights.h5", folder.members["model.weights.h5"])


def sparse_zeros(folder):
    """As large, not compressed: on the disk it takes no room."""
    folder.write({**folder.members, "config.json": b"0"})
    patched(folder, lambda name, field: field if name != "config.json" else 200 * 2**20)


def patched(folder, size):
    """Other sizes in the archive's list of names."""
    content = bytearray(folder.file.read_bytes())
    with zipfile.ZipFile(folder.file) as archive:
        place = archive.start_dir
        for info in archive.infolist():
            struct.pack_into("<II", content, place + 20, *[size(info.filename, info.file_size)] * 2)
            place += 46 + len(info.filename)
    folder.file.write_bytes(content)


def directory_of_4_gb(folder):
    content = bytearray(folder.file.read_bytes())
    struct.pack_into("<I", content, len(content) - 10, 2**32 - 1)
    folder.file.write_bytes(content)


def damaged(change):
    return lambda f: f.file.write_bytes(change(f.file.read_bytes()))


def flipped(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def in_place_of_the_file(make):
    def write(folder):
        folder.file.unlink()
        make(folder.file)

    return write


ARCHIVES = {
    "200 MB of zeros as config": (zeros, "is compressed, to 209715200 bytes"),
    "200 MB as config": (sparse_zeros, "'config.json' in it has 209715200 bytes, expected 4194304 at most"),
    "more than is there": (lambda f: patched(f, lambda *_: 2**21), "it declares 6291456 bytes and has"),
    "a list of names of 4 GB": (directory_of_4_gb, "its list of names has 4294967295 bytes"),
    "../x": (added("../marker"), r"it holds '\.\./marker', which a saved model has no use for"),
    "an absolute name": (added("/tmp/marker"), "it holds '/tmp/marker'"),
    "a name of Windows": (added("assets\\..\\..\\vocabulary.txt"), "which a saved model has no use for"),
    "a name out of assets": (added("assets/../../vocabulary.txt"), "which a saved model has no use for"),
    "a pickle": (added("model.weights.npz"), "which a saved model has no use for"),
    "a name twice": (added("config.json"), "it holds 'config.json' more than once"),
    "a link": (added("assets/x/vocabulary.txt", stat.S_IFLNK | 0o777), "in it is a link"),
    "half a file": (damaged(lambda content: content[: len(content) // 2]), "damaged or not a .keras file"),
    "random bytes": (damaged(lambda content: np.random.default_rng(0).bytes(9_999)), "damaged or not a .keras file"),
    "an empty file": (damaged(lambda content: b""), "damaged or not a .keras file: it is empty"),
    "a bit flipped": (damaged(flipped), "damaged or not a .keras file: Bad CRC-32"),
    "no weights": (
        lambda f: f.write({"config.json": "{}"}),
        "damaged or not a .keras file: it has no model.weights.h5",
    ),
    "a folder": (in_place_of_the_file(lambda path: path.mkdir()), "damaged or not a .keras file: it isn't a file"),
    "a pipe": (in_place_of_the_file(os.mkfifo), "damaged or not a .keras file: it isn't a file"),
}


def layers(*parts):
    def write(folder):
        folder.config["config"]["layers"] += parts
        folder.with_config(folder.config)

    return write


def keras_layer(name, **config):
    return part("keras.layers", name, config)


def metric(name, **config):
    def write(folder):
        folder.config["compile_config"] = {
            "optimizer": "adam",
            "loss": "mse",
            "metrics": [part("keras.metrics", name, config)] if isinstance(config, dict) else config,
        }
        folder.with_config(folder.config)

    return write


def functional(*parts, outputs):
    """A functional model of one input, x (n, 3), and these layers."""

    def write(folder):
        x = part("keras.layers", "InputLayer", {"batch_shape": [None, 3], "dtype": "float32", "name": "x"})
        layers = [{**x, "name": "x", "inbound_nodes": []}, *parts]
        config = {"name": "f", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [[outputs, 0, 0]]}
        folder.with_config(part("keras.src.models.functional", "Functional", config))

    return write


def node(module, name, config, *arguments):
    return {**part(module, name, config), "name": config["name"], "inbound_nodes": [{"args": arguments, "kwargs": {}}]}


def tensor(of):
    return part("keras", "__keras_tensor__", {"shape": [None, 3], "dtype": "float32", "keras_history": [of, 0, 0]})


def numbers(count):
    return part(None, "__numpy__", {"value": [1] * count, "dtype": "float32"})


def record(**values):
    def write(folder):
        model = kvae.PCA(1).fit(np.random.default_rng(0).normal(size=(9, 3)), verbose=0)
        for name, value in values.items():
            setattr(model.record, "_data" if name == "data" else name, value)
        keras.saving.save_model(model, folder.file)

    return write


def chain(count):
    previous, parts = "x", []
    for number in range(count):
        parts.append(node("keras.layers", "Dense", {"name": f"d{number}", "units": 1}, tensor(previous)))
        previous = f"d{number}"
    return functional(*parts, outputs=previous)


LARGE = {"kernel_initializer": part("keras.initializers", "Orthogonal", {"gain": 1.0, "seed": None})}
SIZE = "has the size"
SIZES = {
    "8 GB of unknown words": (layers(keras_layer("StringLookup", vocabulary=["a"], num_oov_indices=10**9)), SIZE),
    "10**9 numbers": (layers(keras_layer("IntegerLookup", vocabulary=[1], num_oov_indices=10**9)), SIZE),
    "5 * 10**7 ngrams": (layers(keras_layer("TextVectorization", ngrams=5 * 10**7)), SIZE),
    "10**9 thresholds": (metric("AUC", num_thresholds=10**9), SIZE),
    "10**9 thresholds of a precision": (metric("PrecisionAtRecall", recall=0.5, num_thresholds=10**9), SIZE),
    "10**5 x 10**5 classes": (metric("MeanIoU", num_classes=10**5), SIZE),
    "16,000 x 16,000 classes": (metric("MeanIoU", num_classes=16_000), r"wants 20\d{8} bytes of weights"),
    "16,000 x 16,000 weights": (
        layers(*(keras_layer("Dense", units=16_000, **LARGE) for _ in range(2))),
        r"wants 10\d{8} bytes of weights",
    ),
    "a table of 16,000 x 8,000": (
        layers(keras_layer("MelSpectrogram", num_mel_bins=16_000, fft_length=16_000)),
        "has a MelSpectrogram, which makes tables",
    ),
    "20,000 layers": (layers(*(keras_layer("Dense", units=1) for _ in range(20_000))), "has more than 1,500 layers"),
    "20,000 layers without weights": (
        layers(*(keras_layer("Activation", activation="tanh") for _ in range(20_000))),
        "has more than 1,500 layers",
    ),
    "1,600 layers, one behind the other": (chain(1_600), "has more than 1,500 layers"),
    "a loop of 16,000 turns": (
        functional(
            node("kvae.flows", "Planar", {"name": "f", "steps": 16_000}, tensor("x")),
            outputs="f",
        ),
        "has a Planar of 16000 steps, expected 1000 at most",
    ),
    "an unrolled loop of 16,000 turns": (
        layers(
            keras_layer("InputLayer", batch_shape=[None, 16_000, 1]),
            keras_layer("SimpleRNN", units=1, unroll=True),
        ),
        "unrolls a loop over inputs of size 16000",
    ),
    "a table of constants": (
        functional(node("keras.src.ops.numpy", "Outer", {"name": "o"}, numbers(16_000), numbers(16_000)), outputs="o"),
        "computes something that isn't a function of the model's input",
    ),
    "an output that isn't there": (
        functional(outputs="nothing"),
        "damaged or not a .keras file: Keras makes no model of it",
    ),
    "a long name": (added(f"assets/{300 * 'a'}/vocabulary.txt"), "it holds a name of 322 characters"),
    "2,000 assets": (
        lambda f: f.write({**f.members, **{f"assets/a{i}/vocabulary.txt": b"" for i in range(2_000)}}),
        "it holds 2003 files, expected 1000 at most",
    ),
    "complex weights": dataset("expected real numbers", data=np.ones((3, 4), "complex64")),
    "a record of another epoch": (record(epochs="x"), "the record of its training holds values of other types"),
    "a record of other data": (record(data=["x"]), "the record of its training holds values of other types"),
    "a record of other metrics": (record(metrics={"a": []}), "the record of its training holds values of other types"),
}
HOSTILE = {
    f"{kind}: {name}": case
    for kind, cases in (("config", CONFIGS), ("weights", WEIGHTS), ("archive", ARCHIVES), ("size", SIZES))
    for name, case in cases.items()
}
