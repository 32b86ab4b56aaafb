"""What goes wrong in a stream is said as what it is: a generator's exception, a stall, memory that isn't there."""

import json
import pathlib
import re
import resource
import subprocess
import sys
import traceback

import numpy as np
import pytest
import tensorflow as tf
from processes import ENVIRONMENT
from small_models import dense_vae_compiled

import kvae
from kvae.data import errors

X = np.random.default_rng(0).random((60, 6)).astype("float32")


class Refusal(Exception):
    def __init__(self, number, reason):
        super().__init__(number, reason)
        self.number, self.reason = number, reason

    def __str__(self):
        return f"{self.reason} at {self.number}"


RAISED = [
    ValueError("not\n\nso [good]: 'é'"),
    KeyError("k"),
    OSError(2, "No such file", "a.png"),
    Refusal(3, "no"),
    RuntimeError(),
]


def raising(error, batches=3):
    def generate():
        yield from np.split(X, 6)[:batches]
        raise error

    signature = tf.TensorSpec((None, 6), "float32")
    return tf.data.Dataset.from_generator(generate, output_signature=signature).apply(
        tf.data.experimental.assert_cardinality(6)
    )


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_generators_exception_is_itself_and_says_where(error):
    with pytest.raises(type(error)) as found, errors.clear_errors():
        list(raising(error))
    assert str(found.value) == str(error)
    assert found.value.__suppress_context__
    (note,) = found.value.__notes__
    assert __file__ in note and "raise error" in note and "script_ops" not in note


@pytest.mark.parametrize("call", ["fit", "fit, first batch", "validate", "evaluate", "predict", "transform", "PCA"])
def test_every_method_raises_what_the_stream_raised(call):
    model = dense_vae_compiled()
    data = raising(Refusal(3, "no"), 0 if call == "fit, first batch" else 3)
    actions = {
        "fit": lambda: model.fit(data, verbose=0),
        "fit, first batch": lambda: model.fit(data, verbose=0),
        "validate": lambda: model.fit(X, validation_data=data, verbose=0),
        "evaluate": lambda: model.evaluate(data, verbose=0),
        "predict": lambda: model.predict(data, verbose=0),
        "transform": lambda: model.transform(data),
        "PCA": lambda: kvae.PCA(2).fit(data, verbose=0),
    }
    with pytest.raises(Refusal) as found:
        actions[call]()
    assert f"\n{__name__}.Refusal: no at 3\nIt was raised in the stream, at\n" in "".join(
        traceback.format_exception(found.value)
    )


def test_a_function_that_tensorflow_calls_raises_its_own(tmp_path):
    def half(x):
        raise ZeroDivisionError("by nothing")

    mapped = tf.data.Dataset.range(3).map(lambda i: tf.py_function(half, [i], tf.int64))
    with pytest.raises(ZeroDivisionError, match="by nothing"), errors.clear_errors():
        list(mapped)

    class Unfindable(Exception):
        pass

    error = Unfindable("here")
    data = raising(error)
    with pytest.raises(Unfindable, match="here"), errors.clear_errors():
        list(data)


LOWER = "lower batch_size, or shuffle where the data are shuffled"
OUTCOMES = {
    "batch": r"ResourceExhaustedError: no memory for a tensor of shape \(250000, 250\) and type float, "
    r"250,000,000 bytes: ",
    "pool": r"MemoryError: no memory for a pool of \d+ blocks of .*packed, [\d,]{10,} bytes: ",
    "reader": r"MemoryError: Unable to allocate .* GiB for an array with shape .*: ",
}


@pytest.fixture(scope="module")
def under_a_cap(tmp_path_factory):
    command = [
        "sh",
        "-c",
        'ulimit -s 1024; exec "$@"',
        "sh",
        sys.executable,
        __file__,
        str(tmp_path_factory.mktemp("cap") / "packed"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, env=ENVIRONMENT)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("[")]
    return dict(json.loads(line) for line in lines), ended.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("case", OUTCOMES)
def test_memory_that_is_not_there_is_named_with_its_bytes(under_a_cap, case):
    found = under_a_cap[0].get(case, "")
    assert re.fullmatch(OUTCOMES[case] + LOWER, found), (found, under_a_cap[1])


def main(folder):
    x = np.zeros((400_000, 250), "uint8")
    kvae.data.pack(x.astype("float32"), folder, progress=False)
    encoder = kvae.networks.dense_encoder((250,), 2, hidden=(8,))
    model = kvae.VAE(encoder, kvae.networks.dense_decoder((250,), 2, hidden=(8,)))
    model.compile()
    model.fit(x[:256], verbose=0)

    def generate():
        for number in range(3):
            yield np.zeros((4, 250) if number < 2 else (10**8, 250), "uint8")

    reader = tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec((None, 250), "uint8"))
    packed = kvae.data.load(folder, 100, validation=0, shuffle=10**6)[0]
    large = tf.data.Dataset.from_tensors(x[:250_000])
    model.fit(reader.take(2), verbose=0)
    limit = int(pathlib.Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024 + 300_000_000
    for case, fit in {
        "batch": lambda: model.fit(large, verbose=0),
        "pool": lambda: model.fit(packed, verbose=0),
        "reader": lambda: model.fit(reader, verbose=0),
    }.items():
        room = 2_000_000_000 if case == "reader" else 0  # its array is of 25 GB; threads need some of what is left
        resource.setrlimit(resource.RLIMIT_DATA, (limit + room, resource.RLIM_INFINITY))
        try:
            fit()
        except Exception as error:
            print(json.dumps([case, f"{type(error).__name__}: {error}"]), flush=True)
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
