# %% [markdown]
# # Which rows are odd?
#
# **After this notebook you can**
# - score the rows of a table by reconstruction error and by log p(x), and say what each of them misses;
# - set a threshold that raises the alarm for 1 % of good rows, and know how sure that is;
# - fill holes with their uncertainty, and find the cell that makes a row odd.
#
# **Time:** two minutes on two cores. **Data:** rows that we make here.

# %%
#| setup
import keras
import numpy as np

# %%
#| quick: EPOCHS = 3
EPOCHS = 60
networks = kvae.networks


def autoencoder(features, latents):
    options = {"hidden": (64, 64), "initializer": "glorot_uniform"}
    encoder = networks.dense_encoder((features,), latents, **options)
    return kvae.Autoencoder(encoder, networks.dense_decoder((features,), latents, **options))


def vae(features, latents):
    encoder = networks.dense_encoder((features,), latents, (64, 64), missing=True)
    decoder = networks.dense_decoder((features,), latents, (64, 64))
    likelihood = kvae.GaussianLikelihood("pixel", initial_variance=0.3)
    return kvae.VAE(encoder, decoder, likelihood, seed=0, missing=True)


def trained(model, x):
    model.compile(kvae.optimizers.Adam(2e-3))
    model.fit(x, epochs=EPOCHS, batch_size=64, verbose=0)
    return model


keras.utils.set_random_seed(0)

# %% [markdown]
# ## 1. Two columns
#
# The second column follows the first, up to some noise. An autoencoder with a code of one number learns the curve, and a VAE
# learns where on the curve the rows are, too. Both give a score for each row, high for good rows:
#
# $$ -\lVert x - \hat x(x) \rVert^2 \quad \text{and} \quad \log p(x) = \log \int p(x \mid z)\, p(z)\, dz. $$

# %%
rng = np.random.default_rng(0)
first = rng.normal(size=1_500)
pair = np.stack([first, 1.5 * np.tanh(first)], axis=1) + 0.2 * rng.normal(size=(1_500, 2))
pair = pair.astype("float32")
models = {"minus the squared error": trained(autoencoder(2, 1), pair), "log p(x)": trained(vae(2, 1), pair)}
axis = np.linspace(-5, 5, 61, dtype="float32")
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
maps = {name: model.score_samples(grid, 200).reshape(61, 61) for name, model in models.items()}

# %%
#| alt: Two maps over two columns. By the squared error all of the curve is good, far beyond the rows; by log p(x) only where rows are.
strange = np.array([[4.0, 1.5], [0.0, 1.8]], "float32")
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for ax, (name, values) in zip(axes, maps.items()):
    limit = np.quantile(models[name].score_samples(pair, 200), 0.01)
    ax.contourf(axis, axis, values, [limit, np.inf], colors=["C0"], alpha=0.25)
    ax.contour(axis, axis, values, [limit], colors=["C0"], linestyles="solid")
    ax.plot(*pair[:400].T, ".", color="0.5", ms=3)
    ax.plot(*strange[0], "X", color="C1", ms=10, label="too far")
    ax.plot(*strange[1], "P", color="C2", ms=10, label="off the curve")
    ax.set(title=f"{name}: the best 99 %", xlabel="first column")
axes[0].set_ylabel("second column")
axes[0].legend(loc="upper left");
#| check
errors, densities = (models[name].score_samples(pair, 200) for name in models)
if EPOCHS > 3:
    assert (models["log p(x)"].score_samples(strange, 200) < np.quantile(densities, 0.01)).all()
    seen = models["minus the squared error"].score_samples(strange) < np.quantile(errors, 0.01)
    assert seen.tolist() == [False, True]

# %% [markdown]
# In the blue region a row counts as good. Both see the row off the curve. The row that is too far along the curve is seen by
# log p(x) alone: the autoencoder reconstructs it well, because it keeps to the rule. It has never been there, and doesn't
# know that nobody has.
#
# ## 2. Twelve columns
#
# A larger table: machines with a size and a setting, which nobody has written down, and twelve readings that follow from
# them, with noise. We add three kinds of odd rows:
#
# - *contradiction*: three readings are another machine's;
# - *too large*: a size of five standard deviations, and all readings follow from it;
# - *too good*: readings without any noise, as if somebody had made the numbers up.
#
# Readings are missing, too: a row lacks each with a chance of its own, of up to six in ten. The VAE learns from the rows as they are. The autoencoder
# can't, so we let it see what is missing.

# %%
#| output
COLUMNS, NOISE = 12, 0.4
slopes, turns, shifts = rng.normal(size=COLUMNS), 2 * rng.normal(size=COLUMNS), rng.normal(size=COLUMNS)


def readings(size, setting, noise=NOISE):
    signal = np.outer(size, slopes) + 1.5 * np.tanh(np.outer(setting, turns) + shifts)
    return (signal + noise * rng.normal(size=signal.shape)).astype("float32")


def good(count):
    return readings(rng.normal(size=count), rng.normal(size=count))


def with_holes(rows, most):
    holes = rng.random(rows.shape) < rng.uniform(0, most, (len(rows), 1))
    return np.where(holes, np.nan, rows).astype("float32")


train, calibration, new = good(4_000), good(2_000), good(2_000)
mixed = good(200)
mixed[:, :3] = good(200)[:, :3]
odd = {"contradiction": mixed, "too large": readings(np.full(200, 5.0), rng.normal(size=200))}
odd["too good"] = readings(rng.normal(size=200), rng.normal(size=200), noise=0.0)
print(f"{len(train):,} rows of {COLUMNS} readings, and {len(mixed)} odd rows of each of {len(odd)} kinds")

# %%
#| alt: Histograms of both scores of good rows and of three kinds of odd ones. Too large rows are among the good ones by the squared error, too good rows are above them in both.
models = {"minus the squared error": trained(autoencoder(12, 2), train)}
models["log p(x)"] = trained(vae(12, 2), with_holes(train, 0.6))
scores = {
    name: {kind: model.score_samples(x, 200) for kind, x in {"good": new, **odd}.items()}
    for name, model in models.items()
}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
for ax, (name, found) in zip(axes, scores.items()):
    low, high = 2.5 * np.quantile(found["good"], 0.001), max(values.max() for values in found.values())
    for kind, values in found.items():
        style = {"color": "0.8"} if kind == "good" else {"histtype": "step", "lw": 2}
        ax.hist(np.clip(values, low, high), np.linspace(low, high, 35), density=True, label=kind, **style)
    ax.set(xlabel=name, yscale="log", yticks=[])
axes[0].set_ylabel("share of rows, logarithmic")
axes[0].legend(fontsize=8);

# %% [markdown]
# The good rows are grey. Rows below the left edge are drawn at it. How many of the odd rows are below 99 % of the good ones?

# %%
for name, found in scores.items():
    limit = np.quantile(found["good"], 0.01)
    print(f"{name:<24}", *(f"{kind}: {(found[kind] < limit).mean():4.0%}  " for kind in odd))
#| check
seen = {name: {k: (f[k] < np.quantile(f["good"], 0.01)).mean() for k in odd} for name, f in scores.items()}
if EPOCHS > 3:
    assert seen["log p(x)"]["too large"] > 0.95 > 0.8 > seen["minus the squared error"]["too large"], seen
    assert max(found["too good"] for found in seen.values()) < 0.02, seen
    assert min(found["contradiction"] for found in seen.values()) > 0.4, seen

# %% [markdown]
# Both see the contradictions that can be seen: three readings of another machine may happen to fit. Rows that are too large
# keep to the rule. log p(x) sees all of them, for no machine was so large; the autoencoder misses many, and sees the others
# only because it continues the rule badly.
#
# Neither sees a row that is too good: it has the highest scores of all. A good row has noise in twelve readings, and its
# log p(x) is near a typical value. A row may be odd by being *above* it. So look at both ends.
#
# ## 3. A threshold that keeps its word
#
# Where is the limit? We want to be called for one good row in a hundred. Rows of the training don't tell: the model has seen
# them, and scores them higher than new ones. So take rows that it hasn't seen, the *calibration* rows. Of $n$ of them and a
# new one each is equally likely to have the $k$-th lowest score. The limit that follows holds for any model, good or bad.

# %%
#| output
model = models["log p(x)"]
limit = kvae.evaluation.threshold(model.score_samples(calibration, 200), rate=0.01)
low, high = limit.interval(0.9)
print(f"on average {limit.expected_rate:.2%} of good rows, and in nine of ten cases between {low:.2%} and {high:.2%}")

# %%
#| alt: Histograms of the share of false alarms over many calibrations, around 1 %, beside the beta distribution's interval.
pool = model.score_samples(good(20_000), 200)
rates = []
for _ in range(1_000):
    pool = rng.permutation(pool)
    rates.append(kvae.evaluation.threshold(pool[:2_000], 0.01).is_odd(pool[2_000:]).mean())
ax = plt.subplots(figsize=(6, 3))[1]
ax.hist(rates, 40, color="C0", alpha=0.7)
ax.axvline(np.mean(rates), color="C1", label=f"mean: {np.mean(rates):.2%}")
ax.axvspan(low, high, color="0.5", alpha=0.2, label="nine of ten, by theory")
ax.set(xlabel="false alarms with a threshold of 2,000 rows", ylabel="calibrations", yticks=[])
ax.xaxis.set_major_formatter("{x:.2%}")
ax.legend();
#| check
assert 0.009 < np.mean(rates) < 0.011
assert 0.85 < np.mean((low <= np.array(rates)) & (np.array(rates) <= high)) < 0.95

# %% [markdown]
# The mean is 1 %, and a single calibration may be off by four tenths of it. With ten times the rows it would be a third of that.
#
# For both ends, take the smaller of two p-values: that of a score so low, and that of one so high. Twice the smaller one is
# a p-value again.

# %%
def two_sided(scores):
    above = kvae.evaluation.threshold(-limit.calibration, 0.01)
    return 2 * np.minimum(limit.p_values(scores), above.p_values(-scores))


for kind, values in scores["log p(x)"].items():
    low_end, both = (limit.p_values(values) <= 0.01).mean(), (two_sided(values) <= 0.01).mean()
    print(f"{kind:<15} alarm for {low_end:4.0%}, at both ends {both:4.0%}")
#| check
both = {kind: (two_sided(values) <= 0.01).mean() for kind, values in scores["log p(x)"].items()}
assert EPOCHS == 3 or (both["good"] < 0.02 and both["too good"] > 0.5 and both["too large"] > 0.95), both

# %% [markdown]
# ## 4. Holes, and the cell to blame
#
# New rows with holes, in some of them nearly all. The VAE was made with `missing=True`: its log p is that of the readings
# that are there, and `impute` fills the others, with a standard deviation and with draws.

# %%
#| alt: Filled readings of one row with error bars, and the hidden true values, most of which are within the bars.
gaps = with_holes(new[:300], 1.0)
holes, row = np.isnan(gaps), 2
filled = model.impute(gaps, draws=100, samples=1_000)
ax = plt.subplots(figsize=(7, 3))[1]
at = np.arange(COLUMNS)
hole = holes[row]
mean, error = filled.mean[row][hole], 1.645 * filled.stddev[row][hole]
ax.errorbar(at[hole], mean, error, fmt="o", capsize=4, label="filled, 90 %")
ax.plot(at[hole], new[row][hole], "x", color="C1", ms=9, mew=2.5, label="hidden truth")
ax.plot(at[~hole], new[row][~hole], "s", color="0.5", label="observed")
ax.set(xlabel="reading", ylabel="value", xticks=at)
ax.legend(ncols=3);

# %%
low, high = np.quantile(filled.draws, [0.05, 0.95], axis=0)
inside = ((low <= new[:300]) & (new[:300] <= high))[holes].mean()
print(f"{inside:.0%} of the hidden readings are within their 90 % intervals")
#| check
assert 0.82 < inside < 0.95 or EPOCHS == 3, inside

# %% [markdown]
# Nearly nine in ten: the intervals know the noise and what the other readings leave open, but they take the weights of the
# networks for certain. (`kvae.PCA` with `bootstraps=20` doesn't.)
#
# This also answers a question that a score leaves open: *why* is a row odd? Hide one reading after the other, fill it from
# the rest, and compare. A reading that is many standard deviations from what the others say is the one to blame.

# %%
#| alt: For each reading of one odd row, its distance from what the other readings say in standard deviations; the broken one stands out.
broken = new[:1].copy()
broken[0, 7] += 3.0
hidden = np.where(np.eye(COLUMNS, dtype=bool), np.nan, broken).astype("float32")
alone = model.impute(hidden, samples=2_000)
distance = np.abs(broken[0] - alone.mean.diagonal()) / alone.stddev.diagonal()
ax = plt.subplots(figsize=(6, 2.8))[1]
ax.bar(at, distance, color=np.where(at == 7, "C1", "C0"))
ax.set(xlabel="reading", ylabel="standard deviations", xticks=at, title="Each reading, given the others");
#| check
assert distance.argmax() == 7 or EPOCHS == 3, distance

# %% [markdown]
# ## Summary
#
# 1. The reconstruction error sees what breaks a rule. It misses rows that keep to the rule at a place where nobody has been;
#    log p(x) sees those. Rows that are too good have high scores: look at both ends.
# 2. A threshold from calibration rows, which the model hasn't seen, keeps its rate on average, whatever the model is worth.
# 3. `impute` fills holes with their uncertainty, and tells which cell makes a row odd.
#
# ## Exercises
#
# 1. Take the threshold from the scores of `train`. How many good rows raise the alarm? Train on 300 rows, and look again.
# 2. Replace all readings of a row by their means. Which score calls it odd, and why is it the best of all by the other?
# 3. Hide three quarters of the readings of the rows in `odd["contradiction"]`. How many are still seen? Calibrate with rows
#    that have as many holes.
#
# ## References
#
# - V. Vovk, A. Gammerman, G. Shafer. [*Algorithmic learning in a random world.*](https://doi.org/10.1007/b106715) 2005.
# - E. Nalisnick, A. Matsukawa, Y. W. Teh, D. Gorur, B. Lakshminarayanan. [*Do deep generative models know what they don't
#   know?*](https://arxiv.org/abs/1810.09136) 2019. High scores for rows of another kind.
# - P.-A. Mattei, J. Frellsen. [*MIWAE: deep generative modelling and imputation of incomplete data
#   sets.*](https://proceedings.mlr.press/v97/mattei19a.html) 2019.
