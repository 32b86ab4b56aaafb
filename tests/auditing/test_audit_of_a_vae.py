"""The audit of a whole VAE: no finding on kvae's models, and a finding for each mistake planted in kvae's formulas.

Of the mistakes of test_mutations it sees those in the draws, densities, bounds and objectives of a VAE: 29 of 38. The
others are in what isn't a VAE's bound: VQVAE and its prior over codes (4), FactorVAE's adversary (3), pairs (2).
"""

import contextlib
import importlib
import pathlib
import types

import keras
import numpy as np
import pytest
from keras import ops
from planted_mistakes import MISTAKES

import kvae

ROOT = pathlib.Path(kvae.__file__).parent
RNG = np.random.default_rng(0)
BITS = (RNG.random((40, 6)) < 0.4).astype("float32")
REALS = RNG.normal(size=(40, 6)).astype("float32")
COUNTS = RNG.poisson(3, (40, 6)).astype("float32")
PIXELS = RNG.integers(0, 256, (40, 3, 2, 3)).astype("uint8")


def model_of(likelihood, shape=(6,), objective=None, family=None, **arguments):
    """A VAE of small networks with random weights throughout."""
    keras.utils.set_random_seed(0)
    options = {} if family is None else {"posterior_family": family}
    encoder = kvae.networks.dense_encoder(shape, 3, (8,), preprocessing="log1p", **options)
    outputs = len(likelihood.parameters)
    decoder = kvae.networks.dense_decoder(likelihood.decoder_shape(shape), 3, (8,), outputs=outputs)
    model = kvae.VAE(encoder, decoder, likelihood, seed=0, **options, **arguments)
    model.compile(kvae.optimizers.Adam(1e-3), objective or kvae.ELBO(), run_eagerly=True)
    rng = np.random.default_rng(0)
    for layer in (model.encoder, model.decoder, model.prior, model.posterior_family):
        layer.set_weights([weight + 0.2 * rng.normal(size=weight.shape) for weight in layer.get_weights()])
    if isinstance(family, kvae.posteriors.FullNormal):
        model.encoder.get_layer("z_below").bias.assign([1.5, -1.0, 2.0])  # strong correlations
    return model


def bits(objective=None, **arguments):
    return lambda: model_of(kvae.BernoulliLikelihood(), objective=objective and objective(), **arguments)


MODELS = {
    "bernoulli": (bits(), BITS),
    "iwae": (bits(lambda: kvae.IWAE(5)), BITS),
    "weighted": (bits(lambda: kvae.BetaTCVAE(100)), BITS),
    "stratified": (bits(lambda: kvae.BetaTCVAE(100, sampling="stratified")), BITS),
    "dip": (bits(lambda: kvae.DIP("II")), BITS),
    "dip of means": (bits(lambda: kvae.DIP("I")), BITS),
    "capacity": (bits(lambda: kvae.AnnealedCapacity(3.0)), BITS),
    "free bits": (bits(lambda: kvae.ELBO(beta=4.0, free_bits=0.3)), BITS),
    "doubly": (bits(lambda: kvae.IWAE(5, gradient="doubly_reparameterized")), BITS),
    "full": (bits(family=kvae.posteriors.FullNormal()), BITS),
    "coupling": (lambda: bits(family=kvae.posteriors.FlowPosterior(kvae.flows.Coupling(steps=2)))(), BITS),
    "planar": (lambda: bits(family=kvae.posteriors.FlowPosterior(kvae.flows.Planar(steps=2)))(), BITS),
    "flow prior": (lambda: bits(prior=kvae.FlowPrior(kvae.flows.Coupling(steps=2)))(), BITS),
    "vamp": (lambda: model_of(kvae.PoissonLikelihood(), prior=kvae.VampPrior(5, bounds=None)), COUNTS),
    "mixture": (lambda: model_of(kvae.NegativeBinomialLikelihood(0.5), prior=kvae.MixtureOfGaussians(4)), COUNTS),
    "dispersions": (lambda: model_of(kvae.NegativeBinomialLikelihood()), COUNTS),
    "gaussian": (lambda: model_of(kvae.GaussianLikelihood(0.3)), np.abs(REALS)),
    "learned": (lambda: model_of(kvae.GaussianLikelihood("decoder")), np.abs(REALS)),
    "continuous": (lambda: model_of(kvae.ContinuousBernoulliLikelihood()), RNG.random((40, 6)).astype("float32")),
    "one-hot": (lambda: model_of(kvae.CategoricalLikelihood(), (4, 5)), np.eye(5)[RNG.integers(0, 5, (40, 4))]),
    "levels": (lambda: model_of(kvae.DiscretizedLogisticLikelihood(2), (3, 2, 3)), PIXELS),
}
SEEN_BY = {
    "objectives/bounds.py": ("bernoulli", "iwae"),
    "objectives/disentangling.py": ("weighted", "stratified", "dip", "capacity"),
    "distributions/normal.py": ("full", "bernoulli"),
    "distributions/bernoulli.py": ("bernoulli",),
    "distributions/counts.py": ("vamp",),
    "likelihoods/counts.py": ("mixture",),
    "distributions/discrete.py": ("levels",),
    "distributions/mixture.py": ("vamp",),
    "priors.py": ("mixture",),
    "flows/affine.py": ("coupling",),
    "flows/planar.py": ("planar",),
    "flows/base.py": ("flow prior",),
    "evaluation/importance.py": ("bernoulli",),
}


def few(names, first):
    """All names, those that aren't among the first ones as `thorough`."""
    return [pytest.param(name, marks=[] if name in first else pytest.mark.thorough) for name in names]


@pytest.mark.parametrize("name", few(MODELS, ("bernoulli", "mixture")))
def test_kvaes_models_have_no_finding(name):
    make, x = MODELS[name]
    model = make()
    before = model.get_weights()
    result = kvae.audit_model(model, data=x)
    assert result.findings == () and len(result.checks) >= 5 and all(check.holds for check in result.checks)
    assert "log of the integral of p(z)" in str(result) and "No finding" in str(result)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


@contextlib.contextmanager
def planted(file, text, mistake):
    """Context manager. The functions of a file have the code with a mistake."""
    source = (ROOT / file).read_text()
    assert source.count(text) == 1
    right, wrong = (_codes(compile(each, file, "exec")) for each in (source, source.replace(text, mistake)))
    module = importlib.import_module("kvae." + file.removesuffix(".py").replace("/", "."))
    swapped = []
    for place, code in right.items():
        function = _function(module, place[0])
        if function is not None and code != wrong[place]:
            swapped.append((function, function.__code__))
            function.__code__ = wrong[place]
    try:
        assert swapped
        yield
    finally:
        for function, code in swapped:
            function.__code__ = code


def _codes(code):
    """{(qualified name, line): code} of the functions and classes in a module's code."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    result = {}
    for each in inner:
        result |= {(each.co_qualname, each.co_firstlineno): each, **_codes(each)}
    return result


def _function(module, name):
    value = module
    for part in name.split("."):
        value = vars(value).get(part)
        if value is None:
            return None
        value = getattr(value, "fget", value)
    return value if isinstance(value, types.FunctionType) else None


SEEN = [each for each in MISTAKES if each.values[1] in SEEN_BY]


def test_most_mistakes_are_in_files_that_the_audit_looks_at():
    assert len(SEEN) == 29 and len(MISTAKES) == 38


@pytest.mark.thorough
@pytest.mark.parametrize("test, file, text, mistake", SEEN)
def test_a_mistake_is_seen(test, file, text, mistake):
    with planted(file, text, mistake):
        found = [kvae.audit_model(make(), data=x).names for make, x in map(MODELS.get, SEEN_BY[file])]
    assert any(found)


@keras.saving.register_keras_serializable("test_audit_of_a_vae")
class Shifted(kvae.Prior):
    """N(1, I) with a KL to N(0, I)."""

    def distribution(self, count, posterior=None):
        zeros = ops.zeros((count, self.latent_dim))
        return kvae.distributions.Normal(zeros + 1.0, zeros)

    def kl_divergence(self, posterior):
        zeros = ops.zeros((1, self.latent_dim))
        return posterior.kl_divergence(kvae.distributions.Normal(zeros, zeros))


class Stopped(kvae.ELBO):
    def __call__(self, draw, step=0):
        return ops.stop_gradient(draw.reconstruction_loss) + draw.kl_loss


def test_a_users_own_parts_are_audited():
    result = kvae.audit_model(bits(prior=Shifted())(), data=BITS)
    assert result.names == ("kl-closed-form",) and "(!)" in str(result)
    result = kvae.audit_model(bits(Stopped)(), data=BITS)
    assert result.names == ("gradient",) and any("no objective of kvae" in note for note in result.notes)


def test_what_isnt_a_vae_is_refused_in_a_sentence():
    with pytest.raises(
        TypeError, match=r"PCA, without a decoder; expected an encoder and a decoder, or a whole kvae.VAE"
    ):
        kvae.audit_model(kvae.PCA(2), data=BITS)
    model = bits()()
    with pytest.raises(ValueError, match="beta given with a whole VAE"):
        kvae.audit_model(model, data=BITS, beta=2.0)
    with pytest.raises(ValueError, match=r"examples of shape \(5,\); expected the event_shape \(6,\)"):
        kvae.audit_model(model, data=BITS[:, :5])
    fresh = kvae.VAE(model.encoder, model.decoder, "bernoulli")
    with pytest.raises(ValueError, match="isn't compiled"):
        kvae.audit_model(fresh, data=BITS)
