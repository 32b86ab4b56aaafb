"""The notebooks' drawings. Blue is the model of where x comes from, orange what stands in for the posterior."""

import matplotlib.colors
import matplotlib.patches
from matplotlib.axes import Axes

from kvae.plots.canvas import CATEGORIES, axes

BLUE, ORANGE = (matplotlib.colors.to_hex(color) for color in CATEGORIES[:2])
GREY, INK = "0.55", "0.15"


def autoencoder(ax: Axes | None = None) -> Axes:
    """Draw in `ax` an image, its code, and the image that comes back; the loss compares the two."""
    ax = _canvas(ax, 10, 3.2)
    _node(ax, 1, 1.9, "$x$\nimage")
    _network(ax, 3.1, 1.9, "encoder", ORANGE, narrows=True)
    _node(ax, 5, 1.9, "$z$\ncode")
    _network(ax, 6.9, 1.9, "decoder", BLUE)
    _node(ax, 9, 1.9, "$\\hat x$\nreconstruction")
    for start, stop in (1.6, 2.3), (3.9, 4.4), (5.6, 6.1), (7.7, 8.0):
        _arrow(ax, (start, 1.9), (stop, 1.9))
    ax.plot([1, 1, 9, 9], [1.2, 0.6, 0.6, 1.2], color=GREY, ls="--", lw=1.5)
    ax.text(5, 0.6, "loss: $\\|x - \\hat x\\|^2$", ha="center", va="center", color=INK, bbox=_PAPER)
    return ax


def generation(ax: Axes | None = None) -> Axes:
    """Draw in `ax` the story of the data: a hidden z from the prior, an image from the decoder's distribution."""
    ax = _canvas(ax, 10, 3.2)
    ax.text(0.9, 1.9, "prior\n$p(z)$", ha="center", va="center", color=BLUE)
    _node(ax, 2.7, 1.9, "$z$", ls="--")
    _network(ax, 4.7, 1.9, "decoder\n$\\theta$", BLUE)
    ax.text(6.8, 1.9, "$p_\\theta(x|z)$", ha="center", va="center", color=BLUE)
    _node(ax, 9, 1.9, "$x$")
    for start, stop in (1.5, 2.1), (3.3, 3.9), (5.5, 6.1), (7.6, 8.4):
        _arrow(ax, (start, 1.9), (stop, 1.9))
    for x, text in (2.7, "hidden: orientation,\ncolor, size, ..."), (9, "seen:\nan image"):
        ax.text(x, 0.6, text, ha="center", va="center", color=GREY)
    for x in 1.8, 8.0:
        ax.text(x, 2.2, "draw", ha="center", color=GREY, fontsize=8)
    return ax


def bound(ax: Axes | None = None) -> Axes:
    """Draw in `ax` how log p(x) splits: three terms of two signs, as lengths of bars."""
    ax = _canvas(ax, 12, 3.4)
    elbo, log_p, reconstruction = 7.0, 8.3, 11.0
    _bar(ax, 2.7, 2.4, reconstruction, "$E_q[\\log p(x|z)]$: how well $z$ explains $x$", BLUE)
    _bar(ax, 1.7, 2.4, elbo, "ELBO", ORANGE)
    _bar(ax, 1.7, elbo, reconstruction, "$KL(q(z|x)\\;\\|\\;p(z))$", "0.85")
    _bar(ax, 0.7, 2.4, elbo, "the same ELBO", ORANGE)
    _bar(ax, 0.7, elbo, log_p, "gap", "0.7")
    ax.text(log_p + 0.15, 0.7, "$KL(q(z|x)\\;\\|\\;p(z|x)) \\geq 0$", va="center", color=INK)
    for y, text in (2.7, "reconstruction"), (1.7, "minus the KL"), (0.7, "$\\log p(x)$"):
        ax.text(2.2, y, text, ha="right", va="center", color=INK)
    ax.plot([elbo, elbo], [0.1, 2.35], color=INK, ls=":", lw=1.2)
    return ax


def vae(ax: Axes | None = None) -> Axes:
    """Draw in `ax` both networks of a VAE: each gives a mean and a variance, and z and x are drawn with them."""
    ax = _canvas(ax, 12, 3.6)
    _node(ax, 0.8, 1.9, "$x$")
    _network(ax, 2.5, 1.9, "encoder\n$\\phi$", ORANGE, narrows=True)
    _network(ax, 7.7, 1.9, "decoder\n$\\theta$", BLUE)
    _node(ax, 6, 1.9, "$z$")
    _node(ax, 11.2, 1.9, "$x$", ls="--")
    for x, given, color in (4.2, "z|x", ORANGE), (9.4, "x|z", BLUE):
        for y, symbol in (2.7, f"$\\mu_{{{given}}}$"), (1.1, f"$\\Sigma_{{{given}}}$"):
            _node(ax, x, y, symbol, color=color)
            _arrow(ax, (x - 0.9, 1.9 + 0.35 * (y - 1.9)), (x - 0.55, y))
            _arrow(ax, (x + 0.55, y), (x + 1.25, 1.9 + 0.3 * (y - 1.9)))
    _arrow(ax, (1.35, 1.9), (1.7, 1.9))
    _arrow(ax, (6.55, 1.9), (6.9, 1.9))
    for x, text in (
        (5.1, "$q_\\phi(z|x) = N(\\mu_{z|x}, \\Sigma_{z|x})$"),
        (9.9, "$p_\\theta(x|z) = N(\\mu_{x|z}, \\Sigma_{x|z})$"),
    ):
        ax.text(x, 0.25, text, ha="center", color=INK, fontsize=9)
    return ax


def trick(ax: Axes | None = None) -> Axes:
    """Draw in `ax` the way of a gradient, blocked by a draw, and open where the noise comes from beside."""
    ax = _canvas(ax, 12, 3.6)
    for left, title in (0.0, "a draw in the way"), (6.2, "the trick: the noise comes from beside"):
        ax.text(left + 2.8, 3.3, title, ha="center", color=INK)
        for y, symbol in (2.4, "$\\mu$"), (1.0, "$\\sigma$"):
            _node(ax, left + 0.7, y, symbol, color=ORANGE)
            _arrow(ax, (left + 1.25, y), (left + 2.15, 1.7 + 0.25 * (y - 1.7)))
        _arrow(ax, (left + 3.35, 1.7), (left + 4.35, 1.7))
        _node(ax, left + 4.95, 1.7, "$f(z)$", color=BLUE)
        back = (left + 4.4, 1.25), (left + 3.3, 1.25)
        _arrow(ax, *back, color=ORANGE, ls="--")
    _node(ax, 2.75, 1.7, "$z \\sim$\n$N(\\mu, \\sigma^2)$", ls="--")
    ax.text(3.6, 0.75, "no way back", color=INK, ha="center", fontsize=9)
    ax.plot(1.55, 1.7, "x", color="crimson", ms=14, mew=3)
    _node(ax, 8.95, 1.7, "$\\mu + \\sigma\\varepsilon$")
    _node(ax, 8.95, 0.35, "$\\varepsilon \\sim N(0, 1)$", ls="--")
    _arrow(ax, (8.95, 0.7), (8.95, 1.3))
    for y in 2.4, 1.0:
        _arrow(ax, (8.3, 1.95 + 0.35 * (y - 1.7)), (7.5, y + 0.18), color=ORANGE, ls="--")
    ax.text(11.0, 0.75, "dashed: the gradient", color=INK, ha="center", fontsize=9)
    return ax


_PAPER = {"fc": "white", "ec": "none", "pad": 3}


def _canvas(ax, width, height):
    ax = axes(ax, 0.7 * width, 0.7 * height)
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return ax


def _node(ax, x, y, text, color="white", ls="-"):
    style = {"boxstyle": "round,pad=0.5", "fc": color, "ec": INK, "ls": ls, "lw": 1.5}
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=11, bbox=style)


def _network(ax, x, y, text, color, narrows=False):
    left, right = (0.9, 0.45) if narrows else (0.45, 0.9)
    corners = [(x - 0.75, y - left), (x - 0.75, y + left), (x + 0.75, y + right), (x + 0.75, y - right)]
    ax.add_patch(matplotlib.patches.Polygon(corners, fc=color, ec=INK, lw=1.5))
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=9)


def _arrow(ax, start, stop, color=INK, ls="-"):
    ax.annotate("", stop, start, arrowprops={"arrowstyle": "-|>", "color": color, "ls": ls, "lw": 1.5, "shrinkA": 0})


def _bar(ax, y, left, right, text, color, height=0.6):
    ax.add_patch(matplotlib.patches.Rectangle((left, y - height / 2), right - left, height, fc=color, ec=INK))
    ax.text((left + right) / 2, y, text, ha="center", va="center", color=INK)
