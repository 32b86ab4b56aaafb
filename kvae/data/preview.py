"""A stream's first images, in HTML."""

import base64
import html
from collections.abc import Mapping

import numpy as np

from kvae.data import streams
from kvae.data.render import encode_png

_IMAGES, _PIXELS = 8, 64


def preview(stream):
    """What a `Stream` holds: a strip of images of its next epoch's first batch, the batches' shape and their count.

    It reads that batch, and leaves the epoch the next.
    """
    text = f"<b>Stream</b> {stream.steps:,} batches of {html.escape(_described(stream.element_spec))}"
    try:
        with streams.clear_errors():
            batches = streams.batches(stream).take(1)
            found = [np.asarray(streams.unpack(batch)[0])[:_IMAGES] for batch in batches]
    except Exception as error:  # of whoever reads the stream; what only shows it must not fail
        return f"<div>{text}<br>{html.escape(str(error))}</div>"
    return f"<div>{text}<br>{''.join(map(_strip, filter(_are_images, found)))}</div>"


def _are_images(x):
    return x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3))


def _described(spec):
    """Shapes and dtypes of what a stream gives, with its own names."""
    if isinstance(spec, Mapping):
        return "{" + ", ".join(f"{name}: {_described(part)}" for name, part in spec.items()) + "}"
    if isinstance(spec, tuple | list):
        return "(" + ", ".join(map(_described, spec)) + ")"
    return f"{spec.dtype.name} {spec.shape}"


def _strip(images):
    """An img of images (n, height, width), (n, height, width, 1 or 3), side by side."""
    images = images[..., None] if images.ndim == 3 else images
    images = images if images.dtype == np.uint8 else np.nan_to_num(255 * np.clip(images.astype("float32"), 0, 1))
    images = np.broadcast_to(images.round().astype(np.uint8), (*images.shape[:-1], 3))
    times = max(1, _PIXELS // max(images.shape[1:3]))
    images = np.pad(images.repeat(times, axis=1).repeat(times, axis=2), [(0, 0), (0, 0), (0, 4), (0, 0)])
    board = np.concatenate(images, axis=1)
    file = base64.b64encode(encode_png(board[None])[0]).decode()
    return f'<img alt="the first {len(images)} images" src="data:image/png;base64,{file}">'
