"""Progress bars for terminals and notebooks."""

import datetime
import sys
import time

import keras

WIDTH = 20
PAUSE = 0.2  # seconds between two updates of a notebook's display


def bar(target: int | None, unit: str, shows: bool | int | str | None = None):
    """Keras' progress bar on stdout, or in a notebook one updated line with the same end in every run.

    Args:
        target: the final number, or None if it isn't known.
        unit: the name of the things counted.
        shows: whether the bar is shown. None or "auto" shows it in terminals and notebooks.

    Returns:
        An object with a method update(number, finalize=False).
    """
    notebook = in_notebook()
    shows = (notebook or sys.stdout.isatty()) if shows in (None, "auto") else shows
    if shows and notebook:
        return _Line(target, unit)
    return keras.utils.Progbar(target, unit_name=unit, verbose=1 if shows else 0)


def in_notebook() -> bool:
    """Whether this is a notebook, with displays to update."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _Line:
    """A bar in one display. Its last state has no times, so tests of a notebook's output can compare it."""

    def __init__(self, target, unit):
        self.target, self.unit = target, unit
        self.start, self.next, self.display = time.monotonic(), 0, None

    def update(self, number, finalize=False):
        now = time.monotonic()
        if now < self.next and not finalize:
            return
        from IPython.display import Pretty, display  # installed with notebooks only

        line = Pretty(self._text(number, None if finalize else now - self.start))
        if self.display is None:
            self.display = display(line, display_id=True)
        else:
            self.display.update(line)
        self.next = now + PAUSE

    def _text(self, number, seconds):
        if not self.target:
            return f"{self.unit} {number}"
        filled = min(WIDTH, WIDTH * number // self.target)
        text = f"{self.unit} {number}/{self.target} {'━' * filled}{'┄' * (WIDTH - filled)}"
        if seconds is None or not number:
            return text
        return f"{text} {datetime.timedelta(seconds=round(seconds * (self.target - number) / number))} left"
