"""Notebook representations: models as diagrams, streams as strips of images, measurements as tables, all in HTML.

The functions of one object are the `_repr_html_` of its class. This module imports nothing of kvae.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape, unescape
from typing import Any

import numpy as np

_BOX = "border: 1px solid; border-radius: 4px; padding: 4px 10px; text-align: center; background: none"
_PLAIN = "border: none; padding: 2px 4px; text-align: center; background: none"
_ARROW = f'<td style="{_PLAIN}">&rarr;</td>'
NOTHING_FOUND = "nothing stands out"

_IMAGES, _PIXELS = 8, 64  # images of a strip, and the least size in pixels of each


def table(rows: Sequence[Sequence]) -> str:
    """Rows of cells as an HTML table; rows may differ in length, and the cells' text is escaped."""
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def bullets(lines: Sequence[str]) -> str:
    """Lines of text as an HTML list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def as_text(page: str) -> str:
    """The tables and lists of a page as lines of text, each table with aligned columns."""
    blocks = []
    for table_content, list_content in re.findall(r"<table>(.*?)</table>|<ul>(.*?)</ul>", page, re.DOTALL):
        rows = [re.findall(r"<td>(.*?)</td>", row) for row in table_content.split("</tr>") if row]
        columns = max(map(len, rows), default=0)
        rows = [[unescape(cell) for cell in row] + [""] * (columns - len(row)) for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map("{:<{}}".format, row, widths)).rstrip() for row in rows]
        lines += [f"- {unescape(line)}" for line in re.findall(r"<li>(.*?)</li>", list_content)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def plain_repr(page: Callable[[Any], str]) -> Any:
    """A `__repr__` for a Python shell: the class and the text of the page that notebooks show.

    In a class body: `__repr__ = html.plain_repr(html.bracket)`.
    """

    def __repr__(self: Any) -> str:
        return f"{type(self).__name__}\n{as_text(page(self))}"

    return __repr__


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of strings as aligned lines of text: the first and last columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = "<" + ">" * (len(widths) - 2) + "<"
    return ["  ".join(map("{:{}{}}".format, row, align, widths)).rstrip() for row in rows]


def latent_rows(columns: Mapping[str, np.ndarray | None], sort_by: str | None = None) -> list[tuple[str, ...]]:
    """A header and one row per latent, as strings.

    Args:
        columns: {column name: values (latent_dim,)}. None leaves the column out.
        sort_by: name of the column to sort by, largest value first. None keeps the order of the latents.
    """
    present = {name: values for name, values in columns.items() if values is not None}
    order = range(len(next(iter(present.values()))))
    if sort_by is not None:
        order = np.argsort(-present[sort_by], kind="stable")
    rows = [(f"z{latent}", *(_number(values[latent]) for values in present.values())) for latent in order]
    return [("latent", *present), *rows]


def _number(value):
    if isinstance(value, np.bool_):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, np.floating) else str(value)


def log_likelihood(result: Any) -> str:
    """The table of result, a `kvae.evaluation.LogLikelihood`."""
    bits = [] if result.dimensions is None else [("bits per dimension", f"{result.bits_per_dimension:.4f}")]
    effective = result.effective_samples
    few = f"in one example; {np.sum(result.degenerate):,} have fewer than {result.few:g}"
    return table(
        [
            ("log p(x), nats", f"{result.mean:.2f} +- {result.standard_error:.2f}", f"{len(result.values):,} examples"),
            *bits,
            *((f"bound, k = {k:,}", f"{bound:.2f}") for k, bound in result.curve.items()),
            (
                "effective samples",
                f"{np.median(effective):.0f} of {result.samples:,}",
                "median; few mean log p(x) is higher still",
            ),
            ("the least", f"{np.min(effective):.1f}", few),
            ("overconfidence", f"{np.mean(result.overconfidence):.2f}", "above 0: q(z|x) is too narrow, or off"),
        ]
    )


def decomposition(result: Any) -> str:
    """The table of result, a `kvae.evaluation.Decomposition`."""
    split = [
        ("- mutual information", result.mutual_information, "of x and z"),
        ("- KL of the aggregate", result.aggregate_kl, "KL(q(z) || p(z))"),
    ]
    return table(
        [
            ("log p(x), nats", result.log_likelihood, "the three terms together"),
            ("reconstruction", result.reconstruction, "E[log p(x|z)]"),
            *(split if result.aggregate else [("- KL to the prior", result.kl, "KL(q(z|x) || p(z))")]),
            ("+ KL to the true posterior", result.gap, "KL(q(z|x) || p(z|x))"),
        ]
    )


def rate_distortion(result: Any) -> str:
    """The table of result, a `kvae.evaluation.RateDistortion`."""
    return table(
        [("rate, nats", result.rate, "KL(q(z|x) || p(z))"), ("distortion", result.distortion, "-E[log p(x|z)]")]
    )


def active_units(result: Any) -> str:
    """The table of result, a `kvae.evaluation.ActiveUnits`."""
    return table(latent_rows({"variance of its posterior mean": result.variances, "active": result.active}))


def aggregate_posterior(result: Any) -> str:
    """The table of result, a `kvae.evaluation.AggregatePosterior`."""
    total, least = result.total_correlation, f"at least {max(0.0, result.least_aggregate_kl):.2f}"
    rows = [
        ("mutual information, nats", f"{np.mean(result.mutual_information):.2f}", "of x and z"),
        ("KL of the aggregate", f"{np.mean(result.aggregate_kl):.2f}", f"KL(q(z) || p(z)), over all x {least}"),
        *([] if total is None else [("total correlation", f"{np.mean(total):.2f}", "KL(q(z) || prod q(z_j))")]),
    ]
    return table(rows) + (table(latent_rows(result.latents)) if result.latents else "")


def bracket(result: Any) -> str:
    """The table of result, a `kvae.evaluation.Bracket`."""
    bounds = {"lower": result.lower, "upper": result.upper}
    return table([(f"{name} bound of log p(x), nats", f"{np.mean(values):.2f}") for name, values in bounds.items()])


def calibration(result: Any) -> str:
    """The table of result, a `kvae.evaluation.Calibration`."""
    p_values = latent_rows({"p-value of uniform ranks": result.p_values})
    return table([("calibrated", result.calibrated)]) + table(p_values)


def disentanglement(result: Any) -> str:
    """The tables of result, a `kvae.evaluation.Disentanglement`."""
    scores, latents = [("score", "from ranks", "as published")], [("latent", "tells most of", "share of its entropy")]
    for name, score in result.scores.items():
        published = "" if score.published is None else f"{score.published:.3f}"
        scores.append((name, f"{score.value:.3f} +- {score.standard_error:.3f}", published))
    shares = result.information.max(axis=0)
    for latent, (active, factor, share) in enumerate(zip(result.active, result.carried, shares, strict=True)):
        told = factor or "none" if active else "inactive"
        latents.append((f"z{latent}", told, f"{share:.2f}" if factor else ""))
    return table(scores) + table(latents)


def report(result: Any) -> str:
    """The table of result, a `kvae.evaluation.Report`."""
    return table(result.rows) + table(result.latents) + bullets(result.findings or (NOTHING_FOUND,))


def model(model: Any) -> str:
    """x -> encoder -> q(z|x) -> z -> decoder -> p(x|z) as a row of boxes, with the prior p(z) below z.

    It leaves out the parts missing in the model.
    """
    given = ",y" if hasattr(model, "label_dim") else ""
    boxes: list[tuple] = [("x" + given, _size(model.event_shape)), *_encoder_boxes(model, given)]
    z_column = len(boxes)
    sizes = getattr(model, "latent_sizes", None)
    boxes += [("z", " + ".join(map(str, sizes)) if sizes else str(model.latent_dim or "?"))]
    boxes += _decoder_boxes(model, given)
    rows = [_ARROW.join(_box(*box) for box in boxes)]
    if getattr(model, "prior", None) is not None and hasattr(model, "encoder"):  # PCA's prior is of other codes
        top = "top: " if sizes else ""
        name = type(model.prior).__name__ if hasattr(model.prior, "distribution") else model.prior.name  # a network's
        prior = _box("p(z)", top + name)
        before = f'<td colspan="{2 * z_column}" style="{_PLAIN}"></td>'
        rows += [f'{before}<td style="{_PLAIN}">&uarr;</td>', before + prior]
    body = "".join(f'<tr style="background: none">{row}</tr>' for row in rows)
    loss = getattr(model, "loss", None)
    minimized = f", minimizes {type(loss).__name__}" if loss is not None else ""
    kind = escape(type(model).__name__)
    title = f"<b>{kind}</b> {escape(model.name)}, {_weights(model)}{escape(minimized)}"
    return f"<div>{title}<table>{body}</table></div>"


def _encoder_boxes(model, given):
    if not hasattr(model, "encoder"):
        return [("axes", "W (x - mean)")]
    boxes: list[tuple] = [("encoder", model.encoder.name, _weights(model.encoder))]
    if hasattr(model, "posteriors"):
        boxes.append(("q(z|x)", f"{len(model.posteriors)} layers"))
    elif hasattr(model, "posterior_family"):
        boxes.append((f"q(z|x{given})", type(model.posterior_family).__name__))
    elif hasattr(model, "quantizer"):
        boxes.append(("nearest", f"of {model.quantizer.codes} codes"))
    return boxes


def _decoder_boxes(model, given):
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
    text = "".join(f"<br>{escape(line)}" for line in lines)
    return f'<td style="{_BOX}"><b>{escape(title)}</b>{text}</td>'


def stream(
    stream: Any, first_x: Callable[[], np.ndarray | None], encode_png: Callable[[np.ndarray], list[bytes]]
) -> str:
    """The shape and number of a `Stream`'s batches, and its first images side by side.

    Args:
        stream: the `kvae.data.Stream`.
        first_x: returns x of the first batch, or None for an empty stream. The text of its errors is shown.
        encode_png: function from images (n, height, width, 3), uint8, to the bytes of n PNG files.
    """
    text = f"<b>Stream</b> {stream.num_batches:,} batches of {escape(_spec(stream.element_spec))}"
    try:
        x = first_x()
    except Exception as error:  # a display must not raise the errors of the code that reads the stream
        return f"<div>{text}<br>{escape(str(error))}</div>"
    return f"<div>{text}<br>{_strip(x[:_IMAGES], encode_png) if x is not None and _are_images(x) else ''}</div>"


def _are_images(x):
    return x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))


def _spec(spec):
    """Shapes and dtypes of a stream's elements, with the names of a dict's parts."""
    if isinstance(spec, Mapping):
        return "{" + ", ".join(f"{name}: {_spec(part)}" for name, part in spec.items()) + "}"
    if isinstance(spec, tuple | list):
        return "(" + ", ".join(map(_spec, spec)) + ")"
    return f"{spec.dtype.name} {spec.shape}"


def _strip(images, encode_png):
    """An img element of images (n, height, width) or (n, height, width, 1 or 3), side by side."""
    images = images[..., None] if images.ndim == 3 else images
    images = images if images.dtype == np.uint8 else np.nan_to_num(255 * np.clip(images.astype("float32"), 0, 1))
    images = np.broadcast_to(images.round().astype(np.uint8), (*images.shape[:-1], 3))
    times = max(1, _PIXELS // max(images.shape[1:3]))
    images = np.pad(images.repeat(times, axis=1).repeat(times, axis=2), [(0, 0), (0, 0), (0, 4), (0, 0)])
    board = np.concatenate(images, axis=1)
    file = base64.b64encode(encode_png(board[None])[0]).decode()
    return f'<img alt="the first {len(images)} images" src="data:image/png;base64,{file}">'
