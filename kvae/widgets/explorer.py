"""The widget of `explore`. It needs the packages of the extra `notebooks`."""

import base64
import io
import os
import pathlib
from typing import Any

import anywidget
import ipywidgets
import matplotlib.image
import numpy as np
import traitlets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kvae.plots.canvas import CATEGORIES
from kvae.plots.codes import outline_prior
from kvae.widgets import pages

_PIXELS = 260  # the least length of the decoded image's longer side


class Plane(anywidget.AnyWidget):
    """A clickable picture. Points are (x, y) as shares of its width and height, from the upper left."""

    _esm = pathlib.Path(__file__).with_name("plane.js")
    picture = traitlets.Unicode().tag(sync=True)  # a PNG file in base64
    point = traitlets.List([0.5, 0.5]).tag(sync=True)
    clicked = traitlets.List([]).tag(sync=True)


class Explorer(ipywidgets.HBox):
    """Sliders, the image of their code, and the plane of two latents if the model has at least two.

    Args:
        model: decodes the codes.
        low, high: (latent_dim,), the ranges of the sliders.
        latents: the latents with a slider, in order.
        names: of all latents.
        dims: the latents of the plane.
        codes: (n, latent_dim), the points of the plane, or None. The first one is displayed at the start.
        prior: (mean, standard deviation) of a normal prior, each (latent_dim,), for the plane's ring, or None.
    """

    def __init__(
        self,
        model: Any,
        low: np.ndarray,
        high: np.ndarray,
        latents: list[int],
        names: list[str],
        dims: list[int],
        codes: np.ndarray | None,
        prior: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.model, self.dims, self._prior = model, dims, prior
        self._ranges, self._names, self._codes = (low, high), names, codes
        self._z = np.array((low + high) / 2 if codes is None else codes[0], "float64")
        self._pixels: Any = None
        self.sliders = {
            latent: _slider(low[latent], high[latent], self._z[latent], names[latent]) for latent in latents
        }
        self.image = ipywidgets.Image(format="png", layout={"margin": "24px 12px", "flex": "0 0 auto"})
        self.plane = None
        if len(dims) == 2:
            self._canvas, self._axes = _plane(low[dims], high[dims], [names[dim] for dim in dims], codes, dims, prior)
            self.plane = Plane(picture=base64.b64encode(_png(self._background())).decode())
            self.plane.observe(self._click, "clicked")
        self._moving = False
        for slider in self.sliders.values():
            slider.observe(self._slide, "value")
        self._show()
        column = ipywidgets.VBox(list(self.sliders.values()))
        super().__init__([child for child in (column, self.image, self.plane) if child is not None])

    @property
    def z(self) -> np.ndarray:
        """The displayed code, (latent_dim,)."""
        return self._z.copy()

    @z.setter
    def z(self, value: ArrayLike):
        code = np.array(value, "float64")
        if code.shape != self._z.shape or not np.isfinite(code).all():
            raise ValueError(f"z is {code}; expected {len(self._z)} finite numbers.")
        self._z = code
        self._moving = True  # one image for all sliders
        try:
            for latent, slider in self.sliders.items():
                slider.value = code[latent]
        finally:
            self._moving = False
        self._show()

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a page with the same sliders and plane to `path`. It needs neither a kernel nor the network.

        The decoder is in the page, with weights in float16. See `kvae.widgets.sketch` for a page to draw on.

        Args:
            path: a name that ends in .html, in a local folder.
            overwrite: bool, whether to replace a file that is there.

        Raises:
            ValueError: if the page can't run a layer of the decoder, or the path doesn't end in .html.
            FileExistsError: if the file exists and `overwrite` is False.
            OSError: if it can't be written; the old file then stays.
        """
        latents = list(self.sliders)
        page = pages.explorer(
            self.model, self._ranges, self._names, latents, self.dims, self._codes, self._z, self._prior
        )
        page.save(path, overwrite)

    def _slide(self, change):
        if not self._moving:
            for latent, slider in self.sliders.items():
                if slider is change["owner"]:
                    self._z[latent] = change["new"]
            self._show()

    def _click(self, change):
        across, down = change["new"]
        height, width = self._background().shape[:2]
        z = self.z
        z[self.dims] = self._axes.transData.inverted().transform((across * width, (1 - down) * height))
        self.z = z

    def _show(self):
        image = self.model.inverse_transform(self._z[None].astype("float32"))[0]
        self._pixels = _enlarged(image)
        self.image.value = _png(self._pixels)
        if self.plane is not None:
            height, width = self._background().shape[:2]
            across, up = self._axes.transData.transform(self._z[self.dims])
            self.plane.point = [float(across / width), float(1 - up / height)]

    def _background(self):
        return np.asarray(self._canvas.buffer_rgba())

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and a picture of it for readers without a kernel."""
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "image/png": base64.b64encode(_png(self._still())).decode()}

    def _still(self):
        if self.plane is None:
            return self._pixels
        pixels, background = self._pixels, self._background().copy()
        height, width = background.shape[:2]
        down, across = np.ogrid[:height, :width]
        distance = np.hypot(down - self.plane.point[1] * height, across - self.plane.point[0] * width)
        background[abs(distance - 7) < 1.5] = (0, 0, 0, 255)  # the ring that plane.js draws
        board = np.full((max(len(pixels), len(background)), pixels.shape[1], 4), 255, np.uint8)
        top = (len(board) - len(pixels)) // 2
        board[top : top + len(pixels), :, : pixels.shape[2]] = pixels
        padding = ((0, len(board) - len(background)), (0, 0), (0, 0))
        return np.concatenate([board, np.pad(background, padding, constant_values=255)], axis=1)


def _slider(low, high, value, name):
    # A slider rounds values to its step, so the step must be fine.
    return ipywidgets.FloatSlider(
        value=np.clip(value, low, high),
        min=low,
        max=high,
        step=(high - low) / 1000,
        description=name,
        readout_format=".2f",
        style={"description_width": "110px"},
        layout={"width": "330px"},
    )


def _plane(low, high, names, codes, dims, prior):
    """(canvas, Axes) of the plane of two latents, with codes (n, latent_dim) as points and the prior's ring."""
    figure = Figure(figsize=(3.8, 3.5), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_subplot(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=names[0], ylabel=names[1])
    if codes is not None:
        ax.scatter(*codes[:, dims].T, s=12, color=CATEGORIES[0], alpha=0.5, linewidths=0)
    if prior:
        outline_prior(ax, *(values[dims] for values in prior))
    ax.set_title("Codes of images" if codes is not None else "The plane of two latents", size=10)
    canvas.draw()
    return canvas, ax


def _enlarged(image):
    """An image (height, width), (height, width, 1 or 3) as uint8 (., ., 3), each pixel enlarged to a square."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"Examples of shape {image.shape} can't be shown as images; expected (height, width), (height, width, 1) "
            "or (height, width, 3)."
        )
    pixels = (255 * np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 1)).round().astype("uint8")
    times = -(-_PIXELS // max(image.shape[:2]))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _png(pixels):
    file = io.BytesIO()
    matplotlib.image.imsave(file, pixels, format="png")
    return file.getvalue()
