"""A model as a row of boxes, in HTML."""

import html
import math

_BOX = "border: 1px solid; border-radius: 4px; padding: 4px 10px; text-align: center; background: none"
_PLAIN = "border: none; padding: 2px 4px; text-align: center; background: none"
_ARROW = f'<td style="{_PLAIN}">&rarr;</td>'


def diagram(model):
    """x -> encoder -> q(z|x) -> z -> decoder -> p(x|z), with the prior p(z) below z: a table in HTML.

    What a model doesn't have is left out; every name in it is escaped.
    """
    given = ",y" if hasattr(model, "label_dim") else ""
    way = [("x" + given, _size(model.event_shape)), *_encoding(model, given)]
    below = len(way)  # of which box the prior is
    sizes = getattr(model, "latent_sizes", None)
    way += [("z", " + ".join(map(str, sizes)) if sizes else str(model.latent_dim or "?")), *_decoding(model, given)]
    rows = [_ARROW.join(_box(*part) for part in way)]
    if getattr(model, "prior", None) is not None and hasattr(model, "encoder"):  # PCA's is of other codes
        top = "top: " if sizes else ""
        prior = _box("p(z)", top + type(model.prior).__name__)
        before = f'<td colspan="{2 * below}" style="{_PLAIN}"></td>'
        rows += [f'{before}<td style="{_PLAIN}">&uarr;</td>', before + prior]
    table = "".join(f'<tr style="background: none">{row}</tr>' for row in rows)
    loss = getattr(model, "loss", None)
    minimised = f", minimises {type(loss).__name__}" if loss is not None else ""
    kind = html.escape(type(model).__name__)
    title = f"<b>{kind}</b> {html.escape(model.name)}, {_weights(model)}{html.escape(minimised)}"
    return f"<div>{title}<table>{table}</table></div>"


def _encoding(model, given):
    if not hasattr(model, "encoder"):
        return [("axes", "W (x - mean)")]
    parts = [("encoder", model.encoder.name, _weights(model.encoder))]
    if hasattr(model, "posteriors"):
        parts.append(("q(z|x)", f"{len(model.posteriors)} layers"))
    elif hasattr(model, "posterior_family"):
        parts.append((f"q(z|x{given})", type(model.posterior_family).__name__))
    elif hasattr(model, "quantizer"):
        parts.append(("nearest", f"of {model.quantizer.codes} codes"))
    return parts


def _decoding(model, given):
    if not hasattr(model, "decoder"):
        return [("axes", "mean + W' z"), ("x", "nearest in their span")]
    decoder = ("decoder", model.decoder.name, _weights(model.decoder))
    if getattr(model, "likelihood", None) is not None:
        return [decoder, (f"p(x|z{given})", type(model.likelihood).__name__)]
    return [decoder, ("x", "its reconstruction")]


def _size(shape):
    return "not known yet" if shape is None else " x ".join(map(str, shape)) or "a number"


def _weights(layer):
    return f"{sum(math.prod(weight.shape) for weight in layer.weights):,} weights"


def _box(title, *lines):
    text = "".join(f"<br>{html.escape(line)}" for line in lines)
    return f'<td style="{_BOX}"><b>{html.escape(title)}</b>{text}</td>'
