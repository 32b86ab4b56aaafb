import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kvae import plots

VALUES = [[0.0, 0.5, 2.0], [1.004, 0.25, 1.9]]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_cell_has_its_value_and_its_colour():
    figure, ax = plt.subplots()
    assert plots.matrix(VALUES, ["one", "two"], ["a", "b", "c"], label="nats", ax=ax) is ax
    (picture,) = ax.images
    np.testing.assert_array_equal(picture.get_array(), VALUES)
    assert picture.get_clim() == (0, 2)
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "0", (1, 0): "0.5", (2, 0): "2", (0, 1): "1", (1, 1): "0.25", (2, 1): "1.9"
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert figure.axes[1].get_ylabel() == "nats"


def test_every_text_can_be_read_on_its_cell():
    ax = plots.matrix(np.linspace(0, 1, 21)[None], ["row"], [str(i) for i in range(21)])
    (picture,) = ax.images
    for text in ax.texts:
        below = luminance(picture.to_rgba(picture.get_array()[text.get_position()[::-1]]))
        above = luminance(matplotlib.colors.to_rgba(text.get_color()))
        low, high = sorted((below, above))
        assert (high + 0.05) / (low + 0.05) > 3, text  # the contrast that WCAG asks of large text


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_cells_of_zero_alone_are_dark():
    assert plots.matrix(np.zeros((1, 2)), ["row"], ["a", "b"]).images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 2)), r"shape \(2, 2\); expected \(2, 3\)"),
        (np.full((2, 3), np.nan), "finite"),
        (-np.ones((2, 3)), "-1"),
    ],
)
def test_errors_say_what_came(values, message):
    with pytest.raises(ValueError, match=message):
        plots.matrix(values, ["one", "two"], ["a", "b", "c"])
