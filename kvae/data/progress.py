"""How far something is, said where someone sees it."""

import datetime
import sys
import time

import keras

WIDTH = 20
PAUSE = 0.2  # seconds between what a notebook is sent


def bar(target, unit, shows=None):
    """Keras' progress bar, on stdout; in a notebook a line in place, whose end is the same in each run.

    target: how many there will be, None where that isn't known. unit: what is counted. shows: None or "auto" for a
    terminal and a notebook alone.
    """
    notebook = in_notebook()
    shows = (notebook or sys.stdout.isatty()) if shows in (None, "auto") else shows
    if shows and notebook:
        return _Line(target, unit)
    return keras.utils.Progbar(target, unit_name=unit, verbose=1 if shows else 0)


def in_notebook():
    """Whether what is displayed can be seen and replaced."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class _Line:
    """What Keras' bar says, of which tests of a notebook's output see the end alone, and no times in it."""

    def __init__(self, target, unit):
        self.target, self.unit = target, unit
        self.start, self.next, self.place = time.monotonic(), 0, None

    def update(self, number, finalize=False):
        now = time.monotonic()
        if now < self.next and not finalize:
            return
        from IPython.display import Pretty, display  # which only notebooks have

        line = Pretty(self._said(number, None if finalize else now - self.start))
        if self.place is None:
            self.place = display(line, display_id=True)
        else:
            self.place.update(line)
        self.next = now + PAUSE

    def _said(self, number, seconds):
        if not self.target:
            return f"{self.unit} {number}"
        drawn = min(WIDTH, WIDTH * number // self.target)
        said = f"{self.unit} {number}/{self.target} {'━' * drawn}{'┄' * (WIDTH - drawn)}"
        if seconds is None or not number:
            return said
        return f"{said} {datetime.timedelta(seconds=round(seconds * (self.target - number) / number))} left"
