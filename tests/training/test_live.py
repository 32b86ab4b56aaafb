import io
import types

import IPython
import IPython.display
import matplotlib.image
import numpy as np
import pytest
from small_models import dense_vae, same_weights, shared

import kvae


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: a list of the pictures at each of its places."""
    places = []

    class Place(list):
        def update(self, picture):
            self.append(picture)

    def display(picture, display_id):
        assert display_id is True
        places.append(Place([picture]))
        return places[-1]

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=None))
    return places


@pytest.fixture
def x(rng):
    return rng.random((60, 4, 4)).astype("float32")


def compiled():
    model = dense_vae((4, 4))
    model.compile()
    return model


@pytest.mark.thorough
def test_one_place_is_redrawn_and_the_run_is_what_it_was(x, shown):
    weights, steps = [], []
    for callbacks in [], [kvae.callbacks.Live(x[:20], every=2)]:
        model = shared("live", compiled)
        model.fit(x, validation_data=x[:20], epochs=5, batch_size=10, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
        steps.append(model.steps_per_execution)
    assert same_weights(*weights)
    assert steps[0] == steps[1] > 1
    (pictures,) = shown
    assert len(pictures) == 1 + 2 + 1  # before the first epoch, after 2 and 4, after the last
    before, *_, last = [matplotlib.image.imread(io.BytesIO(picture.data)) for picture in pictures]
    assert before.shape == last.shape and not np.array_equal(before, last)


def test_another_run_has_another_place(x, shown):
    live, model = kvae.callbacks.Live(x), shared("live", compiled)
    for epochs in 1, 2:
        model.fit(x, epochs=epochs, verbose=0, callbacks=[live])
    assert [len(pictures) for pictures in shown] == [2, 3]


def test_models_without_samples_are_drawn_too(x, shown):
    encoder, decoder = (make((4, 4), 2) for make in (kvae.networks.dense_encoder, kvae.networks.dense_decoder))
    model = kvae.Autoencoder(encoder, decoder)
    model.compile(run_eagerly=True)
    model.fit(x, epochs=1, verbose=0, callbacks=[kvae.callbacks.Live(x)])
    assert len(shown[0]) == 2


def test_what_cannot_be_drawn_is_said_before_the_first_step(rng, shown):
    rows, model = rng.random((20, 6)).astype("float32"), dense_vae()
    model.compile()
    with pytest.raises(ValueError, match="can't be drawn as images"):
        model.fit(rows, verbose=0, callbacks=[kvae.callbacks.Live(rows)])
    assert int(model.optimizer.iterations) == 0
    with pytest.raises(ValueError, match="every is 0"):
        kvae.callbacks.Live(rows, every=0)


def test_without_a_notebook_it_does_nothing(x, shown, monkeypatch):
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    shared("live", compiled).fit(x, verbose=0, callbacks=[kvae.callbacks.Live(x)])
    assert not shown
