"""How a loss and its two terms depend on the number of examples in a batch."""

import dataclasses
import math

import numpy as np

from kvae.auditing.black_box import BlackBox


@dataclasses.dataclass(frozen=True)
class Batches:
    """How both terms grow with n, the number of equal examples.

    Attributes:
        reconstruction: the power of n: 0 for a mean, 1 for a sum, None if the term doesn't change or is no power.
        kl: the same of the KL term.
        uneven: bool, whether some examples of a batch count more than others.
        couples: bool, whether an example's KL term depends on the other examples.
        relative: {n: the KL's change relative to the reconstruction's}, if that is no power of n.
    """

    reconstruction: float | None
    kl: float | None
    uneven: bool = False
    couples: bool = False
    relative: dict[int, float] | None = None

    @property
    def reduction(self) -> str:
        """In words."""
        powers = {power for power in (self.reconstruction, self.kl) if power is not None}
        names = {0.0: "mean", 1.0: "sum", -1.0: "mean, divided by the batch size again"}
        if len(powers) == 1:
            return names.get(next(iter(powers)), "no mean")
        return " and ".join(names.get(power, "no mean") for power in sorted(powers)) or "unknown"

    @property
    def excess(self) -> float:
        """The power of n in the weight of the KL relative to the reconstruction."""
        return 0.0 if self.reconstruction is None or self.kl is None else self.kl - self.reconstruction


def identify(loss: BlackBox, batch_size: int) -> Batches:
    """The powers of both terms. The loss is divided by n to the reconstruction's power from then on.

    batch_size: at which the weight of the KL will be asked for.
    """
    sizes = [loss.rows, 2 * loss.rows, 4 * loss.rows]
    mean = 3.0 if loss.exact else 100.0

    def values(n):
        return loss(0.3, 0.5, rows=n), loss(0.3, 0.8, rows=n), loss(0.3, 0.5, mean, 0.5, rows=n)

    base, worse, coded = zip(*map(values, sizes), strict=True)
    reconstruction, kl = _power(worse, base, loss), _power(coded, base, loss)
    relative = None
    if kl is None and reconstruction is not None and _changes(coded, base, loss):
        measured = {n: values(n) for n in (loss.rows, 1, batch_size)}
        relative = {n: (third - first) / (second - first) for n, (first, second, third) in measured.items()}
        relative = {n: value / relative[loss.rows] for n, value in relative.items()}
    uneven = _uneven(loss, reconstruction)
    power = next((each for each in (reconstruction, kl) if each is not None), 0.0)
    loss.power = power
    return Batches(reconstruction, kl, uneven, _couples(loss), relative)


def _changes(values, base, loss):
    """Whether all values differ from the base."""
    changes = np.subtract(values, base)
    return bool(np.all(np.isfinite(changes)) and np.min(np.abs(changes)) > loss.noise(*base, *values))


def _power(values, base, loss):
    """The power of n in the changes, for n, 2 n and 4 n; None if there is no change, or it is no power."""
    changes = np.subtract(values, base)
    if not _changes(values, base, loss):
        return None
    powers = np.log2(np.abs(changes[1:] / changes[:-1]))
    rounded = np.round(powers[0])
    return float(rounded) if np.all(np.abs(powers - rounded) < 0.02) else None


def _uneven(loss, power):
    """Whether a change in one example's reconstruction counts differently for different examples."""
    if power is None:
        return False
    base, changes = loss(0.3, 0.5), []
    rank = len(loss.shapes[0])
    for row in range(loss.rows):
        output = np.full((loss.rows, *(1,) * rank), 0.5)
        output[row] = 0.8
        output = np.broadcast_to(output, (loss.rows, *loss.shapes[0]))
        changes.append(loss(0.3, [output, *[0.5] * (len(loss.shapes) - 1)]) - base)
    size = max(map(abs, changes))
    return bool(np.ptp(changes) > 0.02 * size + 2 * loss.noise(base))


def _couples(loss):
    """Whether the term of z_mean and z_log_var is no mean over the examples."""
    code = (loss.rows, loss.latent_dim)
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=code), rng.normal(size=code)
    together = loss(0.3, 0.5, mean, log_var)
    alone = [loss(0.3, 0.5, m, v) for m, v in zip(mean, log_var, strict=True)]
    noise = sum(loss.noise(value) for value in alone)
    if not (math.isfinite(together) and np.all(np.isfinite(alone))):
        return False
    return bool(abs(np.mean(alone) - together) > noise + 1e-3 * (np.ptp(alone) + 1e-12))
