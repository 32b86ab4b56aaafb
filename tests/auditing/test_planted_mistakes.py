"""The mistakes that test_mutations plants in kvae's formulas: an audit of kvae's own losses names all that it can see.

An audit of a loss can see a mistake that changes the loss of a VAE with a diagonal posterior and the prior N(0, I), as
a function of (x, decoder's outputs, z_mean, z_log_var, z), or a draw: twelve. For those in other priors, posteriors and
flows, in terms of a batch's codes, in estimates after training and in terms of x alone see test_audit_of_a_vae.
"""

import pathlib
import types

import keras
import numpy as np
import pytest
from keras import ops

import kvae
from kvae.distributions import bernoulli, discrete, normal
from kvae.objectives import bounds

ROOT = pathlib.Path(kvae.__file__).parent
SHAPE, LATENT_DIM = (4, 4, 1), 3


def mutated(file, text, mistake, monkeypatch):
    """The module of a file with a mistake, under another name."""
    source = (ROOT / file).read_text()
    assert source.count(text) == 1
    module = types.ModuleType(f"mutated_{pathlib.Path(file).stem}")
    with monkeypatch.context() as patch:
        patch.setattr(keras.saving, "register_keras_serializable", lambda *_: lambda each: each)
        patch.setitem(__import__("sys").modules, module.__name__, module)
        exec(compile(source.replace(text, mistake), file, "exec"), module.__dict__)
    return module


def loss_of(objective, decoder, objectives=bounds, normals=normal, closed_form=True):
    """A loss of five arguments from kvae's parts. objective: function of a draw. decoder: of outputs to p(x|z)."""

    def loss(x, output, z_mean, z_log_var, z):
        n, k = z.shape[:2]
        if k > 1:
            x, z_mean, z_log_var = (ops.repeat(each, k, axis=0) for each in (x, z_mean, z_log_var))
        output = keras.tree.map_structure(lambda each: ops.reshape(each, (n * k, *each.shape[2:])), output)
        rows = ops.reshape(z, (n * k, -1))
        q, p = normals.Normal(z_mean, z_log_var), normals.Normal(0 * rows, 0 * rows)
        return objective(
            objectives.Draw(
                z,
                ops.reshape(decoder(output).log_prob(x), (n, k)),
                ops.reshape(p.log_prob(rows), (n, k)),
                ops.reshape(q.log_prob(rows), (n, k)),
                q.kl_divergence(p)[::k] if closed_form else None,
            )
        )

    return loss


def names(loss, samples=1, **arguments):
    return kvae.audit(loss, SHAPE, LATENT_DIM, samples=samples, **arguments).names


def logits(module=bernoulli):
    return lambda outputs: module.Bernoulli(outputs)


OF_DRAWS = {
    "minus the KL": (
        ("reconstruction_loss - self.kl_loss", "reconstruction_loss + self.kl_loss"),
        lambda module: lambda draw: -draw.elbo,
        ("kl-sign",),
    ),
    "the mean over groups": (
        ("return ops.sum(self.kl_by_group", "return ops.mean(self.kl_by_group"),
        lambda module: lambda draw: -draw.elbo,
        ("kl-mean",),
    ),
    "the mean in the objective": (
        ("* ops.sum(kl, axis=1)", "* ops.mean(kl, axis=1)"),
        lambda module: module.ELBO(),
        ("kl-mean",),
    ),
    "no log k": (("axis=1) - ops.log(count)", "axis=1)"), lambda module: module.IWAE(4), ("draws-constant",)),
    "plus log q": (
        ("self.log_prior - self.log_posterior", "self.log_prior + self.log_posterior"),
        lambda module: module.IWAE(4),
        ("weights-sign",),
    ),
}


def few(cases, count):
    """All cases, those after the first few as `thorough`."""
    return [pytest.param(each, marks=[pytest.mark.thorough] * (number >= count)) for number, each in enumerate(cases)]


@pytest.mark.parametrize("case", few(OF_DRAWS, 1))
def test_a_mistake_in_an_objective_is_named(case, monkeypatch):
    mistake, objective, expected = OF_DRAWS[case]
    samples = 4 if objective(bounds).__class__.__name__ == "IWAE" else 1
    assert names(loss_of(objective(bounds), logits()), samples) == ()
    module = mutated("objectives/bounds.py", *mistake, monkeypatch)
    assert names(loss_of(objective(module), logits(), objectives=module), samples) == expected


OF_NORMALS = {
    "no half in the KL": (("0.5 * (ops.square(standardized)", "(ops.square(standardized)"), True, ("kl-weight",)),
    "a sign in the KL": (("(difference) - difference", "(difference) + difference"), True, ("kl-variance-sign",)),
    "no half in log q and log p": (
        ("-0.5 * sum_event(ops.square(standardized)", "-sum_event(ops.square(standardized)"),
        False,
        ("kl-weight",),
    ),
}


@pytest.mark.parametrize("case", few(OF_NORMALS, 1))
def test_a_mistake_in_the_normal_is_named(case, monkeypatch):
    mistake, closed_form, expected = OF_NORMALS[case]
    module = mutated("distributions/normal.py", *mistake, monkeypatch)
    assert names(loss_of(kvae.ELBO(), logits(), closed_form=closed_form)) == ()
    assert names(loss_of(kvae.ELBO(), logits(), normals=module, closed_form=closed_form)) == expected


@pytest.mark.thorough
def test_a_variance_for_sigma_is_named(monkeypatch):
    mistake = "return ops.exp(0.5 * self.log_var)\n", "return ops.exp(self.log_var)\n"
    module = mutated("distributions/normal.py", *mistake, monkeypatch)
    loss = loss_of(kvae.ELBO(), logits())
    assert names(loss, sampling=kvae.Sampling(seed=0)) == ()
    monkeypatch.setattr(kvae.layers, "Normal", module.Normal)
    assert names(loss, sampling=kvae.Sampling(seed=0)) == ("sigma",)


@pytest.mark.thorough
def test_a_mean_for_the_sum_over_an_event_is_named(monkeypatch):
    module = mutated("distributions/normal.py", "return ops.sum(values", "return ops.mean(values", monkeypatch)
    monkeypatch.setattr(bernoulli, "sum_event", module.sum_event)
    with_kl = loss_of(kvae.ELBO(), lambda output: _Scaled(bernoulli.Bernoulli(output)))
    assert "reconstruction-weight" in names(with_kl) or "features-mean" in names(with_kl)


class _Scaled:
    """log_prob with the whole softplus, which `sum_event` isn't in, as a mean, too."""

    def __init__(self, distribution):
        self.distribution = distribution

    def log_prob(self, x):
        logits = self.distribution.logits
        return bernoulli.sum_event(x * logits) - bernoulli.sum_event(ops.softplus(logits))


def test_a_sign_in_the_bernoulli_is_named(monkeypatch):
    module = mutated("distributions/bernoulli.py", "- _sum_softplus", "+ _sum_softplus", monkeypatch)
    assert names(loss_of(kvae.ELBO(), logits(module))) == ("likelihood-sign",)


@pytest.mark.thorough
def test_a_level_without_its_half_is_named(monkeypatch):
    def mixture(module):
        return lambda output: module.DiscretizedLogisticMixture(
            output[..., :2], 0.5 + output[..., None, 2:4], output[..., None, 4:] - 2.0
        )

    x = np.random.default_rng(0).integers(0, 256, (20, *SHAPE)).astype("uint8")
    arguments = {"data": x, "reconstruction_shape": (4, 4, 6)}
    assert names(loss_of(kvae.ELBO(), mixture(discrete)), **arguments) == ()
    module = mutated("distributions/discrete.py", "level + 0.5 - means", "level - means", monkeypatch)
    assert names(loss_of(kvae.ELBO(), mixture(module)), **arguments) == ("not-normalized",)


LIKELIHOODS = ["gaussian", "continuous_bernoulli", "poisson", "negative_binomial", "decoder", 4]


@pytest.mark.parametrize("kind", few(LIKELIHOODS, 1))
def test_kvaes_own_likelihoods_have_no_finding(kind):
    if kind == "decoder":
        likelihood = kvae.GaussianLikelihood(variance="decoder")
    else:
        likelihood = kvae.CategoricalLikelihood(4) if kind == 4 else kvae.likelihoods.get(kind)
    likelihood.build((None, *SHAPE))
    shapes = [likelihood.decoder_shape(SHAPE)] * len(likelihood.parameters)

    def decoder(output):
        return likelihood.distribution(output if isinstance(output, list) else [output])

    def in_float32(loss):
        return lambda x, r, m, v, z: loss(
            *keras.tree.map_structure(lambda each: ops.cast(each, "float32"), [x, r, m, v, z])
        )

    result = kvae.audit(
        in_float32(loss_of(kvae.ELBO(beta=2.0, free_bits=0.5), decoder)),
        *(SHAPE, LATENT_DIM),
        samples=1,
        beta=2.0,
        free_bits=0.5,
        reconstruction_shape=shapes,
        data=np.arange(64).reshape((4, *SHAPE)) % 4 / 3 if kind == 4 else None,
    )
    assert not result.findings and result.beta == pytest.approx(2, rel=1e-3)
