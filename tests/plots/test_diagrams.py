"""Each drawing has the theory's words in it, inside its frame."""

import matplotlib.pyplot as plt
import pytest

from kvae.plots import diagrams

WORDS = {
    "autoencoder": ["encoder", "decoder", "code", "loss"],
    "generation": ["prior", "theta", "hidden", "seen"],
    "bound": ["ELBO", "KL(q(z|x)\\;\\|\\;p(z))", "geq 0", "log p(x)"],
    "vae": ["phi", "theta", "mu_{z|x}", "Sigma_{z|x}", "mu_{x|z}", "Sigma_{x|z}"],
    "trick": ["varepsilon", "gradient", "mu + ", "no way back"],
}


@pytest.mark.parametrize("name", WORDS)
def test_it_says_what_it_shows(name):
    ax = getattr(diagrams, name)()
    text = " ".join(each.get_text() for each in ax.texts)
    assert all(word in text for word in WORDS[name])
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent().padded(8)
    for each in ax.texts:
        box = each.get_window_extent()
        assert box.width == 0 or (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0), each
    plt.close(ax.figure)


def test_it_draws_into_given_axes():
    ax = plt.subplots()[1]
    assert diagrams.vae(ax) is ax
    plt.close(ax.figure)
