"""Whatever is given as data or as an argument is accepted by a rule, or refused before any work in one sentence."""

import functools
import pathlib
import re
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import tensorflow as tf
from breadth import EAGERLY_AND_IN_A_GRAPH, thorough
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from small_models import dense_vae

import kvae
from kvae.data import validation
from kvae.networks import conv_decoder, conv_encoder, dense_decoder, dense_encoder

X = np.random.default_rng(0).random((64, 6)).astype("float32")
PIXELS = np.random.default_rng(1).integers(0, 256, (64, 6)).astype("uint8")
IMAGES = np.random.default_rng(2).random((12, 8, 8, 1)).astype("float32")


class Same(NamedTuple):
    """Accepted: trains to the same weights, to the bit, and is measured by the same numbers as the reference."""

    reference: Any = X
    warning: str = ""


class Refused(NamedTuple):
    error: type
    phrase: str


class Data(NamedTuple):
    """make: of the data, anew each time. model: whose data they are. pca: its rule where that is another."""

    name: str
    make: Any
    rule: Same | Refused
    model: str = "vae"
    pca: Any = None


class DataFrame:
    """What kvae may see of a pandas.DataFrame, which the tests don't need."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __getitem__(self, key):
        return DataFrame(self.values[key])

    def to_numpy(self):
        return self.values


def stream(*arrays, batch=16):
    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays).batch(batch)


def at(value, dtype="float32"):
    x = X.astype(dtype)
    x[40, 3] = value
    return x


def generated(function):
    return tf.data.Dataset.from_generator(function, output_signature=tf.TensorSpec((None, 6)))


def raising():
    raise ValueError("the disk is gone")
    yield X[:16]


def nothing(*batch):
    return False


RAGGED = tf.ragged.constant([[1.0] * 6, [2.0] * 3])
NOT_FINITE = Refused(ValueError, "x has NaN or infinite values, first in example 40: remove those")
TOO_LARGE = Refused(ValueError, r"magnitude 1e\+30, first in example 40, .* scale the data")
NO_ARRAY = "expected a tf.data.Dataset or numpy arrays: "
NO_VARIANCE = Refused(ValueError, "no variance left")
SINGLE = Refused(ValueError, r"these are single examples, not batches: call \.batch\(n\)")
EMPTY = Refused(ValueError, "x is empty")


def wrong_shape(advice):
    return Refused(ValueError, rf"x has the shape .*, but the model takes \(n, .*{advice}")


VALUES = [
    Data("NaN", lambda: at(np.nan), NOT_FINITE),
    Data("+inf", lambda: at(np.inf), NOT_FINITE),
    Data("-inf", lambda: at(-np.inf, "float64"), NOT_FINITE),
    Data("NaN in a stream's first batch", lambda: stream(at(np.nan), batch=64), Refused(ValueError, "in its first")),
    Data("1e30", lambda: at(1e30), TOO_LARGE, pca=NO_VARIANCE),
    Data(
        "1e30 in a stream",
        lambda: stream(at(1e30), batch=64),
        Refused(ValueError, "in its first batch, .* scale the data"),
        pca=NO_VARIANCE,
    ),
    Data("all equal", lambda: 0 * X + 0.5, Same(0 * X + 0.5, "Every value .* is 0.5"), pca=NO_VARIANCE),
    Data("all zero", lambda: 0 * X, Same(0 * X, "Every value .* is 0, of which"), pca=NO_VARIANCE),
    Data(
        "[-1, 1] into Bernoulli", lambda: 2 * X - 1, Refused(ValueError, r"expects values in \[0, 1\]: "), "bernoulli"
    ),
    Data(
        "-1 far down an array",
        lambda: np.concatenate([*[X] * 8, X[:1] - 2]),
        Refused(ValueError, "holds the value -1.* in example 512, BernoulliLikelihood expects"),
        "bernoulli",
    ),
]
TYPES = [
    Data("uint8: pixels, scaled by 1/255", lambda: PIXELS, Same(PIXELS * np.float32(1 / 255))),
    Data("uint8 of 0 and 1", lambda: PIXELS % 2, Refused(ValueError, "means 0 to 255 .* give it as bool or float")),
    Data("int32: as it is", lambda: (PIXELS % 4).astype("int32"), Same((PIXELS % 4).astype("float32"), "whole numb")),
    Data("float16", lambda: X.astype("float16"), Same(X.astype("float16").astype("float32"))),
    Data("float64", lambda: X.astype("float64"), Same()),
    Data("bool: 0 and 1", lambda: X > 0.5, Same((X > 0.5).astype("float32"))),
    Data("complex", lambda: X.astype(complex), Refused(TypeError, "dtype complex128, expected .*np.abs")),
    Data("object", lambda: X.astype(object), Refused(TypeError, "dtype object, expected .*astype")),
    Data("strings", lambda: X.astype(str), Refused(TypeError, "dtype str.*, expected .*astype")),
    Data("dates", lambda: X.astype("datetime64[s]"), Refused(TypeError, "dtype datetime64.*, expected")),
    Data("None", lambda: None, Refused(TypeError, "found NoneType, " + NO_ARRAY)),
]
SHAPES = [
    Data("no rows", lambda: X[:0], EMPTY),
    Data("one row", lambda: X[:1], Same(X[:1]), pca=Refused(ValueError, "x has 1 examples; 2 axes need more")),
    Data("no features", lambda: X[:, :0], Refused(ValueError, r"\(64, 0\), whose examples hold no values")),
    Data("one example", lambda: X[0], SINGLE),
    Data("flat for images", lambda: IMAGES.reshape(12, 64), wrong_shape(r"x.reshape\(\(-1, 8, 8, 1"), "images"),
    Data("images for flat", lambda: X.reshape(64, 3, 2, 1), wrong_shape(r"x.reshape\(\(-1, 6")),
    Data(
        "no channel axis", lambda: IMAGES[..., 0], wrong_shape(r"the axis of the channel with x\[\.\.\., Non"), "images"
    ),
    Data("three channels", lambda: np.repeat(IMAGES, 3, -1), wrong_shape("tf.image.rgb_to_grayscale"), "images"),
    Data("channels first", lambda: np.moveaxis(IMAGES, -1, 1), wrong_shape(r"np.moveaxis\(x, 1, -1\)"), "images"),
    Data("another size", lambda: IMAGES[:, :7], wrong_shape(r"tf.image.resize\(x, \(8, 8\)\)"), "images"),
    Data("five axes", lambda: IMAGES[None], wrong_shape("an axis is too many: x.reshape"), "images"),
]
CONTAINERS = [
    Data("a list of arrays", lambda: list(X), Refused(ValueError, "found a tuple of 64, expected .*np.stack")),
    Data("a list of two", lambda: [X[0], X[1]], SINGLE),
    Data("a list of numbers", lambda: X[:2].tolist(), Refused(TypeError, NO_ARRAY + "np.asarray")),
    Data("ragged", lambda: RAGGED, Refused(TypeError, r"rows differ in length, and \.to_tensor\(\) pads")),
    Data("a ragged stream", lambda: stream(RAGGED), Refused(TypeError, r"one dense tensor: map .*\.to_tensor\(\)")),
    Data("a dict with the wrong key", lambda: {"picture": X}, Refused(ValueError, 'expected one with the key "image"')),
    Data("a tfds dict", lambda: {"image": X, "label": np.arange(64)}, Same()),
    Data("a stream of tfds dicts", lambda: stream({"image": X, "label": np.arange(64)}), Same()),
    Data("a path", lambda: "x.npy", Refused(TypeError, "found str, .*kvae.data.load.*kvae.data.from_folder")),
    Data("a pathlib.Path", lambda: pathlib.Path("x"), Refused(TypeError, "Path, .*kvae.data.load.*from_folder")),
    Data("a DataFrame", lambda: DataFrame(X), Same()),
    Data("a DataFrame with texts", lambda: DataFrame(X.astype(object)), Refused(TypeError, "dtype object, expected")),
    Data("sparse", lambda: scipy.sparse.csr_matrix(X), Refused(TypeError, r"csr_matrix, .*its \.toarray\(\) is one")),
    Data("a sparse tensor", lambda: tf.sparse.from_dense(X), Refused(TypeError, "tf.sparse.to_dense makes one")),
    Data("a generator", lambda: (X[i : i + 16] for i in (0, 16)), Refused(TypeError, "Dataset.from_generator")),
    Data("masked", lambda: np.ma.masked_less(X, 0.2), Refused(TypeError, r"\.filled\(value\)")),
    Data("a tensor", lambda: tf.constant(X), Same()),
]
STREAMS = [
    Data("x only", lambda: stream(X), Same()),
    Data("(x, y)", lambda: stream(X, np.arange(64)), Same()),
    Data("unbatched", lambda: tf.data.Dataset.from_tensor_slices(X), SINGLE),
    Data("empty", lambda: stream(X).take(0), EMPTY),
    Data("filtered to nothing", lambda: stream(X).filter(nothing), EMPTY),
    Data("an empty batch", lambda: generated(lambda: iter([X[:0], X])), EMPTY),
    Data("infinite", lambda: stream(X).repeat(), Refused(ValueError, "endless stream: say how many batches")),
    Data("raising: its own error", lambda: generated(raising), Refused(ValueError, "the disk is gone")),
    Data("of a generator", lambda: generated(lambda: iter(np.split(X, 4))), Same(X, "ran out of data")),  # Keras' words
    Data("a last batch of one", lambda: stream(X, batch=21), Same(stream(X, X, batch=21))),
]
TABLE = {"values": VALUES, "types": TYPES, "shapes": SHAPES, "containers": CONTAINERS, "streams": STREAMS}
ROWS = [row for rows in TABLE.values() for row in rows]
REFUSED = [row for row in ROWS if isinstance(row.rule, Refused)]
ACCEPTED = [row for row in ROWS if isinstance(row.rule, Same)]

WHOLE = "expected an integer of at least 1"
SEED = r"seed is .*; expected an integer from 0 to 2\*\*32 - 1"
ARGUMENTS = {
    "latent_dim 0": (lambda: dense_encoder((6,), 0), ValueError, f"latent_dim is 0; {WHOLE}"),
    "latent_dim -1": (lambda: conv_decoder((8, 8, 1), -1), ValueError, f"latent_dim is -1; {WHOLE}"),
    "latent_dim 1.5": (lambda: kvae.PCA(1.5), ValueError, f"latent_dim is 1.5; {WHOLE}"),
    'latent_dim "2"': (lambda: dense_decoder((6,), "2"), ValueError, f"latent_dim is '2'; {WHOLE}"),
    "beta negative": (lambda: kvae.ELBO(-0.5), ValueError, "beta is -0.5; expected a finite number of at least 0"),
    "beta NaN": (lambda: kvae.ELBO(np.nan), ValueError, "beta is nan; expected a finite number of at least 0"),
    "beta a string": (lambda: kvae.ELBO("1"), TypeError, "beta is '1'; expected a number or a Keras schedule"),
    "an unknown likelihood": (lambda: dense_vae(likelihood="gausian"), TypeError, "'gausian'; .*or one of 'bernoulli'"),
    "an unknown prior": (lambda: dense_vae(prior="vamp"), TypeError, "prior is 'vamp'; expected a kvae prior"),
    "an unknown objective": (lambda: dense_vae().compile(loss="mse"), TypeError, "loss is 'mse'; .*kvae.ELBO"),
    "a float seed": (lambda: dense_vae(seed=1.5), ValueError, SEED),
    "a float seed of PCA": (lambda: kvae.PCA(2, seed=0.0), ValueError, SEED),
    "a negative seed": (lambda: kvae.Sampling(seed=-1), ValueError, SEED),
    "a seed of sample": (lambda: dense_vae().sample(seed="a"), ValueError, SEED),
    "IWAE of samples=0": (lambda: kvae.IWAE(samples=0), ValueError, f"samples is 0; {WHOLE}"),
    "a draw of samples=0": (lambda: dense_vae().draw(X, samples=0), ValueError, f"samples is 0; {WHOLE}"),
    "log p(x) of samples=0": (
        lambda: kvae.evaluation.log_likelihood(dense_vae(), X, samples=0),
        ValueError,
        f"samples is 0; {WHOLE}",
    ),
    "count=-1": (lambda: dense_vae().sample(-1), ValueError, f"count is -1; {WHOLE}"),
    "batch_size=0": (lambda: compiled("vae").fit(X, batch_size=0), ValueError, "batch_size is 0; " + WHOLE),
    "batch_size=0 of transform": (lambda: compiled("vae").transform(X, 0), ValueError, "batch_size is 0, " + WHOLE),
    "epochs=1.5": (lambda: compiled("vae").fit(X, epochs=1.5), ValueError, "epochs is 1.5; expected an integer"),
    "steps_per_epoch=0": (
        lambda: compiled("vae").fit(stream(X), steps_per_epoch=0),
        ValueError,
        f"steps_per_epoch is 0; {WHOLE}",
    ),
    "a shape that is a number": (lambda: conv_encoder(28, 2), ValueError, "shape is 28; expected a sequence of"),
    "a shape of nothing": (lambda: dense_encoder((0,), 2), ValueError, r"shape is \(0,\); expected a sequence of"),
    "flat for convolutions": (lambda: conv_encoder((64,), 2), ValueError, r"\(64,\); .*\(height, width, channels\): "),
    "hidden a number": (lambda: dense_encoder((6,), 2, hidden=64), ValueError, "hidden is 64; expected a sequence"),
    "units 0": (lambda: conv_encoder((8, 8, 1), 2, units=0), ValueError, f"units is 0; {WHOLE}"),
    "a negative variance": (lambda: kvae.GaussianLikelihood(-1.0), ValueError, "variance is -1.0; expected 'shared'"),
    "a variance in words": (lambda: kvae.GaussianLikelihood(initial_variance="x"), TypeError, "expected a number"),
    "bounds of one number": (lambda: kvae.VampPrior(5, bounds=1), ValueError, r"bounds is 1; expected \(low, high\)"),
    "components 0": (lambda: kvae.MixtureOfGaussians(0), ValueError, f"components is 0; {WHOLE}"),
    "a network that is none": (lambda: kvae.VAE("encoder", None), TypeError, "The encoder is str; expected a Keras"),
}

MAKERS = {
    "vae": dense_vae,
    "bernoulli": lambda: dense_vae(likelihood="bernoulli"),
    "images": lambda: kvae.VAE(
        conv_encoder((8, 8, 1), 2, filters=(4,), units=8), conv_decoder((8, 8, 1), 2, filters=(4,), units=8), seed=0
    ),
    "autoencoder": lambda: kvae.Autoencoder(dense_encoder((6,), 2, (8,)), dense_decoder((6,), 2, (8,))),
}
_COMPILED = {}


def compiled(name, eagerly=False):
    """A model of this name, one for all tests, in the state that it had when it was made."""
    key = (name, "eagerly") if eagerly else name
    if key not in _COMPILED:
        keras.utils.set_random_seed(0)
        model = MAKERS[name]()
        model.compile(run_eagerly=eagerly)
        model.optimizer.build(model.trainable_variables)
        _COMPILED[key] = model, state(model)
    model, start = _COMPILED[key]
    for variable, value in zip(variables(model), start, strict=True):
        variable.assign(value)
    return model


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def state(model):
    return [np.array(variable) for variable in variables(model)]


def assert_unchanged(model, before):
    for variable, value in zip(variables(model), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def copies(data):
    parts = tf.nest.flatten(data) if isinstance(data, dict | list | np.ndarray) else []
    return [np.array(part, copy=True) for part in parts]


def assert_refused(rule, call, data):
    before = copies(data)
    with warnings.catch_warnings(), pytest.raises(rule.error, match=rule.phrase) as found:
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "100% of the pixels are grey")
        call(data)
    assert "\n" not in str(found.value) and len(str(found.value)) < 350
    for part, copy in zip(copies(data), before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_refused_data_change_nothing(row):
    model = compiled(row.model)
    before = state(model)
    for call in model.fit, model.evaluate, model.transform:
        assert_refused(row.rule, call, row.make())
        assert_unchanged(model, before)
    good = IMAGES if row.model == "images" else X
    if row.make() is not None:
        rule = row.rule._replace(phrase=row.rule.phrase.removeprefix("x "))
        assert_refused(rule, lambda data: model.fit(good, validation_data=data, verbose=0), row.make())
        assert_unchanged(model, before)


@pytest.mark.parametrize("row", [row for row in REFUSED if row.model == "vae"], ids=lambda row: row.name)
def test_refused_data_change_nothing_of_an_autoencoder_and_pca(row):
    model, fitted = compiled("autoencoder"), fitted_pca()
    weights = fitted.get_weights()
    assert_refused(row.rule, model.fit, row.make())
    assert_unchanged(model, _COMPILED["autoencoder"][1])
    assert_refused(row.pca or row.rule, fitted.fit, row.make())
    for found, expected in zip(fitted.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("row", [row for row in REFUSED if row.model == "vae"], ids=lambda row: row.name)
def test_refused_data_leave_a_model_unbuilt_that_takes_any_shape(row):
    model = still_unbuilt()
    with pytest.raises(row.rule.error):
        model.fit(row.make(), verbose=0)
    assert not model.built and not model.encoder.built and not model.decoder.built
    assert not model.trainable_variables


@functools.cache
def fitted_pca():
    """One for all tests of what leaves it as it is."""
    return kvae.PCA(2).fit(X, verbose=0)


@functools.cache
def still_unbuilt():
    """One for all tests of what leaves it unbuilt."""
    return unbuilt()


def unbuilt():
    encoder = keras.Sequential([keras.layers.Dense(2)])
    model = kvae.Autoencoder(encoder, keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(6)]))
    model.compile()
    return model


def test_a_model_that_refused_a_shape_takes_the_right_one():
    model = unbuilt()
    with pytest.raises(ValueError, match="The decoder gives outputs of shapes"):
        model.fit(X[:, :5], verbose=0)
    with pytest.raises(ValueError, match=r"validation_data has the shape .* takes \(n, 6\)"):
        model.fit(X, validation_data=X[:, :5], verbose=0)
    assert not model.built
    model.fit(X, verbose=0)
    assert model.event_shape == (6,)


def outcome(data, eagerly):
    """What a model becomes of data, and says of them."""
    model = compiled("vae", eagerly)
    size = {} if isinstance(data, tf.data.Dataset) else {"batch_size": 16, "shuffle": False}
    model.fit(data, verbose=0, **size)
    numbers = model.evaluate(data, verbose=0, return_dict=True)
    return model.get_weights(), numbers, model.transform(data)


_OUTCOMES, _VARIANCES = {}, {}


def outcome_of_reference(data, eagerly):
    if (id(data), eagerly) not in _OUTCOMES:
        _OUTCOMES[id(data), eagerly] = outcome(data, eagerly)
    return _OUTCOMES[id(data), eagerly]


FURTHER = "all zero", "float16", "a DataFrame", "x only", "(x, y)"


@EAGERLY_AND_IN_A_GRAPH
@pytest.mark.parametrize(
    "row", [thorough(row) if row.name in FURTHER else row for row in ACCEPTED], ids=lambda row: row.name
)
@pytest.mark.filterwarnings("ignore:The images hold whole numbers")
def test_accepted_data_do_what_their_reference_does(row, eagerly):
    data = row.make()
    before = copies(data)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        weights, numbers, codes = outcome(data, eagerly)
    said = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
    assert bool(said) == bool(row.rule.warning) and (not said or re.search(row.rule.warning, said[0]))
    for part, copy in zip(copies(data), before, strict=True):
        np.testing.assert_array_equal(part, copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected_weights, expected_numbers, expected_codes = outcome_of_reference(row.rule.reference, eagerly)
    for found, expected in zip(weights, expected_weights, strict=True):
        assert np.all(np.isfinite(found))
        np.testing.assert_array_equal(found, expected)
    assert numbers == pytest.approx(expected_numbers, rel=1e-6)
    np.testing.assert_allclose(codes, expected_codes, rtol=1e-6)
    if row.pca:
        assert_refused(row.pca, lambda data: kvae.PCA(2).fit(data, verbose=0), row.make())
    else:
        found = kvae.PCA(2).fit(row.make(), verbose=0).explained_variance
        key = id(row.rule.reference)
        if key not in _VARIANCES:
            _VARIANCES[key] = kvae.PCA(2).fit(row.rule.reference, verbose=0).explained_variance
        np.testing.assert_allclose(found, _VARIANCES[key], rtol=1e-6)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_refused_arguments(name):
    call, error, phrase = ARGUMENTS[name]
    with pytest.raises(error, match=phrase) as found:
        call()
    assert "\n" not in str(found.value)


def test_how_many_there_are():
    counts = {name: len(rows) for name, rows in TABLE.items()} | {"arguments": len(ARGUMENTS)}
    print(counts, "in all", sum(counts.values()))
    assert sum(counts.values()) >= 90 and len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("likelihood", "x", "wrong", "message"),
    [
        (
            "bernoulli",
            X,
            1.5,
            r"x holds the value 1.5 in batch 2 \(counted from 0\), BernoulliLikelihood expects values in",
        ),
        thorough(
            "continuous_bernoulli", X, -1, "the value -1 in batch 2 .* ContinuousBernoulliLikelihood expects values in"
        ),
        ("poisson", np.round(X * 9).astype("int32"), -1, "the value -1 in batch 2 .* PoissonLikelihood expects counts"),
        thorough("negative_binomial", np.round(X * 9), 0.5, "the value 0.5 in batch 2 .* expects counts 0, 1, 2"),
    ],
)
def test_a_later_batch_without_a_probability_is_an_error(likelihood, x, wrong, message):
    x = x.copy()
    x[40, 3] = wrong
    model = dense_vae(likelihood=likelihood)
    model.compile(run_eagerly=likelihood != "bernoulli")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in model.fit, model.evaluate, model.transform:
            with pytest.raises(ValueError, match=message) as found:
                call(stream(x))
            assert "\n" not in str(found.value)
        with pytest.raises(ValueError, match=message.replace("x holds", "validation_data holds")):
            model.fit(stream(x[:32]), validation_data=stream(x), verbose=0)


def test_streams_of_pixels_and_of_reals_are_read_as_they_are():
    pixels, reals = stream(PIXELS), stream(X)
    assert compiled("bernoulli")._scorable(pixels, "x") is pixels and compiled("vae")._scorable(reals, "x") is reals


@pytest.mark.parametrize(
    ("likelihood", "log_prob"),
    [
        (kvae.BernoulliLikelihood(), lambda x: np.where((x > 0) & (x < 1), 0, scipy.stats.bernoulli.logpmf(x, 0.3))),
        (kvae.ContinuousBernoulliLikelihood(), scipy.stats.uniform.logpdf),
        (kvae.PoissonLikelihood(), lambda x: scipy.stats.poisson.logpmf(x, 2)),
        (kvae.NegativeBinomialLikelihood(), lambda x: scipy.stats.nbinom.logpmf(x, 2, 0.5)),
        (kvae.DiscretizedLogisticLikelihood(levels=5), lambda x: scipy.stats.randint.logpmf(4 * x, 0, 5)),
    ],
    ids=lambda value: type(value).__name__,
)
@given(x=st.lists(st.one_of(st.integers(-5, 20), st.sampled_from([0.25, 0.5, 0.75, 1.25, -0.5])), min_size=1))
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
def test_what_a_likelihood_supports_has_a_probability(likelihood, log_prob, x):
    x = np.array(x, "float32")
    np.testing.assert_array_equal(likelihood.supports(tf.constant(x)), np.isfinite(log_prob(x)))


@given(
    x=hypothesis_numpy.arrays(hypothesis_numpy.scalar_dtypes(), hypothesis_numpy.array_shapes(min_dims=0, min_side=0))
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_an_array_of_any_shape_and_type_is_taken_or_refused_in_a_sentence(x):
    before = x.copy()
    try:
        first = validation.validate_first_batch(x, (3,), name="x", dtype="float32").x
    except (TypeError, ValueError) as error:
        assert "\n" not in str(error) and re.match("x |found ", str(error)), error
    else:
        assert x.shape[1:] == (3,) and len(x) and first.dtype == "float32" and np.all(np.isfinite(first))
    np.testing.assert_array_equal(x, before)


@given(
    x=hypothesis_numpy.arrays(
        st.sampled_from([np.float32, np.float64]),
        (4, 6),
        elements=st.floats(width=32),
        fill=st.sampled_from([0.0, 1.0, 1e12, -7e12]),
    )
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_any_values_are_refused_or_leave_the_weights_finite(x):
    model = compiled("autoencoder")
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            losses = model.fit(x, verbose=0).history["loss"]
        except ValueError as error:
            assert re.match("x has (NaN|the magnitude)", str(error))
            assert not np.all(np.abs(x) <= validation.largest_magnitude("float32"))
            assert_unchanged(model, before)
        else:
            assert np.all(np.isfinite(losses)) and all(np.all(np.isfinite(weight)) for weight in model.get_weights())
