"""Every public callable refuses wrong arguments in kvae's own words, before it does anything."""

import dataclasses
import inspect
import pathlib
import re
import traceback
import warnings

import h5py
import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from small_models import dense_vae, same_weights

import kvae

PACKAGE = pathlib.Path(kvae.__file__).parent
X = np.random.default_rng(0).random((8, 4, 4, 1)).astype("float32")
BITS = (X > 0.5).astype("float32")
_MADE = {}


def once(make):
    """The object of make(), made at its first use."""
    if make not in _MADE:
        _MADE[make] = make()
    return _MADE[make]


def networks(**options):
    return kvae.networks.dense_encoder((4, 4, 1), 2, (), **options), kvae.networks.dense_decoder((4, 4, 1), 2, ())


def discriminator():
    return kvae.networks.dense_discriminator(2, (3,))


def factor_networks():
    encoder, decoder = networks()
    return {"encoder": encoder, "decoder": decoder, "discriminator": discriminator()}


def factor_vae():
    model = kvae.FactorVAE(**factor_networks())
    model.compile(run_eagerly=True)
    return model


def vae():
    model = dense_vae((4, 4, 1))
    model.compile(run_eagerly=True)
    return model


def binary_vae():
    return dense_vae((4, 4, 1), likelihood="bernoulli")


def autoencoder():
    model = kvae.Autoencoder(*networks())
    model.compile(run_eagerly=True)
    return model


def vae_with_gaps():
    model = kvae.VAE(*once(networks), missing=True)
    model.build((None, 4, 4, 1))
    return model


def conditional_networks():
    sizes = {"shape": (4, 4, 1), "latent_dim": 2, "hidden": (), "label_dim": 3}
    return kvae.networks.dense_encoder(**sizes), kvae.networks.dense_decoder(**sizes)


def conditional():
    return kvae.ConditionalVAE(*once(conditional_networks), label_dim=3)


def unfitted_pca():
    return kvae.PCA(2)


def pca():
    return kvae.PCA(2).fit(X, verbose=0)


def vq_networks():
    encoder = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 2, 2)])
    return encoder, keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Conv2DTranspose(1, 2, 2)])


def vq_vae():
    return kvae.VQVAE(*vq_networks(), codes=4)


def hierarchical_networks():
    def normal(size, *inputs):
        symbols = [keras.Input((n,)) for n in inputs]
        h = keras.layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0]
        return keras.Model(symbols, [keras.layers.Dense(size)(h), keras.layers.Dense(size)(h)])

    z1, z2 = keras.Input((3,)), keras.Input((2,))
    decoder = keras.Model([z1, z2], keras.layers.Dense(6)(keras.layers.Concatenate()([z1, z2])))
    return {
        "encoder": keras.layers.Identity(),
        "posteriors": [normal(3, 6, 2), normal(2, 6)],
        "priors": [normal(3, 2)],
        "decoder": decoder,
    }


def squared_loss(x, reconstruction, z_mean, z_log_var):
    return keras.ops.sum((x - reconstruction) ** 2, axis=(1, 2, 3)) + keras.ops.sum(z_mean**2 + z_log_var, axis=1)


def a_loss():
    return squared_loss


def stream():
    return kvae.data.from_npy("../x.npy", 4)


def pixels():
    return stream().map(lambda x: keras.ops.cast(x, "uint8"))


def of(make, method, **arguments):
    """A call of a method of the object that `make` makes."""
    return lambda: (getattr(once(make), method), arguments)


def call(function, **arguments):
    """A call with valid arguments; those that are functions of this file are called for their values."""
    return lambda: (function, {name: once(v) if inspect.isfunction(v) else v for name, v in arguments.items()})


def measured():
    return kvae.evaluation.disentanglement(**CODES_AND_FACTORS)


def table_likelihood():
    return kvae.ColumnsLikelihood({"a": "gaussian", "b": "poisson"})


def table_model():
    likelihood = table_likelihood()
    networks = kvae.networks.columns_encoder(likelihood, 2, ()), kvae.networks.columns_decoder(likelihood, 2, ())
    return kvae.VAE(*networks, likelihood)


def with_networks(model, make=networks, **arguments):
    def given():
        made = once(make)
        made = made if isinstance(made, dict) else dict(zip(("encoder", "decoder"), made, strict=True))
        return model, {**made, **arguments}

    return given


evaluation, plots, data = kvae.evaluation, kvae.plots, kvae.data
SHAPE = {"shape": (8, 8, 1), "latent_dim": 2}
CODES = np.zeros((3, 2), "float32")
NUMBERS = np.random.default_rng(0).random((60, 2))
CODES_AND_FACTORS = {"model": NUMBERS, "data": {"a": NUMBERS[:, 0]}, "published": False}
OF_DATA = {"model": vae, "data": X}
CALLS = {
    "VAE": with_networks(kvae.VAE),
    "Autoencoder": with_networks(kvae.Autoencoder),
    "ConditionalVAE": with_networks(kvae.ConditionalVAE, conditional_networks, label_dim=3),
    "HierarchicalVAE": with_networks(kvae.HierarchicalVAE, hierarchical_networks),
    "FactorVAE": with_networks(kvae.FactorVAE, factor_networks),
    "AdaGVAE": with_networks(kvae.AdaGVAE),
    "VQVAE": with_networks(kvae.VQVAE, vq_networks),
    "PCA": call(kvae.PCA, latent_dim=2),
    "CategoricalLikelihood": call(kvae.CategoricalLikelihood),
    "ColumnsLikelihood": call(kvae.ColumnsLikelihood, likelihoods={"a": "gaussian"}),
    "ColumnFeatures": call(kvae.layers.ColumnFeatures, columns=lambda: kvae.data.Columns([kvae.data.Column("a")])),
    "PoissonLikelihood": call(kvae.PoissonLikelihood),
    "columns_encoder": call(kvae.networks.columns_encoder, likelihood=table_likelihood, latent_dim=2),
    "columns_decoder": call(kvae.networks.columns_decoder, likelihood=table_likelihood, latent_dim=2),
    "DiscretizedLogisticLikelihood": call(kvae.DiscretizedLogisticLikelihood),
    "GaussianLikelihood": call(kvae.GaussianLikelihood),
    "NegativeBinomialLikelihood": call(kvae.NegativeBinomialLikelihood),
    "likelihoods.get": call(kvae.likelihoods.get, identifier="gaussian"),
    "ELBO": call(kvae.ELBO),
    "IWAE": call(kvae.IWAE),
    "BetaTCVAE": call(kvae.BetaTCVAE, examples=100),
    "DIP": call(kvae.DIP),
    "AnnealedCapacity": call(kvae.AnnealedCapacity, capacity=25.0),
    "FlowPrior": call(kvae.FlowPrior, flow=lambda: kvae.flows.Coupling()),
    "MixtureOfGaussians": call(kvae.MixtureOfGaussians),
    "VampPrior": call(kvae.VampPrior),
    "FlowPosterior": call(kvae.posteriors.FlowPosterior, flow=lambda: kvae.flows.Planar()),
    "FullNormal.outputs": of(kvae.posteriors.FullNormal, "outputs", latent_dim=2),
    "Sampling": call(kvae.Sampling),
    "Coupling": call(kvae.flows.Coupling),
    "InverseAutoregressive": call(kvae.flows.InverseAutoregressive),
    "Planar": call(kvae.flows.Planar),
    "CyclicalWarmUp": call(kvae.schedules.CyclicalWarmUp),
    "LinearWarmUp": call(kvae.schedules.LinearWarmUp, steps=10),
    "WarmUp": call(kvae.schedules.WarmUp, steps=10, share=None, end=1.0),
    "dense_encoder": call(kvae.networks.dense_encoder, **SHAPE),
    "dense_decoder": call(kvae.networks.dense_decoder, **SHAPE),
    "dense_discriminator": call(kvae.networks.dense_discriminator, latent_dim=2, hidden=(3,)),
    "causal_transformer": call(kvae.networks.causal_transformer, code_shape=(2, 2), codes=4),
    "conv_encoder": call(kvae.networks.conv_encoder, **SHAPE),
    "conv_decoder": call(kvae.networks.conv_decoder, **SHAPE),
    "Checkpoint": call(kvae.callbacks.Checkpoint, directory="run"),
    "Live": call(kvae.callbacks.Live, data=X),
    "compile": of(vae, "compile"),
    "Autoencoder.compile": of(autoencoder, "compile"),
    "FactorVAE.compile": of(factor_vae, "compile"),
    "fit": of(vae, "fit", x=X, verbose=0),
    "evaluate": of(vae, "evaluate", x=X, verbose=0),
    "predict": of(vae, "predict", x=X, verbose=0),
    "transform": of(vae, "transform", x=X),
    "reconstruct": of(vae, "reconstruct", x=X),
    "score_samples": of(vae, "score_samples", x=X, samples=2),
    "impute": of(vae_with_gaps, "impute", x=X, samples=2),
    "inverse_transform": of(vae, "inverse_transform", z=CODES),
    "sample": of(vae, "sample"),
    "draw": of(vae, "draw", x=X),
    "prior_distribution": of(vae, "prior_distribution"),
    "save": of(vae, "save", path="model.keras"),
    "ConditionalVAE.sample": of(conditional, "sample", y=1),
    "PCA.fit": of(unfitted_pca, "fit", x=X, verbose=0),
    "PCA.sample": of(pca, "sample"),
    "PCA.draw": of(pca, "draw", x=X),
    "VQVAE.sample": of(vq_vae, "sample"),
    "VQVAE.inverse_transform": of(vq_vae, "inverse_transform", z=np.zeros((3, 2, 2), "int32")),
    "VQVAE.code_frequencies": of(vq_vae, "code_frequencies", x=X),
    "halvings": call(kvae.networks.halvings, shape=(32, 32, 3)),
    "fit_prior": call(kvae.fit_prior, model=vae, x=X, prior=lambda: kvae.MixtureOfGaussians(2)),
    "load": call(kvae.load, path="model.keras"),
    "exact_posterior": call(evaluation.exact_posterior, model=vae, x=X),
    "audit": call(kvae.audit, loss=a_loss, event_shape=(4, 4, 1), latent_dim=2),
    "audit_model": with_networks(kvae.audit_model, loss=squared_loss, data=X, samples=2),
    "compress": call(kvae.compression.compress, model=binary_vae, data=BITS, path="x.kvae"),
    "decompress": call(kvae.compression.decompress, path="../x.kvae", model=binary_vae),
    "SpritesConfig": call(data.SpritesConfig),
    "Stream": call(data.Stream, batches=lambda: once(stream).batches, num_batches=2),
    "Stream.epoch": of(stream, "epoch", number=0),
    "Stream.from_batch": of(stream, "from_batch", number=0),
    "Stream.take": of(stream, "take", count=1),
    "Stream.skip": of(stream, "skip", count=1),
    "binarize": call(data.binarize, stream=pixels),
    "from_folder": call(data.from_folder, path="../images"),
    "from_hdf5": call(data.from_hdf5, path="../x.h5", dataset="x"),
    "from_npy": call(data.from_npy, path="../x.npy"),
    "from_parquet": call(data.from_parquet, path="../x.parquet", column="x"),
    "from_table": call(data.from_table, source={"x": [1.0, 2.0], "y": [0, 1]}),
    "Column": call(data.Column, name="x"),
    "Columns": call(data.Columns, columns=lambda: [data.Column("x")]),
    "Columns.decode": of(lambda: data.Columns([data.Column("x")]), "decode", x=np.zeros((2, 1))),
    "data.load": call(data.load, name="../packed"),
    "pack": call(data.pack, dataset=X, directory="new"),
    "verify": call(data.verify, directory="../packed"),
    "active_units": call(evaluation.active_units, **OF_DATA),
    "aggregate_posterior": call(evaluation.aggregate_posterior, **OF_DATA),
    "annealed_importance_sampling": call(evaluation.annealed_importance_sampling, **OF_DATA, steps=2),
    "bidirectional": call(evaluation.bidirectional, model=vae, steps=2),
    "column_scores": call(evaluation.column_scores, model=table_model, data=np.zeros((3, 2), "float32")),
    "compare": call(evaluation.compare, models=lambda: {"VAE": once(vae)}, data=X),
    "elbo_decomposition": call(evaluation.elbo_decomposition, **OF_DATA, samples=2),
    "log_likelihood": call(evaluation.log_likelihood, **OF_DATA, samples=2),
    "disentanglement": call(evaluation.disentanglement, **CODES_AND_FACTORS),
    "nearest_sprites": call(evaluation.nearest_sprites, images=np.zeros((1, 4, 4, 3), "float32")),
    "rate_distortion": call(evaluation.rate_distortion, **OF_DATA, samples=2),
    "report": call(evaluation.report, **OF_DATA, samples=2),
    "simulation_based_calibration": call(evaluation.simulation_based_calibration, model=pca),
    "threshold": call(evaluation.threshold, scores=np.arange(200.0)),
    "squared_error": call(evaluation.squared_error, **OF_DATA),
    "explore": call(kvae.widgets.explore, model=pca, data=X),
    "sketch": call(kvae.widgets.sketch, model=vae, data=X),
    "plots.latents": call(plots.latents, model=pca, x=X),
    "plots.aggregate_posterior": call(plots.aggregate_posterior, model=vae, x=X),
    "plots.posterior": call(plots.posterior, model=vae, x=X),
    "plots.history": call(plots.history, history={"loss": [1.0, 2.0]}),
    "plots.comparison": call(plots.comparison, errors={"a": 1.0}),
    "plots.disentanglement": call(plots.disentanglement, result=measured),
    "Factor": call(kvae.data.Factor),
    "plots.matrix": call(plots.matrix, values=[[1.0]], rows=["a"], columns=["b"]),
    "plots.reconstructions": call(plots.reconstructions, model=pca, x=X),
    "plots.samples": call(plots.samples, model=pca),
    "plots.traversals": call(plots.traversals, model=pca, x=X),
    "plots.manifold": call(plots.manifold, model=pca, x=X),
    "plots.overview": call(plots.overview, models=lambda: {"a": once(vae)}, x=X, samples={"a": X, "b": X}),
    "plots.code_map": call(plots.code_map, model=pca, x=X),
}

MORE = {  # parameters in **options, and what they take
    "fit": {
        "epochs": "int",
        "initial_epoch": "int",
        "batch_size": "int | None",
        "validation_batch_size": "int | None",
        "validation_steps": "int | None",
        "validation_freq": "int",
        "validation_split": "float",
        "callbacks": "Callback | None",
    },
    "evaluate": {"batch_size": "int | None", "return_dict": "bool"},
    "predict": {"batch_size": "int | None"},
    "compile": {"steps_per_execution": "int | str", "skip_nonfinite": "int", "run_eagerly": "bool"},
}
FROM_0 = {  # numbers that may be 0
    *("seed", "shuffle", "skip", "number", "shard_index", "index", "skip_nonfinite", "epochs", "initial_epoch"),
    *("validation", "free_bits", "beta", "commitment", "rounds", "threshold", "context", "validation_split"),
    *("initial_std", "tolerance", "num_batches", "initial_mean", "alpha", "gamma", "lambda_od", "lambda_d", "capacity"),
    *("mean", "missing", "draws", "bootstraps"),
    *("start", "stop", "printed"),
}
OF_ANY_SIGN = {"initial_mean", "mean", "printed"}
CHOICES = {  # texts of which only some mean something
    *("variance", "dispersion", "gradient", "solver", "damaged", "split", "likelihood", "identifier"),
    *("activation", "preprocessing", "initializer", "steps_per_execution", "sampling", "kind", "covariance"),
}
NOT_CHECKED = {  # passed to Keras and TensorFlow, as theirs are
    *("self", "kwargs", "options", "config", "training", "name of Stream.take", "name of Stream.skip"),
    "steps of Stream",  # an old name, never beside the new one
}
NONE_IS_TAKEN = {"activation", "initializer", "labels of from_folder"}  # no function, Keras' default, no labels
OTHER_NAMES = {"draws": "num_draws", "identifier": "likelihood", "licence": "license", "posterior": "posterior_family"}
OBJECTS = {  # a value of the wrong kind where a class of kvae or Keras is expected: mostly the class itself
    "Axes": "ax",
    "Callback": kvae.callbacks.Checkpoint,
    "Flow": kvae.flows.Planar,
    "Layer": keras.layers.Dense,
    "Likelihood": kvae.GaussianLikelihood,
    "Objective": kvae.ELBO,
    "Posterior": kvae.posteriors.FullNormal,
    "Prior": kvae.StandardNormal,
    "Stream": kvae.data.Stream,
}
_MODULES = re.compile(
    r"\b(typing|collections\.abc|kvae(\.\w+)*|keras(\.\w+)*|matplotlib(\.\w+)*|os|pathlib|likelihoods)\."
)


def annotations(name, function):
    """{parameter: annotation} of what is checked, both str."""
    found = {each.name: each.annotation for each in inspect.signature(function).parameters.values()}
    texts = {key: a if isinstance(a, str) else inspect.formatannotation(a) for key, a in found.items()}
    texts |= MORE.get(name, {})
    checked = {key for key in texts if not {key, f"{key} of {name}"} & NOT_CHECKED}
    return {key: _MODULES.sub("", text) for key, text in texts.items() if key in checked}


def alternatives(annotation):
    """The members of a union."""
    depth, parts = 0, [""]
    for character in annotation:
        depth += (character == "[") - (character == "]")
        if character == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def wrong_values(name, parameter, annotation):
    """Values that a parameter with this annotation can't take."""
    kinds, values = set(alternatives(annotation)), []
    is_text = bool({"str", "PathLike", "PathLike[str]", "Path"} & kinds)
    is_free_text = is_text and parameter not in CHOICES
    if "Any" in kinds:
        return []
    if parameter == "verbose":
        return [-1, 3, 2.5, "no", None]
    if {"int", "float"} & kinds:
        values += [] if parameter in OF_ANY_SIGN else [-1]
        values += [] if parameter in FROM_0 else [0]
        values += [float("nan")] if "float" in kinds else [2.5]
        values += [] if is_free_text else ["3"]
        values += [] if "bool" in kinds else [True]
    if "bool" in kinds:
        values += ([] if is_free_text else ["no"]) + ([] if {"int", "float"} & kinds else [2])
    if is_text and not {"int", "float"} & kinds:
        values += [3] if is_free_text else [3, "no such"]
    for kind in kinds:
        if kind.startswith(("Sequence[", "tuple[int", "list[")):
            values += [3, ("a",), ((1, 2),)] if "int" in kind or "float" in kind else [3]
        if kind in OBJECTS:
            values += [OBJECTS[kind], 3] + ([] if is_text else ["no such"])
    takes_none = "None" in kinds or {parameter, f"{parameter} of {name}"} & NONE_IS_TAKEN
    return [*values, *([] if takes_none or not values else [None])]


def complaint(function, arguments, parameter, value):
    """What is wrong with how a call refuses the value, or None."""
    try:
        function(**{**arguments, parameter: value})
    except (TypeError, ValueError) as error:
        message, where = str(error), pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        shown = repr(value), getattr(value, "__name__", repr(value)), type(value).__name__
        if PACKAGE not in where.parents:
            return f"an error of {where.name}: {message!r}"
        if not re.search(rf"\b({parameter}|{OTHER_NAMES.get(parameter, parameter)})\b", message):
            return f"an error without the parameter's name: {message!r}"
        return None if any(text in message for text in shown) else f"an error without the value: {message!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)!r}"
    return "taken"


def weights(made):
    return {make: made.get_weights() for make, made in _MADE.items() if isinstance(made, keras.Model)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a file of each kind, and in it the working folder of the calls."""
    folder = tmp_path_factory.mktemp("wrong_arguments")
    np.save(folder / "x.npy", X)
    kvae.data.pack((X, np.arange(len(X))), folder / "packed", progress=False)
    (folder / "images" / "a").mkdir(parents=True)
    keras.utils.save_img(folder / "images" / "a" / "0.png", np.zeros((4, 4, 3)))
    table = pyarrow.table({"x": [[1.0, 2.0]] * 8})
    pyarrow.parquet.write_table(table, folder / "x.parquet")
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = X
    kvae.compression.compress(once(binary_vae), BITS, folder / "x.kvae", verbose=0)
    (folder / "work").mkdir()
    return folder / "work"


@pytest.mark.parametrize("name", CALLS)
def test_wrong_values_are_refused_by_name_before_any_work(name, files, monkeypatch):
    monkeypatch.chdir(files)
    function, arguments = CALLS[name]()
    before, complaints = weights(_MADE), {}
    with warnings.catch_warnings(action="ignore"):
        for parameter, annotation in annotations(name, function).items():
            for value in wrong_values(name, parameter, annotation):
                complaints[f"{parameter}={value!r}"] = complaint(function, arguments, parameter, value)
    assert {case: text for case, text in complaints.items() if text} == {}
    assert list(files.iterdir()) == []
    assert all(same_weights(_MADE[make], values) for make, values in before.items())


def public(module):
    """The public functions, and the constructors of public classes, of a module and of those in it."""
    for name in getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"]):
        value = getattr(module, name)
        if inspect.ismodule(value):
            yield from public(value) if value.__name__ == f"{module.__name__}.{name}" else ()
        elif not getattr(value, "__module__", "").startswith("kvae."):
            continue
        elif inspect.isfunction(value) or (inspect.isclass(value) and not issubclass(value, tuple)):
            yield value


def test_every_public_callable_with_something_to_check_is_called(files, monkeypatch):
    monkeypatch.chdir(files)
    called = {getattr(CALLS[name]()[0], "__func__", CALLS[name]()[0]) for name in CALLS}
    missing = [
        each.__name__
        for each in set(public(kvae)) - called
        if not (inspect.isabstract(each) or dataclasses.is_dataclass(each))  # bases, and values that kvae makes
        and any(wrong_values("", *item) for item in annotations("", each).items())
    ]
    assert sorted(missing) == ["Sprites"]  # tfds makes it


NO_DATA = {
    "a text": "x",
    "a number": 3,
    "a scalar": np.float32(1),
    "a set": {1},
    "an object": object(),
    "texts": [["a"]],
    "an array of texts": np.array(["a"] * 8),
    "complex numbers": X.astype("complex64"),
    "a tuple in a tuple": ((X, X), X),
    "an unknown key": {"a": X},
    "a class": np.ndarray,
    "a function": lambda: X,
    "nothing": None,
}
WEIGHTS = {name: value for name, value in NO_DATA.items() if name != "nothing"}
READ = {  # {parameter of a call: values that it refuses}
    **dict.fromkeys(["x of fit", "x of evaluate", "x of predict", "x of transform", "x of reconstruct"], NO_DATA),
    **dict.fromkeys(["z of inverse_transform", "x of PCA.fit", "x of VQVAE.code_frequencies"], NO_DATA),
    **dict.fromkeys(["dataset of pack", "data of Live", "data of active_units", "data of compare"], NO_DATA),
    "data of sketch": NO_DATA,
    **dict.fromkeys(["data of log_likelihood", "data of squared_error", "x of plots.latents"], NO_DATA),
    **dict.fromkeys(["x of plots.reconstructions", "x of plots.posterior", "x of plots.code_map"], NO_DATA),
    **dict.fromkeys(["validation_data of fit", "data of explore", "x of plots.manifold"], WEIGHTS),
    **dict.fromkeys(["sample_weight of fit", "sample_weight of evaluate", "sample_weight of PCA.fit"], WEIGHTS),
    **dict.fromkeys(["optimizer of compile", "optimizer of Autoencoder.compile"], NO_DATA),
    "y of evaluate": {"a number": 3, "a set": {1}},
    "class_weight of fit": {"a number": 3, "a set": {1}, "no y": {0: 1.0}},
    "source of pack": {"a set": {1}, "a number": 3, "an array": {"a": X}},
    "y of ConditionalVAE.sample": {name: NO_DATA[name] for name in ("a text", "a set", "a function", "nothing")},
    "frequencies of VQVAE.sample": {"a text": "x", "a set": {1}, "below 0": [-1, 0, 0, 0], "too many": np.ones(5)},
    "images of nearest_sprites": NO_DATA,
    "values of plots.matrix": NO_DATA,
    **dict.fromkeys(["model of squared_error", "model of active_units", "model of bidirectional"], NO_DATA),
    **dict.fromkeys(["model of plots.latents", "model of plots.traversals", "model of plots.samples"], NO_DATA),
    "models of compare": {**NO_DATA, "other models": {"a": 3}},
    "errors of plots.comparison": WEIGHTS | {"an unknown key": {"a": "b"}},
}


@pytest.mark.parametrize("name", READ)
def test_what_is_no_data_is_refused_before_any_work(name, files, monkeypatch):
    monkeypatch.chdir(files)
    parameter, call = name.split(" of ")
    function, arguments = CALLS[call]()
    before, complaints = weights(_MADE), {}
    with warnings.catch_warnings(action="ignore"):
        for kind, value in READ[name].items():
            complaints[kind] = complaint(function, arguments, parameter, value) or ""
    assert [
        f"{kind}: {text}" for kind, text in complaints.items() if text and not text.startswith("an error without")
    ] == []
    assert list(files.iterdir()) == []
    assert all(same_weights(_MADE[make], values) for make, values in before.items())


def test_codes_of_uint8_are_numbers_and_no_pixels():
    codes = np.array([[0, 1], [2, 255]], "uint8")
    images = once(vae).inverse_transform(codes)
    assert np.array_equal(images, once(vae).inverse_transform(codes.astype("float32")))
    pair = once(conditional).inverse_transform((codes, np.array([0, 1])))
    assert np.array_equal(pair, once(conditional).inverse_transform((codes.astype("float32"), np.array([0, 1]))))


def test_a_shard_is_one_of_the_shards(files, monkeypatch):
    monkeypatch.chdir(files)
    with pytest.raises(ValueError, match=r"shard_index is 5 and num_shards 2; expected an integer from 0 to 1\."):
        once(stream).epoch(0, shard_index=5, num_shards=2)


def test_a_plane_has_two_latents():
    with pytest.raises(ValueError, match=r"dims are \[0, 0\]; expected two of the 2 latents"):
        plots.latents(once(pca), X, dims=(0, 0))


@pytest.mark.parametrize(
    "address", ["hf://someone/a.keras", "gs://bucket/a.keras", pathlib.Path("s3://bucket/a.keras")]
)
def test_addresses_are_refused_with_advice(address):
    for call in (once(vae).save, kvae.load, kvae.callbacks.Checkpoint, lambda path: data.pack(X, path)):
        with pytest.raises(ValueError, match="kvae reads and writes local folders alone: save in one, then upload it"):
            call(address)


def test_a_model_is_saved_under_keras_name_of_the_argument(tmp_path):
    once(vae).save(filepath=tmp_path / "a.keras")
    assert same_weights(kvae.load(tmp_path / "a.keras"), once(vae))
    for arguments in ({}, {"path": "a.keras", "filepath": "b.keras"}):
        with pytest.raises(TypeError, match=r"expected one of the two, a \.keras file"):
            once(vae).save(**arguments)
