import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from breadth import thorough
from keras.optimizers.schedules import PolynomialDecay
from small_models import dense_vae

import kvae
from kvae.schedules import CyclicalWarmUp, LinearWarmUp


@pytest.fixture
def x(rng):
    return rng.random((40, 6)).astype("float32")


class Stop(keras.callbacks.Callback):
    """Ends a run before its first step, hence before anything is traced."""

    def on_epoch_begin(self, epoch, logs=None):
        raise InterruptedError


def fitted(x, beta, **fit):
    model = dense_vae()
    model.compile(loss=kvae.ELBO(beta=beta), run_eagerly=True)
    model.fit(x, **{"batch_size": 10, "verbose": 0, **fit})
    return model


def begun(x, beta, **fit):
    """A run that is stopped before its first step."""
    with pytest.raises(InterruptedError):
        fitted(x, beta, callbacks=[Stop()], **fit)


def test_a_linear_warm_up_is_a_straight_line_and_then_flat():
    values = [float(LinearWarmUp(10, end=2.0)(tf.constant(step, "int64"))) for step in (0, 1, 5, 10, 1000)]
    assert values == pytest.approx([0.0, 0.2, 1.0, 2.0, 2.0])


def test_a_cyclical_warm_up_is_fus():
    """Fu et al. (2019), equations 6 and 7, written out."""
    total, cycles, ramp = 200, 4, 0.6
    schedule = CyclicalWarmUp(cycles, ramp, steps=total)
    tau = (np.arange(total) % (total // cycles)) / (total / cycles)
    expected = np.where(tau <= ramp, tau / ramp, 1.0)
    np.testing.assert_allclose([schedule(step) for step in range(total)], expected, atol=1e-5)
    assert float(schedule(total)) == float(schedule(10 * total)) == 1.0


def test_a_share_is_one_of_the_run_that_fit_starts(x):
    model = fitted(x, LinearWarmUp(share=0.5), epochs=5)  # 20 steps
    weights = [float(model.loss.beta(step)) for step in (0, 5, 10, 20)]
    assert weights == pytest.approx([0.0, 0.5, 1.0, 1.0])
    model.fit(x, batch_size=10, epochs=10, initial_epoch=5, verbose=0)  # the same run goes on: 40 in all
    assert float(model.loss.beta(10)) == pytest.approx(0.5)
    accumulating = dense_vae()
    accumulating.compile(
        keras.optimizers.Adam(gradient_accumulation_steps=2), loss=kvae.ELBO(beta=CyclicalWarmUp(cycles=1, ramp=1.0))
    )
    with pytest.raises(InterruptedError):
        accumulating.fit(x, batch_size=10, epochs=5, verbose=0, callbacks=[Stop()])
    assert float(accumulating.loss.beta(5)) == pytest.approx(0.5)


def test_the_weight_in_a_traced_step_follows_the_next_run(x):
    model = dense_vae()
    model.compile(keras.optimizers.SGD(0.0), kvae.ELBO(beta=LinearWarmUp(share=1.0)))
    numbers = model.fit(x, batch_size=40, epochs=4, verbose=0).history
    kl = np.array(numbers["kl_loss"])
    weights = (np.array(numbers["loss"]) - numbers["reconstruction_loss"]) / kl
    np.testing.assert_allclose(weights, [0, 0.25, 0.5, 0.75], atol=1e-3)
    numbers = model.fit(x, batch_size=40, epochs=4, verbose=0).history
    weights = (np.array(numbers["loss"]) - numbers["reconstruction_loss"]) / numbers["kl_loss"]
    np.testing.assert_allclose(weights, [0.5, 0.625, 0.75, 0.875], atol=1e-3)


@pytest.mark.parametrize("beta", [LinearWarmUp(100), PolynomialDecay(0.0, 100, end_learning_rate=1.0)])
def test_a_run_too_short_for_its_warm_up_is_warned_of_before_it_starts(x, beta):
    with pytest.warns(UserWarning, match=r"weight will be 0.2 when this run ends after step 20, not 1"):
        begun(x, beta, epochs=5)


def test_only_a_weight_below_one_makes_the_loss_no_bound(x):
    with pytest.warns(UserWarning, match=r"weight will be 0.2 .* not 1: the loss is then no bound of log p\(x\)"):
        begun(x, LinearWarmUp(100), epochs=5)
    with pytest.warns(UserWarning, match=r"weight will be 2 .* not 4\. Train longer"):
        begun(x, LinearWarmUp(40, end=4.0), epochs=5)


@pytest.mark.parametrize(
    "beta, said",
    [
        (LinearWarmUp(20), ""),
        thorough(CyclicalWarmUp(2), ""),
        thorough(0.5, ""),
        (LinearWarmUp(share=1.0, end=4.0), "The KL's weight will be 4 when this run ends after step 20."),
        (PolynomialDecay(0.0, 10, end_learning_rate=4.0), "weight will be 4 when this run ends after step 20."),
        (LinearWarmUp(10, end=0.1), "weight will be 0.1 when this run ends after step 20: the loss is then no bound"),
        (keras.optimizers.schedules.ExponentialDecay(2.0, 20, 0.25), "weight will be 0.5 when"),
    ],
)
def test_a_run_that_is_long_enough_is_told_of_a_weight_other_than_one(x, beta, said, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (begun if said else fitted)(x, beta, epochs=5, verbose=2)
        printed = capsys.readouterr().out
        assert said in printed and printed.count("The KL's weight") == bool(said)
        begun(x, beta, epochs=5)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "beta, said",
    [
        (LinearWarmUp(10_000), "weight will be 1 if this run, whose length isn't known, gets to step 10,000."),
        (PolynomialDecay(0.0, 500, 0.5), "weight will be 0.5 if this run, .*, gets to step 500: the loss is then no"),
        (0.5, ""),
    ],
)
def test_a_run_of_unknown_length_is_told_when_the_weight_is_reached(x, beta, said, capsys):
    stream = tf.data.Dataset.from_tensor_slices(x).batch(10).filter(lambda batch: True)
    (begun if said else fitted)(stream, beta, batch_size=None, verbose=2)
    printed = capsys.readouterr().out
    assert printed.count("The KL's weight") == bool(said) and re.match(f".*{said}", printed)
    begun(stream, beta, batch_size=None)
    assert capsys.readouterr().out == ""


def test_a_share_of_a_run_of_unknown_length_is_refused(x):
    model = dense_vae()
    model.compile(loss=kvae.ELBO(beta=LinearWarmUp(share=0.5)))
    stream = tf.data.Dataset.from_tensor_slices(x).batch(10).filter(lambda batch: True)
    with pytest.raises(ValueError, match="share of the run, whose length isn't known: give steps_per_epoch"):
        model.fit(stream, verbose=0)


@pytest.mark.parametrize("beta", [LinearWarmUp(share=0.25, end=2.0), thorough(CyclicalWarmUp(3, 0.4, steps=10))])
def test_a_loaded_model_evaluates_alike(x, tmp_path, beta):
    model = fitted(x, beta, epochs=3)
    model.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.evaluate(x, verbose=0) == model.evaluate(x, verbose=0)
    assert loaded.loss.beta.get_config() == beta.get_config()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LinearWarmUp(), "steps is None and share None; expected one of the two"),
        (lambda: LinearWarmUp(5, share=0.5), "steps is 5 and share 0.5; expected one of the two"),
        (lambda: LinearWarmUp(-5), "steps is -5; expected a number above 0"),
        (lambda: CyclicalWarmUp(0), "cycles is 0; expected an integer of at least 1"),
        (lambda: CyclicalWarmUp(ramp=0), r"ramp is 0; expected a share of a cycle in \(0, 1\]"),
    ],
)
def test_schedules_without_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
