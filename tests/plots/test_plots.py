import matplotlib

matplotlib.use("Agg")

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from small_models import dense_vae

import kvae
from kvae import plots

SHAPE = (6, 4, 1)
LATENTS = 3


def make_vae(latent_dim=LATENTS, shape=SHAPE):
    nets = kvae.networks
    encoder, decoder = nets.dense_encoder(shape, latent_dim, (16,)), nets.dense_decoder(shape, latent_dim, (16,))
    return kvae.VAE(encoder, decoder, seed=1)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(5).integers(0, 256, (40, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def vae():
    """Its latents' KL is that of the variances exp(-1), exp(-5), exp(-3), more or less: used most are 1, 2, 0."""
    keras.utils.set_random_seed(2)
    model = make_vae()
    model.encoder.get_layer("z_log_var").bias.assign([-1.0, -5.0, -3.0])
    return model


@pytest.fixture(scope="module")
def autoencoder():
    keras.utils.set_random_seed(3)
    nets = kvae.networks
    return kvae.Autoencoder(nets.dense_encoder(SHAPE, 2, (16,)), nets.dense_decoder(SHAPE, 2, (16,)))


@pytest.fixture(scope="module")
def pca(x):
    return kvae.PCA(2, seed=1).fit(x, verbose=0)


@pytest.fixture(autouse=True)
def nothing_global(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot was shown"))
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def tiles(ax, columns, gap=1, shape=SHAPE):
    """The images that the one picture in ax is made of, (rows, columns, height, width[, 4])."""
    (picture,) = ax.images
    board = np.ma.filled(picture.get_array(), np.nan)
    height, width = shape[0] + 2 * gap, shape[1] + 2 * gap
    board = board.reshape(len(board) // height, height, columns, width, *board.shape[2:]).swapaxes(1, 2)
    return board[:, :, gap : height - gap, gap : width - gap]


def texts(labels):
    return [label.get_text() for label in labels]


# Reconstructions


def streams(x):
    y = np.arange(len(x))
    dataset = tf.data.Dataset.from_tensor_slices
    return {
        "uint8": x,
        "float": x / np.float32(255),
        "pair": (x, y),
        "stream": dataset(x).batch(3),
        "stream of pairs": dataset((x, y)).batch(16),
        "tfds": dataset({"image": x, "label": y}).batch(3),
        "endless": dataset(x).batch(3).repeat(),
    }


@pytest.mark.parametrize("kind", ["uint8", "float", "pair", "stream", "stream of pairs", "tfds", "endless"])
def test_reconstructions_are_the_models_for_every_kind_of_x(kind, vae, x):
    ax = plots.reconstructions(vae, streams(x)[kind], count=5)
    shown = tiles(ax, 5)
    np.testing.assert_allclose(shown[0], x[:5, ..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(shown[1], vae.reconstruct(x[:5])[..., 0], atol=1e-6)
    assert len(shown) == 2 and "means" in ax.get_title()


def test_reconstructions_of_several_models_are_a_named_row_each(vae, autoencoder, pca, x):
    models = {"PCA": pca, "autoencoder": autoencoder, "VAE": vae}
    ax = plots.reconstructions(models, x, count=4)
    assert texts(ax.get_yticklabels()) == ["original", *models]
    for row, model in zip(tiles(ax, 4)[1:], models.values(), strict=True):
        np.testing.assert_allclose(row, model.reconstruct(x[:4])[..., 0], atol=1e-6)


def test_grey_images_have_fixed_limits(vae, x):
    picture = plots.reconstructions(vae, x).images[0]
    assert picture.get_cmap().name == "gray" and picture.get_clim() == (0, 1)


def test_colours_are_clipped_and_gaps_are_transparent(caplog):
    shape = (4, 4, 3)
    model, colours = make_vae(2, shape), np.full((2, *shape), 1.5, np.float32)
    ax = plots.reconstructions(model, colours, count=2)
    shown = tiles(ax, 2, shape=shape)
    assert (shown[0] == 1).all() and shown.shape[-1] == 4
    assert not caplog.records, "matplotlib logs a warning where it has to clip"
    np.testing.assert_allclose(shown[1, ..., :3], np.clip(model.reconstruct(colours), 0, 1), atol=1e-6)
    assert (ax.images[0].get_array()[0] == 0).all()


class Recorder:
    """An array that remembers how far it was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        self.read = max(self.read, key.stop)
        return self.array[key]


def test_no_more_is_read_than_is_drawn(vae, x):
    array = Recorder(np.tile(x, (20, 1, 1, 1)))
    plots.reconstructions(vae, array, count=5)
    assert array.read == 5
    plots.traversals(vae, array)
    assert array.read == 512 < len(array.array)


def test_fewer_images_than_asked_for_are_all_drawn(vae, x):
    assert tiles(plots.reconstructions(vae, x[:3], count=8), 3).shape[:2] == (2, 3)


# Samples


def test_samples_are_the_models_and_repeat(vae):
    first, second = plots.samples(vae, 5, seed=3), plots.samples(vae, 5, seed=3)
    shown = tiles(first, 3)
    np.testing.assert_allclose(shown.reshape(-1, *SHAPE[:2])[:5], vae.sample(5, seed=3)[..., 0], atol=1e-6)
    assert np.isnan(shown[1, 2]).all(), "the sixth place is empty"
    np.testing.assert_array_equal(tiles(second, 3), shown)
    assert "mean of p(x|z)" in first.get_title()


def test_samples_with_noise_say_so(vae):
    ax = plots.samples(vae, 4, seed=3, noise=True)
    np.testing.assert_allclose(tiles(ax, 2).reshape(-1, *SHAPE[:2]), vae.sample(4, noise=True, seed=3)[..., 0])
    assert "x ~ p(x|z)" in ax.get_title() and "mean" not in ax.get_title()


# Traversals


def test_traversals_put_the_latent_used_most_first(vae, x):
    ax = plots.traversals(vae, x, index=7, steps=5)
    shown, code = tiles(ax, 5), vae.transform(x)[7]
    z_mean, z_log_var = (np.array(output) for output in vae.encoder(x / np.float32(255)))
    kl = 0.5 * (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var).mean(axis=0)
    assert texts(ax.get_yticklabels()) == [f"z{i}   KL {kl[i]:.2f} nats" for i in (1, 2, 0)]
    assert texts(ax.get_xticklabels()) == ["−3", "−1.5", "0", "1.5", "3"]
    assert "of the prior" in ax.get_xlabel() and "means" in ax.get_title()
    for row, latent in enumerate((1, 2, 0)):
        moved = np.tile(code, (5, 1))
        moved[:, latent] = np.linspace(-3, 3, 5)
        np.testing.assert_allclose(shown[row], vae.inverse_transform(moved)[..., 0], atol=1e-6)
        assert ax.patches[row].get_x() + 0.5 == np.abs(moved[:, latent] - code[latent]).argmin()


def test_traversals_draw_the_latents_that_have_names(vae, x):
    ax = plots.traversals(vae, x, names={2: "hue", 0: "x"}, steps=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["hue", "x"]
    expected = plots.traversals(vae, x, steps=3)  # the order is 1, 2, 0
    rows = np.split(np.asarray(expected.images[0].get_array()), 3)
    np.testing.assert_allclose(ax.images[0].get_array(), np.concatenate([rows[1], rows[2]]), atol=1e-6)


def test_an_overview_has_two_kinds_of_samples_beside_what_the_models_reconstruct(vae, x):
    images = x / np.float32(255)
    figure = plots.overview({"VAE": vae}, x, {"data": images[:30], "more": images}, names={1: "y"})
    reconstructed, moved, left, right = figure.axes
    assert [label.get_text() for label in reconstructed.get_yticklabels()] == ["original", "VAE"]
    assert [label.get_text() for label in moved.get_yticklabels()] == ["y"]
    assert (left.get_title(), right.get_title()) == ("data", "more")
    np.testing.assert_array_equal(left.images[0].get_array(), right.images[0].get_array())  # 24 images of both


@pytest.mark.parametrize("kind", ["pca", "autoencoder"])
def test_traversals_without_a_prior_go_by_the_spread_of_the_codes(kind, request, x):
    model = request.getfixturevalue(kind)
    ax = plots.traversals(model, x, span=2, steps=3, count=1)
    codes = model.transform(x)
    latent = codes.std(axis=0).argmax()
    moved = np.tile(codes[0], (3, 1))
    moved[:, latent] = codes.mean(axis=0)[latent] + codes.std(axis=0)[latent] * np.array([-2, 0, 2])
    np.testing.assert_allclose(tiles(ax, 3)[0], model.inverse_transform(moved)[..., 0], atol=1e-5)
    assert texts(ax.get_yticklabels())[0].startswith(f"z{latent}   " + ("KL" if kind == "pca" else "sd"))
    assert "of the codes" in ax.get_xlabel() and "used most, of 2" in ax.get_title()


def test_plots_leave_the_models_seeds_as_they_were(vae, x):
    before = [state.numpy() for state in vae._seed_states()]
    plots.traversals(vae, x)
    plots.latents(vae, x)
    plots.samples(vae, 4)
    after = [state.numpy() for state in vae._seed_states()]
    assert before and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# The plane


def test_the_middle_of_the_manifold_is_the_decoded_zero():
    model = make_vae(2)
    ax = plots.manifold(model, size=5)
    shown, edge = tiles(ax, 5, gap=0), 1.2815516  # the normal's 90 % quantile
    decoded = model.inverse_transform(np.float32([[0, 0], [edge, edge], [-edge, edge]]))[..., 0]
    np.testing.assert_allclose(shown[2, 2], decoded[0], atol=1e-6)
    np.testing.assert_allclose(shown[0, 4], decoded[1], atol=1e-6, err_msg="z0 grows to the right, z1 upwards")
    np.testing.assert_allclose(shown[0, 0], decoded[2], atol=1e-6)
    ticks = dict(zip(ax.get_yticks(), texts(ax.get_yticklabels()), strict=True))
    assert ticks[2] == "0" and [*ticks.values()] == ["−1.2", "−0.6", "0", "0.6", "1.2"]
    assert max(ticks) < 4 and min(ticks) > 0, "the outermost rows are of the quantiles 10 and 90 %, 1.28"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z0", "z1") and "prior" in ax.get_title()


@pytest.mark.parametrize("kind", ["pca", "autoencoder"])
def test_a_manifold_without_a_prior_goes_by_the_codes(kind, request, x):
    model = request.getfixturevalue(kind)
    ax = plots.manifold(model, x, size=3)
    median = np.median(model.transform(x), axis=0, keepdims=True)
    np.testing.assert_allclose(tiles(ax, 3, gap=0)[1, 1], model.inverse_transform(median)[0, ..., 0], atol=1e-5)
    assert "codes" in ax.get_title().splitlines()[1]
    with pytest.raises(ValueError, match="no prior: give x"):
        plots.manifold(model)


# Codes as points


def points(ax):
    return [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]


def test_categories_have_a_colour_and_a_name(vae, x):
    y = np.arange(len(x)) % 3
    ax = plots.latents(vae, tf.data.Dataset.from_tensor_slices((x, y)).batch(7), dims=(2, 0), names=["a", "b", "c"])
    codes = vae.transform(x)[:, [2, 0]]
    (drawn,) = points(ax)
    np.testing.assert_allclose(drawn.get_offsets(), codes, atol=1e-6)
    drawn.update_scalarmappable()
    legend = ax.get_legend()
    colours = [to_rgba(handle.get_markerfacecolor()) for handle in legend.legend_handles]
    assert len(set(colours)) == 3 and texts(legend.get_texts()) == ["a", "b", "c"]
    np.testing.assert_allclose(drawn.get_facecolor(), np.array(colours)[y])
    assert ax.get_xlabel().startswith("z2 ") and ax.get_ylabel().startswith("z0 ") and "means" in ax.get_title()


def test_the_two_latents_used_most_are_drawn(vae, x):
    ax = plots.latents(vae, x)
    np.testing.assert_allclose(points(ax)[0].get_offsets(), vae.transform(x)[:, [1, 2]], atol=1e-6)
    assert ax.get_legend() is None


def test_the_prior_is_drawn_for_a_vae_alone(vae, autoencoder, pca, x):
    (outline,) = plots.latents(vae, x).patches
    assert outline.width == outline.height == pytest.approx(2 * np.sqrt(5.99146), rel=1e-4)  # chi^2's 95 % quantile
    assert not plots.latents(pca, x).patches and not plots.latents(autoencoder, x).patches


@pytest.mark.parametrize("period", [None, 1.0])
def test_a_continuous_factor_has_a_colour_bar(period, autoencoder, x):
    hue = np.linspace(0, 2, len(x), dtype=np.float32)
    stream = tf.data.Dataset.from_tensor_slices({"image": x, "hue": hue}).batch(7)
    ax = plots.latents(autoencoder, stream, "hue", count=30, period=period)
    (drawn,) = points(ax)
    np.testing.assert_allclose(drawn.get_offsets(), autoencoder.transform(x)[:30], atol=1e-6)
    np.testing.assert_allclose(drawn.get_array(), hue[:30] % 1 if period else hue[:30])
    assert drawn.get_clim() == (0, 1) if period else drawn.get_clim()[1] == hue[29]
    assert drawn.colorbar.ax.get_ylabel() == "hue"
    assert drawn.get_cmap().name == ("twilight_shifted" if period else "viridis")


def test_labels_may_be_an_array_and_many_integers_are_continuous(pca, x):
    ax = plots.latents(pca, x, np.arange(len(x)))
    np.testing.assert_array_equal(points(ax)[0].get_array(), np.arange(len(x)))
    assert points(ax)[0].colorbar and not ax.get_legend()


# Numbers


def vae_logs(epochs=4, validations=4):
    logs = {name: list(range(number, number + epochs)) for number, name in enumerate(plots.numbers._STYLES)}
    return logs | {f"val_{name}": [value + 0.5 for value in logs[name][:validations]] for name in logs}


def test_a_vaes_history_shows_the_loss_and_both_terms_in_nats():
    logs = vae_logs()
    ax = plots.history(logs)
    upper, lower = ax.figure.axes
    drawn = {line.get_label(): line for line in [*upper.lines, *lower.lines]}
    assert upper is ax and len(upper.lines) == 4 and len(lower.lines) == 2
    np.testing.assert_array_equal(drawn["loss, training"].get_xydata(), np.c_[1:5, logs["loss"]])
    np.testing.assert_array_equal(drawn["KL(q(z|x) ‖ p(z)), validation"].get_ydata(), logs["val_kl_loss"])
    assert upper.get_ylabel() == lower.get_ylabel() == "nats per image" and lower.get_xlabel() == "epoch"


def test_history_knows_the_epochs_numbers_and_validation_freq():
    history = keras.callbacks.History()
    history.history, history.epoch = vae_logs(4, 2), [10, 11, 12, 13]
    lines = {line.get_label(): line.get_xdata() for line in plots.history(history).lines}
    assert list(lines["loss, training"]) == [11, 12, 13, 14] and list(lines["loss, validation"]) == [12, 14]


def test_an_autoencoders_history_is_its_squared_error():
    ax = plots.history({"loss": [3.0, 2.0], "squared_error": [3.0, 2.0]})
    assert ax.get_ylabel() == "squared error per image" and ax.figure.axes == [ax] and len(ax.lines) == 1


def test_comparison_shows_means_changes_and_intervals():
    errors = {"PCA": np.array([1.0, 3.0]), "auto-encoder": {"squared_error": 1.0}, "VAE": 1.5}
    ax = plots.comparison(errors, latent_dim=10)
    assert [bar.get_width() for bar in ax.patches] == [2, 1, 1.5]
    assert texts(ax.get_yticklabels()) == list(errors)
    assert texts(ax.texts) == ["2.00", "1.00  (−50 % vs PCA)", "1.50  (−25 % vs PCA)"]
    (whiskers,) = ax.collections
    np.testing.assert_allclose(whiskers.get_segments()[0][:, 0], [2 - 1.96, 2 + 1.96])  # sd sqrt(2), of two
    assert "10 latents" in ax.get_title() and "squared error per image" in ax.get_xlabel()
    assert ax.yaxis_inverted(), "the first on top"


# Axes


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_every_plot_draws_in_the_axes_given_and_returns_them(style, vae, autoencoder, pca, x):
    y = np.arange(len(x)) % 3
    calls = [
        lambda ax: plots.reconstructions(vae, x, ax=ax),
        lambda ax: plots.samples(pca, 4, ax=ax),
        lambda ax: plots.traversals(autoencoder, x, ax=ax),
        lambda ax: plots.manifold(pca, x, size=3, ax=ax),
        lambda ax: plots.latents(vae, (x, y), ax=ax),
        lambda ax: plots.history(vae_logs(), ax=ax),
        lambda ax: plots.comparison({"PCA": 2.0}, ax=ax),
    ]
    with plt.style.context(style):
        figure, grid = plt.subplots(1, len(calls), figsize=(28, 4), layout="constrained")
        for call, ax in zip(calls, grid, strict=True):
            assert call(ax) is ax and ax.has_data() and ax.get_title()
        figure.canvas.draw()
        assert plt.get_fignums() == [figure.number]
        assert ax.texts[0].get_color() == plt.rcParams["text.color"]
        assert to_rgba(points(grid[4])[0].get_edgecolor()[0]) == to_rgba(plt.rcParams["axes.labelcolor"])


# Errors


def test_errors_say_what_came_and_what_to_do(vae, autoencoder, pca, x):
    flat = make_vae(2, (24,))
    stream = tf.data.Dataset.from_tensor_slices({"image": x, "hue": np.zeros(len(x))}).batch(7)
    for message, call in {
        "count is 0; expected an integer of at least 1": lambda: plots.reconstructions(vae, x, count=0),
        "count is 2.5; expected": lambda: plots.samples(vae, 2.5),
        "x is empty": lambda: plots.reconstructions(vae, x[:0]),
        "shape .24,. can't be drawn as images; expected .height, width": lambda: plots.samples(flat, 4),
        "Autoencoder has no prior to sample from; give a VAE or PCA": lambda: plots.samples(autoencoder),
        "span is -1; expected a positive": lambda: plots.traversals(vae, x, span=-1),
        "names are of the latents": lambda: plots.traversals(vae, x, names={3: "hue"}),
        "samples has 1 sources; expected 2": lambda: plots.overview({"VAE": vae}, x, {"data": x}),
        "steps is 1; expected": lambda: plots.traversals(vae, x, steps=1),
        "index is 40; expected 0 to 39": lambda: plots.traversals(vae, x, index=40),
        "latent_dim 3; a manifold is drawn for 2": lambda: plots.manifold(vae),
        "dims are .0, 3.; expected two of the 3": lambda: plots.latents(vae, x, dims=(0, 3)),
        "dims are .0.; expected two of the 1": lambda: plots.latents(make_vae(1), x),
        r"labels is 'size', which x doesn't have; its names are .'hue', 'image'": lambda: plots.latents(
            vae, stream, "size"
        ),
        "labels is an array and x a stream": lambda: plots.latents(vae, stream, np.zeros(len(x))),
        "labels have the shape .40, 2.; expected": lambda: plots.latents(vae, x, np.zeros((40, 2))),
        "names are .'a'.; expected one for each label": lambda: plots.latents(vae, x, np.arange(40) % 2, names=["a"]),
        "history is PCA without a loss; expected": lambda: plots.history(pca),
        "history is dict without a loss": lambda: plots.history({}),
        "errors is empty": lambda: plots.comparison({}),
        "errors.'VAE'. is .nan.; expected finite": lambda: plots.comparison({"VAE": np.nan}),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="ax was not made by"):
        plots.history(vae_logs(), ax=plt.figure().add_axes([0, 0, 1, 1]))


def test_codes_are_drawn_in_axes_that_share_theirs():
    model = dense_vae()
    model.build((None, 6))
    figure, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    for ax in axes:
        plots.latents(model, np.random.default_rng(0).random((20, 6), "float32"), ax=ax)
    figure.canvas.draw()
