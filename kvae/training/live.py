"""A run that can be watched."""

import io
from types import SimpleNamespace

import keras
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvae import plots
from kvae.data.progress import in_notebook
from kvae.plots.codes import check_count, first_examples


class Live(keras.callbacks.Callback):
    """Redraws in place, during `fit`: the training curves, reconstructions of the same images, and samples.

    The curves are the loss and the ELBO's two terms, as `kvae.plots.history` draws them. Reconstructions are means,
    and samples come from the same z each time, so that only the model moves; neither changes what is trained, nor how
    many steps go in one call. There is one picture a run, above Keras' own progress bar. Outside a notebook it does
    nothing.

    Args:
        data: a stream or an array of images, best of the validation set; the first `count` are kept.
        every: epochs from one picture to the next; the last epoch has one as well.
        count: images that are reconstructed.

    Raises:
        ValueError: for numbers below 1 and an empty stream; in `fit`, before its first step, for examples that aren't
            images.
    """

    def __init__(self, data, every=1, count=8):
        super().__init__()
        check_count("every", every)
        check_count("count", count)
        self.every = int(every)
        self.images, _ = first_examples(data, count)

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
        from IPython.display import Image, display  # which only notebooks have

        file = io.BytesIO()
        picture(self.model, self.images, self._history).savefig(file, format="png")
        image = Image(file.getvalue())
        if self._shown is None:
            self._shown = display(image, display_id=True)
        else:
            self._shown.update(image)
        self._drawn = self._history.epoch[-1:]


def picture(model, images, history):
    """A new Figure, which pyplot doesn't know of: curves, reconstructions of `images`, samples where there are any.

    history: an object with `epoch` and `history`, as `fit` returns; before the first epoch they are empty.
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
