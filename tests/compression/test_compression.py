"""Examples to a file of -ELBO and back, for each likelihood of whole numbers, and what a damaged file says."""

import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from breadth import thorough
from keras import ops
from processes import ENVIRONMENT

import kvae
from kvae.compression import compress, decompress
from kvae.compression.container import Reader, digest_of
from kvae.compression.exact import Rounding, double

RNG = np.random.default_rng(0)
RATES = RNG.gamma(2, 4, (150, 1)) * np.linspace(0.5, 2, 7)
PIXELS = (RNG.random((150, 3, 2, 3)) * 255).astype("uint8")
CASES = {
    "bernoulli uint8": (kvae.BernoulliLikelihood, (PIXELS > 200).astype("uint8") * np.uint8(255)),
    "bernoulli bool": (kvae.BernoulliLikelihood, PIXELS[:3, :1, :1] > 100),
    "categorical": (kvae.CategoricalLikelihood, np.eye(5)[RNG.integers(0, 5, (150, 4))].astype("float32")),
    "categorical 256": (lambda: kvae.CategoricalLikelihood(256), PIXELS),
    "logistic 256": (lambda: kvae.DiscretizedLogisticLikelihood(2), PIXELS),
    "logistic 7": (
        lambda: kvae.DiscretizedLogisticLikelihood(2, levels=7),
        (RNG.integers(0, 7, (150, 5, 2)) / 6).astype("float32"),
    ),
    "poisson": (kvae.PoissonLikelihood, RNG.poisson(RATES).astype("int32")),
    "negative binomial": (kvae.NegativeBinomialLikelihood, RNG.poisson(RATES).astype("float32")),
    "negative binomial decoder": (lambda: kvae.NegativeBinomialLikelihood("decoder"), RNG.poisson(RATES) * 1.0),
}

FURTHER = "categorical 256", "logistic 7", "negative binomial decoder"


def model_of(likelihood, shape, latent_dim=2, **arguments):
    keras.utils.set_random_seed(0)
    counts = "log1p" if isinstance(likelihood, kvae.PoissonLikelihood | kvae.NegativeBinomialLikelihood) else None
    encoder = kvae.networks.dense_encoder(shape, latent_dim, (16,), preprocessing=counts)
    outputs = {"outputs": len(likelihood.parameters)}
    decoder = kvae.networks.dense_decoder(likelihood.decoder_shape(shape), latent_dim, (16,), **outputs)
    model = kvae.VAE(encoder, decoder, likelihood, seed=0, **arguments)
    model.compile(run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """A model, its data, and their file."""
    x = (RNG.random((1_500, 60)) < np.linspace(0.02, 0.5, 60)).astype("float32")
    model = model_of(kvae.BernoulliLikelihood(), (60,))
    shares = np.linspace(0.02, 0.5, 60)
    model.decoder.layers[-2].bias.assign(np.log(shares / (1 - shares)))
    model.encoder.get_layer("z_log_var").bias.assign([-3.0, -3.0])
    path = tmp_path_factory.mktemp("compressed") / "x.kvae"
    return model, x, path, compress(model, x, path, verbose=0)


@pytest.mark.parametrize("name", [thorough(name) if name in FURTHER else name for name in CASES])
def test_the_same_bytes_come_back(name, tmp_path):
    make, x = CASES[name]
    model = model_of(make(), x.shape[1:])
    compressed = compress(model, x, tmp_path / "x.kvae", verbose=0)
    restored = decompress(tmp_path / "x.kvae", model)
    assert restored.dtype == x.dtype and restored.shape == x.shape and restored.tobytes() == x.tobytes()
    assert compressed.examples == len(x) and compressed.size == (tmp_path / "x.kvae").stat().st_size


def test_a_file_is_as_long_as_the_bound(binary):
    model, x, _, compressed = binary
    elbo = np.mean([float(ops.mean(model.draw(x).elbo)) for _ in range(20)])
    bound = -elbo * len(x) / np.log(2) / 8
    assert bound * 0.995 < compressed.size < bound * 1.005 + 500  # bytes: header, index, heads of the lanes
    assert "1,500 examples" in str(compressed) and compressed.bits_per_dimension == pytest.approx(
        compressed.nats / 60 / np.log(2)
    )


@keras.saving.register_keras_serializable("test_compression")
class LearnedNormal(kvae.Prior):
    """p(z) = N(mean, diag(exp(log_var))), both learned."""

    def build(self, input_shape, event_shape=None):
        self.mean = self.add_weight(name="mean", shape=(1, input_shape[-1]), initializer="random_normal")
        self.log_var = self.add_weight(name="log_var", shape=(1, input_shape[-1]), initializer="random_normal")
        super().build(input_shape, event_shape)

    def distribution(self, count, posterior=None):
        rows = [ops.repeat(weight, count, axis=0) for weight in (self.mean, self.log_var)]
        return kvae.distributions.Normal(*rows)


PRIORS = {
    "a learned normal": LearnedNormal,
    "a mixture": lambda: kvae.MixtureOfGaussians(4),
    "a VampPrior": lambda: kvae.VampPrior(5, initial_std=0.5),
}


@pytest.mark.parametrize("name", ["a learned normal", thorough("a mixture"), thorough("a VampPrior")])
def test_other_priors_of_diagonal_normals_are_as_long_as_their_bound(name, binary, tmp_path):
    trained, x, *_ = binary
    model = model_of(kvae.BernoulliLikelihood(), (60,), prior=PRIORS[name]())
    model.prior.set_weights([weight * 3 for weight in model.prior.get_weights()])
    for network in ("encoder", "decoder"):
        getattr(model, network).set_weights(getattr(trained, network).get_weights())
    compressed = compress(model, x, tmp_path / "x.kvae", verbose=0)
    assert decompress(tmp_path / "x.kvae", model).tobytes() == x.tobytes()
    bound = -np.mean([float(ops.mean(model.draw(x).elbo)) for _ in range(20)]) * len(x) / np.log(2) / 8
    assert bound * 0.995 < compressed.size < bound * 1.005 + 500


@pytest.mark.parametrize("mean, excess", [thorough(5.0, 1.005), thorough(8.0, 1.005), (40.0, 1.0)])
def test_codes_far_from_the_prior_come_back_and_cost_no_more_than_the_bound(mean, excess, binary, tmp_path):
    trained, x, *_ = binary
    model = model_of(kvae.BernoulliLikelihood(), (60,))
    for network in ("encoder", "decoder"):
        getattr(model, network).set_weights(getattr(trained, network).get_weights())
    model.encoder.get_layer("z_mean").bias.assign([mean, -mean])
    compressed = compress(model, x, tmp_path / "x.kvae", verbose=0)
    assert decompress(tmp_path / "x.kvae", model).tobytes() == x.tobytes()
    bound = -np.mean([float(ops.mean(model.draw(x).elbo)) for _ in range(20)]) * len(x) / np.log(2) / 8
    assert compressed.size < bound * excess + 500


def test_blocks_are_read_alone_and_to_a_folder(binary, tmp_path, monkeypatch):
    model, x = binary[0], binary[1][:1_000]
    monkeypatch.setattr("kvae.compression.files._MOST_EXAMPLES", 400)
    path = tmp_path / "x.kvae"
    compress(model, kvae.data.arrays.batches(x, 130), path, verbose=0)
    read = []
    block = Reader.block
    monkeypatch.setattr(Reader, "block", lambda self, number: read.append(number) or block(self, number))
    assert np.array_equal(decompress(path, model, start=500, stop=900), x[500:900]) and read == [1, 2]
    assert decompress(path, model, start=1_000).shape == (0, 60)
    assert decompress(path, model, directory=tmp_path / "folder") is None
    stream, *_ = kvae.data.load(tmp_path / "folder", 1_500, shuffle=0, validation=0)
    assert np.array_equal(np.concatenate(list(stream.as_numpy_iterator())), x)


def test_each_damaged_byte_and_each_cut_is_told(binary):
    content = binary[2].read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"damaged|ends early|isn't a file that"):
            whole(damaged)
    for length in [*range(0, len(content), 101), len(content) - 1]:
        with pytest.raises(ValueError, match=r"ends early|damaged|isn't a file that"):
            whole(content[:length])
    with pytest.raises(ValueError, match="damaged"):
        whole(content + b"x")


def whole(content):
    file = io.BytesIO(content)
    reader = Reader(file, "x.kvae")
    return [reader.block(number) for number in range(len(reader.examples))]


def test_another_model_is_told(binary, tmp_path):
    model, x, path, _ = binary
    other = model_of(kvae.BernoulliLikelihood(), (60,), latent_dim=3)
    with pytest.raises(ValueError, match="other weights"):
        decompress(path, other)
    with pytest.raises(ValueError, match=r"shape \(60,\); the model's have \(59,\)"):
        decompress(path, model_of(kvae.BernoulliLikelihood(), (59,)))
    relu = model.decoder.layers[1]
    relu.activation = keras.activations.tanh  # the same weights
    with pytest.raises(ValueError, match="compute otherwise"):
        decompress(path, model)
    relu.activation = keras.activations.relu
    assert np.array_equal(decompress(path, model), x)


REFUSED = {
    "a density": (lambda: model_of(kvae.GaussianLikelihood(), (6,)), "GaussianLikelihood, a density"),
    "a flow": (
        lambda: model_of(kvae.BernoulliLikelihood(), (6,), prior=kvae.FlowPrior(kvae.flows.Coupling(steps=2))),
        "FlowPrior; compression expects a diagonal normal or a mixture of those",
    ),
    "a mixture of full normals": (
        lambda: model_of(kvae.BernoulliLikelihood(), (6,), prior=kvae.MixtureOfGaussians(3, "full")),
        "MixtureOfGaussians.*'full'|diagonal normal or a mixture of those",
    ),
    "missing values": (lambda: model_of(kvae.BernoulliLikelihood(), (6,), missing=True), "missing values"),
    "PCA": (lambda: kvae.PCA(2), "model is of PCA"),
    "an array": (lambda: np.zeros(3), "array|ndarray"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_a_code_are_refused(name, tmp_path):
    make, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        compress(make(), np.zeros((4, 6), "float32"), tmp_path / "x.kvae", verbose=0)
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_come_back_are_refused_and_an_old_file_stays(binary, tmp_path):
    model, x, *_ = binary
    target = tmp_path / "x.kvae"
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        compress(model, x, target, verbose=0)
    with pytest.raises(IsADirectoryError, match="is a folder; expected the name of a file"):
        compress(model, x, tmp_path, overwrite=True, verbose=0)
    with pytest.raises(FileNotFoundError, match="no folder"):
        compress(model, x, tmp_path / "none" / "x.kvae", verbose=0)
    negative = x[:4].copy()
    negative[2, 5] = -0.0
    with pytest.raises(ValueError, match=r"-0\.0"):
        compress(model, negative, target, overwrite=True, verbose=0)
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="isn't a file that"):
        decompress(target, model)


def test_numbers_that_differ_a_little_are_rounded_alike():
    numbers = np.concatenate([RNG.normal(size=10_000) * 30, (np.arange(-50, 50) + 0.5) / 2**14])
    first = Rounding()
    rounded = first(0, [ops.convert_to_tensor(numbers)])[0]
    assert 100 <= len(first.notes) < 110 and np.abs(rounded - numbers).max() <= 2**-15
    other = numbers * (1 + 1e-14 * RNG.choice([-1, 1], len(numbers)))
    assert np.array_equal(Rounding(first.notes)(0, [ops.convert_to_tensor(other)])[0], rounded)
    assert not np.array_equal(Rounding()(0, [ops.convert_to_tensor(other)])[0], rounded)


def test_a_copy_in_double_precision_computes_the_same():
    encoder = kvae.networks.conv_encoder((8, 8, 1), 2, filters=(4,))
    x = RNG.random((3, 8, 8, 1))
    copied = double(encoder)(x)
    assert {str(output.dtype) for output in copied} == {"<dtype: 'float64'>"}
    np.testing.assert_allclose(copied, encoder(x.astype("float32")), atol=1e-5)


SCRIPT = """
import sys
import kvae
from kvae.compression.container import digest_of
for name in sys.argv[1:]:
    print(digest_of(kvae.compression.decompress(name + ".kvae", kvae.load(name + ".keras"))).hex())
"""


@pytest.mark.processes
@pytest.mark.parametrize("threads", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_another_process_with_other_threads_restores_the_bytes(threads, tmp_path):
    names = "bernoulli uint8", "logistic 256", "negative binomial"
    for name in names:
        make, x = CASES[name]
        model = model_of(make(), x.shape[1:])
        model.save(tmp_path / f"{name}.keras")
        compress(model, x, tmp_path / f"{name}.kvae", verbose=0)
    environment = {**ENVIRONMENT, "TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-c", SCRIPT, *(tmp_path / name for name in names)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest_of(CASES[name][1]).hex() for name in names]
