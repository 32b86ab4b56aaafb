"""The audit of a whole `kvae.VAE`: draws, densities, KL, objective, gradient and log p(x), each in a second way."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from kvae import evaluation, posteriors
from kvae.auditing import densities, draw_findings, objective_formulas, sampling
from kvae.auditing.findings import Check, Finding

_ROWS, _DRAWS = 16, 400
_PRIOR_DRAWS = _KL_DRAWS = 4_000


class Parts:
    """The checks of a model on some examples.

    Args:
        model: a built `kvae.VAE`.
        x: array (n, ...), scaled.
        samples: int, draws of z for log p(x).

    Attributes:
        checks: list of `Check`.
        findings: list of `Finding`.
        notes: list of str.
    """

    def __init__(self, model: Any, x: np.ndarray, samples: int):
        self.model, self.samples = model, samples
        self.x = ops.convert_to_tensor(x[:_ROWS].astype("float32"))
        self.checks: list[Check] = []
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.log_likelihood: Any = None

    def run(self) -> None:
        """Fill the lists."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of grey values: the audit looks itself
            for part in (
                self._draws,
                self._kl,
                self._prior,
                self._likelihood,
                self._objective,
                self._gradient,
                self._log_p,
            ):
                self.findings += list(part())

    def _check(self, what: str, found: float, expected: float, allowed: float, digits: int = 3) -> bool:
        """Note a comparison. Whether it holds."""
        holds = bool(abs(found - expected) <= allowed)
        self.checks.append(Check(what, f"{found:.{digits}f}", f"{expected:.{digits}f}", holds))
        return holds

    def _draws(self) -> Iterator[Finding]:
        """q(z|x): what it draws, and what it says about its draws."""
        model, latents = self.model, self.model.latent_dim
        q = model.posterior(self.x)
        eps = np.random.default_rng(0).normal(size=(len(self.x), latents))
        z, said, true = densities.log_prob_of_draws(q, eps)
        allowed = 0.01 + 2e-4 * float(np.max(np.abs(true)))
        off = float(np.max(np.abs(said - true)))
        if not self._check("log q(z|x) of a draw - log of its density, by autodiff", off, 0.0, allowed):
            yield Finding(
                "posterior-density",
                f"log q(z|x) of a draw is off by up to {off:.3g} nats from the density of z = f(eps), by autodiff.",
                "Each log-weight, and so the KL and log p(x), is off by as much.",
                ("log_q = log_noise - ...", "log_q = log_noise - log_det  # of dz/deps"),
            )
        if model.posterior_family.scores_any_z:
            again = ops.convert_to_numpy(q.log_prob(ops.convert_to_tensor(z)))
            off = float(np.max(np.abs(again - true)))
            if not self._check("log q(z|x) of any z - the same", off, 0.0, 5 * allowed + 0.05):
                yield Finding(
                    "posterior-log-prob",
                    f"`log_prob` of q(z|x) is off by up to {off:.3g} nats from the density of the same z as a draw.",
                    "An estimate of log p(x) that proposes from q is wrong by as much.",
                    ("def log_prob(self, z): ...", "log_prob(z) == rsample_and_log_prob(eps)[1] at z = f(eps)"),
                )
        if type(model.posterior_family) is posteriors.DiagonalNormal:
            outputs = [ops.convert_to_numpy(each).astype("float64") for each in _outputs(model, self.x)]
            drawn = ops.convert_to_numpy(model.draw(self.x, _DRAWS).z).astype("float64")
            mean, log_var = (np.repeat(each, _DRAWS, axis=0) for each in outputs)
            yield from draw_findings.of_sampling(sampling.measure(mean, log_var, drawn.reshape(mean.shape)), False)

    def _kl(self) -> Iterator[Finding]:
        """KL(q(z|x) || p(z)): its closed form beside an estimate of its definition."""
        q = self.model.posterior(self.x)
        closed = self.model.prior.kl_divergence(q)
        if closed is None:
            self.notes.append("The KL has no closed form: it is the mean of log q(z|x) - log p(z) over the draws.")
            return
        closed = np.sum(ops.convert_to_numpy(closed).astype("float64"), axis=1)
        eps = np.random.default_rng(1).normal(size=(len(closed) * _KL_DRAWS, self.model.latent_dim))
        z, log_q = q.repeat(_KL_DRAWS).rsample_and_log_prob(ops.convert_to_tensor(eps.astype("float32")))
        differences = ops.convert_to_numpy(log_q - self.model.prior_distribution().log_prob(z)).astype("float64")
        differences = differences.reshape(len(closed), _KL_DRAWS)
        drawn, error = differences.mean(axis=1), differences.std(axis=1) / math.sqrt(_KL_DRAWS)
        # Of all examples together, and of each.
        closed, drawn = (np.append(np.mean(each), each) for each in (closed, drawn))
        error = np.append(math.sqrt(float(np.mean(error**2)) / len(error)), error)
        allowed = 7 * error + 1e-3 * np.abs(drawn) + 1e-3
        worst = int(np.argmax(np.abs(closed - drawn) / allowed))
        found, expected = float(closed[worst]), float(drawn[worst])
        if not self._check("KL in closed form, by draws", found, expected, float(allowed[worst])):
            yield Finding(
                "kl-closed-form",
                f"The KL's closed form is {found:.3f} nats, and the mean of log q(z|x) - log p(z) {expected:.3f}.",
                "The ELBO is off by the difference, and its gradient drives q(z|x) elsewhere.",
                ("def kl_divergence(self, posterior): ...", "None, or the integral of q log(q / p)"),
            )

    def _prior(self) -> Iterator[Finding]:
        """p(z) sums to 1."""
        z = ops.convert_to_numpy(self.model.prior_distribution(_PRIOR_DRAWS).sample(seed=0)).astype("float64")
        found = densities.log_integral(z, self.model.prior_distribution())
        if not math.isfinite(found.error) or found.error > 0.1:
            self.notes.append("Whether p(z) integrates to 1 can't be told: its draws are too far from a normal's.")
            return
        if not self._check("log of the integral of p(z)", found.value, 0.0, 6 * found.error + 0.02):
            yield Finding(
                "prior-not-normalized",
                f"p(z) integrates to exp({found.value:.3f}), or its samples are of another density.",
                f"The ELBO and log p(x) are off by {found.value:.3f} nats.",
                ("def log_prob(self, z): ...", "log_prob(z) - log of the integral of exp(log_prob)"),
            )

    def _likelihood(self) -> Iterator[Finding]:
        """p(x|z) of two values sums to 1, and its samples have its moments."""
        try:
            found = densities.small_event(self.model.likelihood)
        except (TypeError, ValueError, AttributeError):  # a likelihood of certain shapes alone
            found = None
        if found is None:
            self.notes.append("Whether p(x|z) sums to 1 wasn't tried: its values can't be told off.")
            return
        total = max(found.total, key=lambda each: abs(np.log(max(each, 1e-300))))
        if not self._check("sum of p(x|z) over all x of two values", total, 1.0, 5e-3):
            yield Finding(
                "likelihood-not-normalized",
                f"p(x|z) of two values sums to {total:.4g} over all x, at some of the decoder's outputs.",
                "It is no probability, so the loss is no bound of log p(x).",
                ("def log_prob(self, x): ...", "log_prob(x) - log of the sum of exp(log_prob) over all x"),
            )
            return
        off = max(
            float(np.max(np.abs(samples - by_sum) / error))
            for (by_sum, _, samples), error in zip(found.means, found.errors, strict=True)
        )
        pairs = [(said, by_sum) for by_sum, said, _ in found.means if said is not None]
        if not self._check("mean of samples of p(x|z) - of its density, in standard errors", off, 0.0, 6.0, 1) or (
            pairs and densities.largest_difference(pairs) > 0.02
        ):
            yield Finding(
                "likelihood-mean",
                "Samples of p(x|z), or its `mean`, have another mean than its density.",
                "Reconstructions and samples are of another model than the bound.",
                ("def sample(self, seed): ...", "samples of exp(log_prob)"),
            )
        yield from self._variance(found)

    def _variance(self, found):
        pairs = [(said, by_sum) for by_sum, said, _ in found.variances if said is not None]
        pairs += [(v[2], v[0]) for v in found.variances if np.min(v[0]) > 0.05]
        if pairs and densities.largest_difference(pairs) > 0.5:
            yield Finding(
                "likelihood-variance",
                "Samples of p(x|z), or its `variance`, have another variance than its density.",
                "Samples and standardized residuals are of another model than the bound.",
                ("variance = ...", "the variance of exp(log_prob)"),
            )
        declared = [(v[0], d) for v, d in zip(found.variances, found.declared, strict=True) if d is not None]
        if not declared:
            return
        ratio = max((v / d for v, d in declared), key=lambda each: np.max(np.abs(np.log(each))))
        ratio = float(ratio.ravel()[np.argmax(np.abs(np.log(ratio)))])
        if not self._check("variance of p(x|z) / the one that its parameters declare", ratio, 1.0, 0.02):
            yield Finding(
                "likelihood-parameter",
                f"The variance of p(x|z) is {ratio:.3g} times the one that the likelihood's parameters say.",
                "A parameter that is reported, such as a dispersion, isn't the one that is in use.",
                ("log_dispersion", "-log_dispersion, or the reverse"),
            )

    def _objective(self) -> Iterator[Finding]:
        """The objective beside its formula, and the reported bound beside its own."""
        objective = self.model.compiled_loss
        draw = self.model.draw(self.x, max(objective.samples, 1), keep_posterior=True)
        step = int(self.model.optimizer.iterations)
        arrays = {
            n: None if getattr(draw, n) is None else ops.convert_to_numpy(getattr(draw, n)) for n in draw._fields[:-1]
        }
        comparisons = [
            ("ELBO as reported, and by its formula", ops.convert_to_numpy(draw.elbo), objective_formulas.elbo(arrays))
        ]
        formula = objective_formulas.expected_losses(objective, draw, step)
        if formula is None:
            self.notes.append(f"{type(objective).__name__} is no objective of kvae: it isn't compared with a formula.")
        else:
            losses = ops.convert_to_numpy(objective(draw, step)) + np.zeros(len(formula))
            comparisons.append((f"loss of {type(objective).__name__}, and by its formula", losses, formula))
        for (what, found, expected), name in zip(comparisons, ("bound", "objective"), strict=False):
            allowed = 1e-3 + 1e-4 * float(np.max(np.abs(expected)))
            worst = int(np.argmax(np.abs(found - expected)))
            if not self._check(what, float(found[worst]), float(expected[worst]), allowed):
                yield Finding(
                    name,
                    f"{what}: {found[worst]:.3f} nats, not {expected[worst]:.3f}.",
                    "Training climbs another number than the one that is named.",
                    (f"{type(objective).__name__}.__call__", "its formula in the docstring"),
                )

    def _gradient(self) -> Iterator[Finding]:
        """The gradient of the loss beside finite differences along it, with the same noise."""
        model, weights = self.model, self.model.trainable_weights
        if model.compiled_loss.doubly_reparameterized:
            self.notes.append("The doubly reparameterized gradient isn't the loss's own for one draw: not compared.")
            return

        def loss():
            return ops.mean(model.losses_per_example(self.x, index=ops.arange(len(self.x)))[0])

        value, flat = densities.gradient(loss, weights)
        before = [ops.convert_to_numpy(weight) for weight in weights]
        size = math.sqrt(sum(float(np.sum(g**2)) for g in flat))
        if size == 0 or not math.isfinite(size):
            return
        slopes = []
        try:
            for change in (0.02, 0.005):  # of the loss, relative
                step = change * max(1.0, abs(value)) / size
                values = []
                for sign in (1, -1):
                    for weight, old, gradient in zip(weights, before, flat, strict=True):
                        weight.assign(old + sign * step * gradient / size)
                    values.append(float(loss()))
                slopes.append((values[0] - values[1]) / (2 * step))
        finally:
            for weight, old in zip(weights, before, strict=True):
                weight.assign(old)
        allowed = 0.03 * size + 2 * abs(slopes[0] - slopes[1])
        if not self._check(
            "slope of the loss along its gradient: finite difference, autodiff", slopes[1], size, allowed
        ):
            yield Finding(
                "gradient",
                f"Along its gradient the loss changes by {slopes[1]:.3g} a unit, and the gradient says {size:.3g}.",
                "A part of the loss has no gradient, or a wrong one, such as behind a stop_gradient.",
                ("ops.stop_gradient(...)", "z = z_mean + ops.exp(0.5 * z_log_var) * eps, differentiable"),
            )

    def _log_p(self) -> Iterator[Finding]:
        """log p(x) of `kvae.evaluation` beside the mean of the weights of other draws."""
        x = ops.convert_to_numpy(self.x)
        found = self.log_likelihood = evaluation.log_likelihood(self.model, x, samples=self.samples, verbose=False)
        draw = self.model.draw(self.x, self.samples)
        logs: Any = sum(
            sign * ops.convert_to_numpy(each).astype("float64")
            for sign, each in ((1, draw.log_likelihood), (1, draw.log_prior), (-1, draw.log_posterior))
        )
        largest = logs.max(axis=1, keepdims=True)
        weights = np.exp(logs - largest)
        values = largest[:, 0] + np.log(weights.mean(axis=1))
        spread = np.sqrt(np.maximum(weights.var(axis=1), 0) / self.samples) / weights.mean(axis=1)
        known = spread < 0.4
        if not known.any():
            self.notes.append("log p(x) isn't compared: a draw or two of q(z|x) outweigh all others.")
            return
        first, second, errors = found.values[known].mean(), values[known].mean(), spread[known]
        allowed = 0.05 + 10 * float(np.sqrt(np.mean(errors**2) / len(errors)))
        if not self._check("log p(x) by kvae.evaluation, by other draws", float(first), float(second), allowed):
            yield Finding(
                "log-p",
                f"kvae.evaluation says {first:.2f} nats, and the log of the mean weight is {second:.2f}.",
                "Published numbers of log p(x) are off by the difference.",
                ("log_w = log_p_x - log_p_z - log_q", "log_w = log_p_x + log_p_z - log_q; log_mean_exp(log_w)"),
            )


def _outputs(model, x):
    return model._outputs(model.encoder, model._encoder_inputs(x, False), False)
