"""How the latents of a model carry known factors: the measures of the literature, side by side."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kvae import arguments, html
from kvae.data import arrays, elements, errors
from kvae.data.factors import Factor
from kvae.evaluation import factor_information, factor_scores, published_scores, scoring
from kvae.models import VQVAE

NAMES = (
    "MIG",
    "SAP",
    "DCI disentanglement",
    "DCI completeness",
    "DCI informativeness",
    "modularity",
    "explicitness",
    "InfoM",
    "InfoC",
    "InfoE",
    "FactorVAE",
    "beta-VAE",
)
_LEAST = 50  # rows


class Score(NamedTuple):
    """A score in both forms.

    Attributes:
        value: from ranks. No monotone map of a latent and no outlier moves it, and chance alone gives 0 (the two
            scores of votes give 1 / factors).
        standard_error: of `value`, from random halves of the rows.
        published: in the form of its paper; None if it wasn't computed.
    """

    value: float
    standard_error: float
    published: float | None


@dataclasses.dataclass(frozen=True)
class Disentanglement:
    """The result of `disentanglement`. It prints as a table; `kvae.plots.disentanglement` draws its matrix.

    Attributes:
        scores: {name: `Score`}.
        information: (factors, latents), the mutual information of a latent and a factor as a share of the factor's
            entropy: 1 if the latent tells the factor, 0 within chance.
        standard_errors: of `information`, (factors, latents).
        entropies: of the factors, (factors,), in nats.
        factors: {name: `Factor`}.
        active: (latents,), False for constant and collapsed latents.
        examples: number of rows.
    """

    scores: dict[str, Score]
    information: np.ndarray
    standard_errors: np.ndarray
    entropies: np.ndarray
    factors: dict[str, Factor]
    active: np.ndarray
    examples: int

    @property
    def inactive(self) -> tuple[str, ...]:
        """The names of the inactive latents, such as "z3"."""
        return tuple(f"z{latent}" for latent in np.flatnonzero(~self.active))

    @property
    def carried(self) -> tuple[str | None, ...]:
        """For each latent the factor that it tells the largest share of, None for a latent without information."""
        names, found = list(self.factors), self.information
        return tuple(names[k] if found[k, j] > 0 else None for j, k in enumerate(np.argmax(found, axis=0)))

    _repr_html_ = html.disentanglement
    __repr__ = html.plain_repr(html.disentanglement)


@errors.clear_errors()
def disentanglement(
    model: Any,
    data: Any,
    factors: Mapping[str, Any] | None = None,
    *,
    threshold: float = 0.01,
    published: bool = True,
    seed: int = 0,
    batch_size: int = elements.BATCH_SIZE,
) -> Disentanglement:
    """Measure how the latents carry known factors: MIG, SAP, DCI, modularity, InfoMEC and others, in two forms.

    One form is each paper's own. The other reads ranks, so that no monotone map of a latent and no outlier moves it:

    - MIG, DCI's disentanglement and completeness, modularity, InfoM and InfoC are functions of one matrix: the mutual
      information of each latent and factor, as a share of the factor's entropy. Latents and numbers are cut into bins
      of equal mass (20, fewer below 2,000 rows); categories and latents of few values count as they are. The mean
      over permutations is removed, and values within 5 of their deviations are 0.
    - SAP is the gap in explained variance between a factor's two best latents, in the same bins.
    - Informativeness is the variance of a factor explained by all latents together, explicitness 2 AUC - 1 of its
      levels, and InfoE the explained variance by an additive model, or for categories the explained entropy. All are
      of rows that weren't fitted.
    - FactorVAE and beta-VAE votes are of rows with the same level of a factor, learned and scored on disjoint halves.

    A periodic factor is a point (cos, sin) on a circle. Its levels are arcs, counted from the phase at a latent's
    end, since a single latent has to jump or turn somewhere. Codes (cos, sin) of a full turn have a completeness
    below 1 and no gap: two latents carry it. If the period depends on a second factor, as an angle's on the shape,
    all of this is done within each value of that factor.

    Args:
        model: a model of kvae with one vector of numbers as a code, or codes (n, latents).
        data: a stream of (x, {factor: values}), or arrays. With codes: {factor: values (n,)}.
        factors: {name: kind}, the factors to measure: a `kvae.data.Factor`, or "categorical" or "ordered". None
            takes all labels of the data, with the kinds that the stream knows (`Stream.factors`, of sprites);
            otherwise floats are ordered, and integers and texts categorical.
        threshold: the least variance of the posterior mean of a VAE's active latent; see `active_units`. Other
            codes are inactive if they are constant.
        published: whether to compute the papers' forms as well, which takes about half of the time.
        seed: of permutations, halves and votes, an int.
        batch_size: of arrays.

    Returns:
        a `Disentanglement`.

    Raises:
        TypeError: for a model without such codes, and for data without factors.
        ValueError: for unknown or constant factors, unequal lengths, and fewer than 50 rows.
        ImportError: without scikit-learn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> factors = {"x": rng.random(500), "shape": rng.integers(0, 3, 500)}
        >>> codes = np.stack([factors["x"] ** 3, rng.random(500), factors["shape"]], axis=1)
        >>> result = disentanglement(codes, factors, published=False)
        >>> result.carried, round(result.scores["MIG"].value, 2)
        (('x', None, 'shape'), 1.0)

    Reference:
        Locatello et al. (2019), "Challenging common assumptions in the unsupervised learning of disentangled
        representations", for an overview; the papers of the single scores are named in `published_scores`.
    """
    threshold = arguments.real("threshold", threshold, 0)
    arguments.boolean("published", published)
    seed = arguments.seed(seed, random=False)
    elements.validate_batch_size(batch_size)
    if factors is not None:
        arguments.instance("factors", factors, Mapping, 'a dict such as {"hue": kvae.data.Factor("periodic", 1.0)}')
    try:
        from threadpoolctl import threadpool_limits  # of scikit-learn
    except ImportError:
        raise ImportError("scikit-learn is missing: install it with python -m pip install scikit-learn") from None
    if isinstance(model, np.ndarray):
        z, values, least = arguments.array("model", model).astype(np.float64), data, 0.0
    else:
        z, values = _codes(model, data, batch_size)
        least = threshold if hasattr(model, "posterior") else 0.0
    kinds, values = _kinds(values, factors, getattr(data, "factors", None))
    _validate(z, kinds, values)
    active = (z.var(axis=0) > least) & (np.ptp(z, axis=0) > 0)
    columns = factor_information.columns(values, kinds)
    with threadpool_limits(1), warnings.catch_warnings():  # threads of small fits wait for each other
        warnings.simplefilter("ignore")  # of logistic regression that separates its classes
        rng = np.random.default_rng(seed)
        information = factor_information.Information(columns, z, active, rng)
        halves = [information.resampled(half)[0] for half in factor_scores.random_halves(len(z), seed)]
        found = factor_scores.resistant_scores(columns, z, active, information, seed)
        papers = published_scores.published_scores(columns, z, active, seed) if published else {}
    return Disentanglement(
        scores={name: Score(*found[name], papers.get(name)) for name in NAMES},
        information=information.share,
        standard_errors=np.std(halves, axis=0, ddof=1),
        entropies=information.entropies,
        factors=kinds,
        active=active,
        examples=len(z),
    )


def _codes(model, data, batch_size):
    """(codes (n, latents), {label: (n,)}) of a pass over the data."""
    scoring.check_is_model(model)
    if isinstance(model, VQVAE):
        raise TypeError("A VQVAE's code is a map of integers, not a vector; give codes of your own, (n, latents).")
    codes, labels = [], []
    for element in arrays.batches(model._checked(data, "data"), batch_size):
        codes.append(np.asarray(ops.convert_to_numpy(model.encode(model._scaled(model._read(element)))), np.float64))
        y = elements.unpack(element)[1]
        labels.append(y if isinstance(y, Mapping) else {} if y is None else {"label": y})
    names = labels[0] if labels else {}
    return np.concatenate(codes), {name: np.concatenate([np.asarray(each[name]) for each in labels]) for name in names}


def _kinds(values, factors, known):
    """({name: Factor}, {name: (n,)}) of the factors to measure."""
    if not isinstance(values, Mapping) or not values:
        raise TypeError("data has no factors; expected (x, {factor: values}), or with codes {factor: values (n,)}.")
    values = {name: np.asarray(found) for name, found in values.items()}
    kinds = {}
    for name in values if factors is None else factors:
        if name not in values:
            raise ValueError(f"factors has {name!r}; the data have {sorted(values)}.")
        kind = (factors or known or {}).get(name)
        if kind is None:
            kind = "ordered" if values[name].dtype.kind == "f" else "categorical"
        kinds[name] = kind if isinstance(kind, Factor) else Factor(kind)
        if kinds[name].given is not None and kinds[name].given not in values:
            raise ValueError(
                f"The period of {name!r} depends on {kinds[name].given!r}; the data have {sorted(values)}."
            )
    return kinds, values


def _validate(z, kinds, values):
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"The codes have the shape {z.shape}; expected finite numbers (n, latents).")
    if len(z) < _LEAST:
        raise ValueError(f"There are {len(z)} rows; expected {_LEAST} at least.")
    for name, factor in kinds.items():
        found = values[name]
        if found.shape != (len(z),):
            raise ValueError(f"The factor {name!r} has the shape {found.shape}; expected one value a row, ({len(z)},).")
        if factor.kind != "categorical" and (found.dtype.kind not in "biuf" or not np.isfinite(found).all()):
            raise ValueError(f"The factor {name!r} is {factor.kind}; expected finite numbers.")
        count = len(np.unique(found))
        if count < 2 or (factor.kind == "categorical" and count > len(z) // 5):
            advice = 'give factors={name: "ordered"}' if count > 1 else "leave it out"
            raise ValueError(f"The {factor.kind} factor {name!r} has {count} values in {len(z)} rows: {advice}.")
