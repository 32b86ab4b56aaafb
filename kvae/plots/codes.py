"""The input of the plots: the first examples of a stream, and numbers about a model's codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kvae.data import arrays, elements

EXAMPLES = 512


def first_examples(
    data: Any, count: int, labels: str | ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(x, y) of the first `count` examples, from as few batches as possible.

    Args:
        data: a stream or arrays.
        count: number of examples.
        labels: None takes the stream's own labels; a string names a label in its dict; an array goes with an array x.

    Returns:
        two arrays. y is None if there are no labels.

    Raises:
        ValueError: for empty data, and for unknown labels.

    Example:
        >>> x, y = first_examples((np.zeros((9, 4)), np.arange(9)), 3)
        >>> x.shape, y
        ((3, 4), array([0, 1, 2]))
    """
    if labels is not None and not isinstance(labels, str):
        if hasattr(data, "element_spec"):
            raise ValueError(
                "labels is an array and x a stream, whose order may change from pass to pass; give a "
                "stream of (x, label), or the name of a label in its dict."
            )
        data, labels = (elements.unpack(data)[0], np.asarray(labels)), None
    xs, ys, seen = [], [], 0
    size = min(count, elements.BATCH_SIZE)
    stream = arrays.batches(data, size)
    if not hasattr(data, "element_spec"):
        stream = stream.take(-(-count // size))  # otherwise tf.data reads ahead
    for element in stream:
        x, y, _ = elements.unpack(element)
        y = _named(element, labels) if labels is not None else y
        xs.append(np.asarray(x))
        ys.append(None if y is None or isinstance(y, Mapping) else np.asarray(y))
        seen += len(xs[-1])
        if seen >= count:
            break
    if not seen:
        raise ValueError("x is empty: there is nothing to draw.")
    return np.concatenate(xs)[:count], None if ys[0] is None else np.concatenate(ys)[:count]


def _named(element, name):
    members = element if isinstance(element, tuple | list) else (element,)
    dicts = [member for member in members if isinstance(member, Mapping)]
    for member in dicts:
        if name in member:
            return member[name]
    names = sorted(key for member in dicts for key in member)
    raise ValueError(f"labels is {name!r}, which x doesn't have; its names are {names}.")


def usage(model: Any, x: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """How much the model uses each latent, (latent_dim,), and a label for each.

    It is KL(q(z|x) || p(z)) if the model has one per latent, otherwise the standard deviation of the codes.
    """
    used = _kl(model, x)
    if used is not None and used.shape == codes.shape[1:]:
        texts = [f"KL {value:.2f} nats" for value in used]
    else:
        used = codes.std(axis=0)
        texts = [f"sd {value:.3g}" for value in used]
    return used, [f"z{latent}   {text}" for latent, text in enumerate(texts)]


def _kl(model, x) -> np.ndarray | None:
    """The columns of the KL, averaged over x. None if the model has no closed form."""
    if not hasattr(model, "draw"):
        return None
    total: Any = 0.0
    for start in range(0, len(x), elements.BATCH_SIZE):
        block: Any = elements.scale(x[start : start + elements.BATCH_SIZE], model.variable_dtype)
        # Noise by position: a picture must not advance the model's own seed.
        kl = model.draw(block, index=np.arange(start, start + len(block))).kl
        if kl is None:
            return None
        total = total + np.asarray(kl).sum(axis=0)
    return total / len(x)


def prior_of_codes(model: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, standard deviation) of a normal prior of the codes, each (latent_dim,). None without one.

    PCA has none: its codes are scores, but `decoder_distribution` takes z.
    """
    if not hasattr(model, "decoder_distribution"):
        return None
    z = ops.ones((1, model.latent_dim), dtype=model.variable_dtype)
    prior = model.prior_distribution()
    if not hasattr(prior, "log_var") or not np.allclose(model.decode(z), model.decoder_distribution(z).mean):
        return None
    return np.asarray(prior.mean)[0], np.exp(0.5 * np.asarray(prior.log_var)[0])
