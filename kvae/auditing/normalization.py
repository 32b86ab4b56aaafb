"""Whether exp(-reconstruction term) sums to the same number for every reconstruction: then it is a likelihood."""

import numpy as np

from kvae.auditing.black_box import BlackBox

SUPPORTS = {  # values of one x, and the weight of each in the sum
    "0 and 1": (np.array([0.0, 1.0]), 1.0),
    "256 levels k / 255": (np.arange(256) / 255, 1.0),
    "[0, 1]": (np.linspace(0.0, 1.0, 101), None),
    "counts": (np.arange(41.0), 1.0),
    "the real numbers": (0.5 + 0.05 * np.sinh(np.linspace(-6.2, 6.2, 301)), None),  # densest near 0.5
}
_TRIES = 4
_RESOLVED = 6  # points of a density that aren't far from its top


def identify(loss: BlackBox, levels: np.ndarray | None = None) -> tuple[str, float] | None:
    """(support, weight) of a normalized likelihood of one value of x, or None. levels: the values that the data have.

    One value of x runs over the support, with its part of the decoder's outputs at `_TRIES` settings; all else stays.
    The weight s is the one for which the sum of exp(-term / s) doesn't depend on the setting.
    """
    position = tuple(size // 2 for size in loss.event_shape)
    if not applies(loss):
        return None
    settings = _settings(loss, position)
    weights = sorted({1.0, 2.0, 0.5, 1 / loss.features, 1 / loss.event_shape[-1]}, key=lambda s: abs(np.log(s)))
    supports = SUPPORTS if levels is None else {f"{len(levels)} levels": (levels, 1.0), **SUPPORTS}
    for support, (points, measure) in supports.items():
        measure = np.full(len(points), measure) if measure else _trapezoid(points)
        tolerance = 1e-3 if loss.exact and support != "the real numbers" else 1e-2
        curves = np.empty((0, len(points)))
        for outputs in settings:  # most supports fail at the second
            curves = np.append(curves, [_curve(loss, position, points, outputs)], axis=0)
            fitting = [weight for weight in weights if _is_normalized(loss, curves, measure, weight, tolerance)]
            if not fitting:
                break
        else:
            falls_off = np.min(curves[:, [0, -1]]) - np.max(np.min(curves, axis=1)) > 8 * fitting[0]
            if np.ptp(curves) > loss.noise(*curves[:, 0]) and (support != "the real numbers" or falls_off):
                return support, fitting[0]
    return None


def _is_normalized(loss, curves, measure, weight, tolerance):
    if not np.all(np.isfinite(curves)):
        return False
    is_density = np.ptp(measure) > 0
    near = np.count_nonzero(curves - np.min(curves, axis=1, keepdims=True) < 3 * weight, axis=1)
    is_narrow = np.min(near) < _RESOLVED if is_density else len(curves) == _TRIES and np.max(near) < 2
    if is_narrow:  # the sums say nothing
        return False
    sums = [_log_sum(-curve / weight, measure) for curve in curves - np.min(curves)]
    if len(curves) == _TRIES:  # where a reconstruction changes little, the sums may differ less
        tolerance *= min(1.0, float(np.max(np.ptp(curves, axis=0))) / weight)
    return bool(np.ptp(sums) <= tolerance + 4 * loss.noise(*curves[:, 0]) / weight)


def applies(loss: BlackBox) -> bool:
    """Whether one value of x has its part of each of the decoder's outputs."""
    return all(_has_part(shape, loss) for shape in loss.shapes)


def _has_part(shape, loss):
    """Whether a position of x has its part of an output: the leading axes are the same."""
    is_event = shape == loss.event_shape
    return is_event or (loss.event_shape[-1] == 1 and shape[: len(loss.event_shape) - 1] == loss.event_shape[:-1])


def _settings(loss, position):
    """Outputs that differ at one position: a list for each try."""
    rng = np.random.default_rng(0)
    background = [rng.uniform(0.3, 0.6, shape) for shape in loss.shapes]
    if loss.is_learned:
        background[1] = np.full(loss.shapes[1], -2.0)
    tries = []
    for number in range(_TRIES):
        outputs = [each.copy() for each in background]
        for index, (shape, each) in enumerate(zip(loss.shapes, outputs, strict=True)):
            part = position if shape == loss.event_shape else position[:-1]
            spread = np.linspace(0.02, 0.98, _TRIES)[number]  # near the ends of [0, 1], where tails are cut
            value = spread if index == 0 else -1.5 - 0.4 * number
            each[part] = value if shape == loss.event_shape else rng.uniform(-0.5, 0.5, each[part].shape) + value - 0.5
        tries.append(outputs)
    return tries


def _curve(loss, position, points, outputs):
    """The loss by the value of x at the position, (len(points),)."""
    x = np.full((len(points), *loss.event_shape), 0.5)
    x[(slice(None), *position)] = points
    return loss.each(x, list(outputs))


def _trapezoid(points):
    steps = np.diff(points)
    return 0.5 * (np.append(steps, 0.0) + np.insert(steps, 0, 0.0))


def _log_sum(values, measure):
    largest = np.max(values)
    return float(np.log(np.sum(measure * np.exp(values - largest))) + largest)
