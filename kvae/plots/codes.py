"""What the plots read: the first examples of a stream, and what a model says of its codes."""

from collections.abc import Mapping

import numpy as np
from keras import ops

from kvae.data import arrays, elements

EXAMPLES = 512


def check_count(name, value, least=1):
    """Raise ValueError for what isn't an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}.")


def first_examples(data, count, labels=None):
    """(x, y) of the first `count` examples as arrays, of as few batches as that takes.

    y is None where there are no labels. labels: None for the stream's own, the name of one in its dict, or an array
    beside an array x. Raises ValueError for no examples and labels that aren't there.
    """
    if labels is not None and not isinstance(labels, str):
        if hasattr(data, "element_spec"):
            raise ValueError(
                "labels is an array and x a stream, whose order may change from pass to pass; give a "
                "stream of (x, label), or the name of a label in its dict."
            )
        data, labels = (elements.unpack(data)[0], np.asarray(labels)), None
    found, seen = [], 0
    size = min(count, elements.BATCH_SIZE)
    stream = arrays.batches(data, size)
    if not hasattr(data, "element_spec"):
        stream = stream.take(-(-count // size))  # else tf.data reads ahead
    for element in stream:
        x, y, _ = elements.unpack(element)
        y = _named(element, labels) if labels is not None else y
        found.append((np.asarray(x), None if y is None or isinstance(y, Mapping) else np.asarray(y)))
        seen += len(found[-1][0])
        if seen >= count:
            break
    if not seen:
        raise ValueError("x is empty: there is nothing to draw.")
    xs, ys = zip(*found, strict=True)
    return np.concatenate(xs)[:count], None if ys[0] is None else np.concatenate(ys)[:count]


def _named(element, name):
    parts = element if isinstance(element, tuple | list) else (element,)
    dicts = [part for part in parts if isinstance(part, Mapping)]
    for part in dicts:
        if name in part:
            return part[name]
    names = sorted(key for part in dicts for key in part)
    raise ValueError(f"labels is {name!r}, which x doesn't have; its names are {names}.")


def usage(model, x, codes):
    """How much each latent is used, (latent_dim,), and a name for each that says so.

    By KL(q(z|x) || p(z)) where the model has it by latent, else by the standard deviation of the codes.
    """
    used = _kl(model, x)
    if used is not None and used.shape == codes.shape[1:]:
        texts = [f"KL {value:.2f} nats" for value in used]
    else:
        used = codes.std(axis=0)
        texts = [f"sd {value:.3g}" for value in used]
    return used, [f"z{latent}   {text}" for latent, text in enumerate(texts)]


def _kl(model, x):
    """The KL's columns, averaged over x; None where the model has no closed form."""
    if not hasattr(model, "draw"):
        return None
    total = 0.0
    for start in range(0, len(x), elements.BATCH_SIZE):
        block = elements.scale(x[start : start + elements.BATCH_SIZE], model.variable_dtype)
        # Noise by position, since a picture must not move the model's own seed on.
        kl = model.draw(block, index=start + ops.arange(len(block), dtype="int64")).kl
        if kl is None:
            return None
        total = total + ops.convert_to_numpy(kl).sum(axis=0)
    return total / len(x)


def prior_of_codes(model):
    """(mean, standard deviation) of a normal prior of the codes, each (latent_dim,); None where there is none.

    PCA's prior isn't one: its codes are scores, which `decode` takes and `decoder_distribution` doesn't.
    """
    if not hasattr(model, "decoder_distribution"):
        return None
    z = ops.ones((1, model.latent_dim), dtype=model.variable_dtype)
    prior = model.prior_distribution()
    if not hasattr(prior, "log_var") or not np.allclose(model.decode(z), model.decoder_distribution(z).mean):
        return None
    return ops.convert_to_numpy(prior.mean)[0], np.exp(0.5 * ops.convert_to_numpy(prior.log_var)[0])
