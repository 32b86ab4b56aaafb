"""Training curves, reconstructions and samples during `fit`, in a notebook."""

import io
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvae import plots
from kvae.arguments import integer_at_least
from kvae.data.progress import in_notebook
from kvae.plots.codes import first_examples


class Live(keras.callbacks.Callback):
    """During `fit` in a notebook, redraw one picture: training curves, reconstructions and samples.

    `kvae.plots.history` draws the curves. Reconstructions are means of the same images, and samples come from
    the same z each time. Neither affects the training or its speed in steps per call. The picture stands above Keras'
    progress bar. Outside a notebook the callback does nothing.

    Args:
        data: a stream or an array of images, preferably of the validation set. The first `count` are kept.
        every: epochs between two pictures. The last epoch always has one.
        count: number of reconstructed images.

    Raises:
        ValueError: for numbers below 1 and an empty stream. `fit` raises it before its first step for examples that
            aren't images.

    Example:
        >>> live = Live(np.random.default_rng(0).random((20, 8, 8)), every=5)  # for fit(..., callbacks=[live])
        >>> live.images.shape
        (8, 8, 8)
    """

    def __init__(self, data: Any, every: int = 1, count: int = 8):
        super().__init__()
        self.every = integer_at_least("every", every, 1)
        self.images, _ = first_examples(data, integer_at_least("count", count, 1))

    def on_train_begin(self, logs=None):
        self._history = SimpleNamespace(history={}, epoch=[])
        self._shown, self._drawn = None, None
        if in_notebook():
            self._draw()

    def on_epoch_end(self, epoch, logs=None):
        self._history.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self._history.history.setdefault(name, []).append(value)
        if in_notebook() and (epoch + 1) % self.every == 0:
            self._draw()

    def on_train_end(self, logs=None):
        if in_notebook() and self._drawn != self._history.epoch[-1:]:
            self._draw()

    def _draw(self):
        from IPython.display import Image, display  # a package of notebooks

        file = io.BytesIO()
        picture(self.model, self.images, self._history).savefig(file, format="png")
        image = Image(file.getvalue())
        if self._shown is None:
            self._shown = display(image, display_id=True)
        else:
            self._shown.update(image)
        self._drawn = self._history.epoch[-1:]


def picture(model: Any, images: np.ndarray, history: Any) -> Figure:
    """A new Figure, unknown to pyplot: curves, reconstructions of `images`, and samples if the model has a prior.

    history: an object with `epoch` and `history`, as `fit` returns it. Before the first epoch they are empty.
    """
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    generative = hasattr(model, "sample")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 2], width_ratios=[1, 0.8])
    plots.reconstructions(model, images, len(images), ax=figure.add_subplot(grid[0, :]))
    if generative:
        plots.samples(model, 25, ax=figure.add_subplot(grid[1, 1])).set_title("Samples (means)")
    curves = figure.add_subplot(grid[1, 0] if generative else grid[1, :])
    if history.epoch:
        plots.history(history, ax=curves)
        curves.set_title(f"Epoch {history.epoch[-1] + 1}")
        for panel in filter(Axes.get_legend, figure.axes):
            panel.legend(frameon=False, fontsize="small")
    else:
        curves.set_axis_off()
        curves.text(0.5, 0.5, "before the first epoch", ha="center", va="center")
    return figure
