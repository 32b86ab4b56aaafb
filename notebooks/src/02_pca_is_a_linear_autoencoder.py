# %% [markdown]
# # Is PCA an autoencoder, and what can't it do?
#
# **After this notebook you can**
# - say in which sense PCA is a linear autoencoder, and check it with principal angles;
# - tell when a linear code must fail, and by how much a curved one is better;
# - say where PCA runs out of memory, and fit PCA, an autoencoder and a VAE on data that are larger than memory.
#
# **Time:** four minutes on two cores. **Data:** scikit-learn's digits (1,797 grey images of 8 x 8 pixels, no download),
# bars that we draw, and five million noisy digits that we write to a file of 1.3 GB, which is deleted at the end.

# %%
#| setup
import os
import tempfile

import keras
import numpy as np
import under_a_cap  # a file beside this notebook
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits

from kvae import exercises
from kvae.plots import diagrams
from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. PCA: the best linear code
#
# Principal component analysis (PCA) describes an image $x$ of $D$ pixels by $k$ numbers, and gives the image back:
#
# $$ z = W (x - \bar x), \qquad \hat x = \bar x + W^\top z, \qquad W W^\top = I . $$
#
# Among all linear codes of size $k$ it has the smallest mean squared error $\lVert x - \hat x \rVert^2$ on the images
# it was fitted to.
#
# | symbol | in kvae |
# | --- | --- |
# | $\bar x$, the rows of $W$ (the *axes*) | `pca.mean`, `pca.components` |
# | $z$, $\hat x$ | `pca.transform(x)`, `pca.reconstruct(x)` |
# | the variance along each axis | `pca.explained_variance` |

# %%
#| output
digits = np.random.default_rng(0).permutation(load_digits().images.astype("float32")[..., None] / 16)
train, test = digits[:1400], digits[1400:]
pca = kvae.PCA(4).fit(train, verbose=0)
axes = pca.components.numpy()
print("axes:", axes.shape, "- orthonormal:", np.allclose(axes @ axes.T, np.eye(4), atol=1e-6))

# %% [markdown]
# What PCA loses is known beforehand: the variance along the axes that it leaves out. With the covariance $C$ of the
# training images and its eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$, the mean error on them is
# $\lambda_{k+1} + \dots + \lambda_D$. No step of training can get below it.

# %%
#| output
def error(model, x):
    return model.evaluate(x, return_dict=True, verbose=0)["squared_error"]


eigenvalues = np.linalg.eigvalsh(np.cov(train.reshape(1400, -1).astype("float64").T, bias=True))[::-1]
print(f"squared error with 4 axes: {error(pca, train):.3f}; variance left out: {eigenvalues[4:].sum():.3f}")
#| check
assert np.isclose(error(pca, train), eigenvalues[4:].sum(), rtol=1e-4)

# %%
#| alt: Ten digits, and their reconstructions from 2, 8 and 32 axes: a grey average, a blurred digit, nearly the image.
few = {f"{k} axes": kvae.PCA(k).fit(train, verbose=0) for k in (2, 8, 32)}
kvae.plots.reconstructions(few, test, count=10).set_title("");

# %% [markdown]
# Two axes give a grey average, eight a blurred digit, and 32 nearly the image itself, at half of its 64 numbers.
#
# ## 2. A linear autoencoder finds the same plane
#
# An autoencoder has two networks and the same aim:
#
# $$ z = \mathrm{encoder}(x), \qquad \hat x = \mathrm{decoder}(z), \qquad
#    \min\; \mathbb E \lVert x - \hat x \rVert^2 . $$

# %%
#| alt: A drawing: the image x goes through the encoder to the code z and through the decoder to the reconstruction; the loss compares the two.
diagrams.autoencoder();

# %% [markdown]
# The encoder narrows, the decoder widens, and backpropagation carries the error from the right end through both. No
# label appears anywhere: it learns from *unlabelled* images.
#
# Let both networks be one linear layer: $z = A x + a$ and $\hat x = B z + b$. That is again a linear code, so it can't
# beat PCA. Baldi and Hornik (1989) showed more: this loss has no local minimum but the global one, and there the
# columns of $B$ span *the same plane* as PCA's axes. In kvae a network without hidden layers is linear. We train one
# by stochastic gradient descent.

# %%
def trained(x, size, hidden, epochs, optimizer, rate):
    keras.utils.set_random_seed(0)
    encoder = kvae.networks.dense_encoder(x.shape[1:], size, hidden, activation="gelu")
    decoder = kvae.networks.dense_decoder(x.shape[1:], size, hidden[::-1], activation="gelu")
    model, steps = kvae.Autoencoder(encoder, decoder), epochs * len(x) // 100
    model.compile(optimizer(keras.optimizers.schedules.CosineDecay(rate, steps), 0.9))  # 0.9: the momentum
    model.fit(x, epochs=epochs, batch_size=100, verbose=0)
    return model


linear = trained(train, 4, (), epochs=200, optimizer=keras.optimizers.SGD, rate=0.02)

# %% [markdown]
# Is it the same plane? The *principal angles* between two planes say so: the largest is zero just where they are
# equal. The axes themselves need not agree. For any invertible matrix $R$ the code $R z$ with the decoder
# $B R^{-1}$ gives the same images, and the loss can't tell. PCA picks the one basis that is orthonormal and sorted.

# %%
#| alt: Three rows of four 8 x 8 patterns. PCA's axes and the decoder's columns look unlike; the columns, mixed, look like the axes.
columns = linear.decoder.get_weights()[0]  # (4, 64)
angles = np.degrees(subspace_angles(axes.T, columns.T))
print(f"angles in degrees: {angles.round(2)}; squared errors: {error(pca, test):.4f}, {error(linear, test):.4f}")
mixed = np.linalg.lstsq(columns.T, axes.T)[0].T @ columns  # as close to the axes as a mix of the columns comes
tiles = np.concatenate([rows / np.abs(rows).max(axis=1, keepdims=True) for rows in (axes, columns, mixed)])
ax = show_tiles(None, 0.5 + tiles.reshape(-1, 8, 8) / 2, columns=4, left=2)
ax.images[0].set_cmap("PuOr")
ax.set_yticks(range(3), ["PCA's axes", "decoder's columns", "columns, mixed"]);
#| check
assert angles.max() < 3 and abs(error(linear, test) / error(pca, test) - 1) < 0.01

# %% [markdown]
# The angles are far below a degree, and the two errors on test images, PCA's first, agree to three digits. Yet the
# decoder's columns (second row) look like none of PCA's axes (first row): white is zero, orange and violet are
# the two signs. Mixed by a 4 x 4 matrix (third row) they are the same. The plane is learned; the basis is an
# accident of the start.
#
# ## 3. What PCA can't do: bend
#
# Below is a bar that turns. One number, its angle, says everything about an image. But the images don't lie on a line:
# halfway between two bars, pixel by pixel, is a cross and not a bar. They lie on a *curve* in the 256-dimensional
# space of images.

# %%
#| alt: A bar in nine steps of its turn, and the mean of two turned bars: a cross.
def bars(angles, side=16):
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    cosine, sine = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    across, along = columns * sine - rows * cosine, columns * cosine + rows * sine
    return np.exp(-(across**2) / 2 - (along / 4.5) ** 4).astype("float32")[..., None]


limit = np.radians(80)
turning = bars(np.random.default_rng(0).uniform(-limit, limit, 2000))
angles = np.linspace(-limit, limit, 161)
turning_test = bars(angles)
ax = show_tiles(None, np.concatenate([turning_test[::20], turning_test[[40, 120]].mean(axis=0)[None]]), columns=10)
ax.set_xticks(range(10), [*(f"{np.degrees(angle):.0f}°" for angle in angles[::20]), "mean of\n±40°"]);
# %% [markdown]
# The last picture is the mean of two bars. A linear code of size one can only move along a straight line, and so
# it has to pass through pictures like this one. An autoencoder with a hidden layer or two may bend its line.

# %%
bent = trained(turning, 1, (128, 64), epochs=60, optimizer=kvae.optimizers.Adam, rate=3e-3)
straight = {k: kvae.PCA(k).fit(turning, verbose=0) for k in range(1, 7)}
errors = [error(model, turning_test) for model in straight.values()]
print(f"autoencoder, 1 number: {error(bent, turning_test):.3f}; PCA, 1 to 6 numbers:", *np.round(errors, 3))
#| check
assert error(bent, turning_test) < errors[2] / 2 and error(bent, turning_test) < errors[0] / 10

# %%
#| alt: Ten turned bars and their reconstructions. PCA's one number gives smears and crosses, its three numbers soft bars, the autoencoder's one number bars.
models = {"PCA, 1 number": straight[1], "PCA, 3 numbers": straight[3], "autoencoder, 1 number": bent}
kvae.plots.reconstructions(models, turning_test[8::16], count=10).set_title("");

# %%
#| alt: The images of the bar as dots along an arc, coloured by angle; PCA's straight line cuts through it, the autoencoder's line follows it.
codes = bent.transform(turning_test)
way = np.linspace(codes.min(), codes.max(), 200, dtype="float32")[:, None]
points, curve = (straight[2].transform(x) for x in (turning_test, bent.inverse_transform(way)))
figure, ax = plt.subplots(figsize=(5.6, 3.8))
drawn = ax.scatter(*points.T, c=np.degrees(angles), s=30, label="test images")
ax.plot(points[:, 0], 0 * points[:, 0], color="C4", label="PCA, 1 number")
ax.plot(*curve.T, color="C1", label="autoencoder, 1 number")
figure.colorbar(drawn, label="angle of the bar, degrees").outline.set_visible(False)
ax.set(xlabel="score on PCA's first axis", ylabel="score on the second axis", aspect="equal")
ax.legend(loc="center", bbox_to_anchor=(0.5, 0.3));
#| check
assert abs(np.corrcoef(codes[:, 0], angles)[0, 1]) > 0.9

# %% [markdown]
# The images form an arc. PCA's line cuts through it; all that the line can give back lies on it, and most of it is far
# from any bar. The autoencoder's line is bent along the arc, and its one number goes up, or down, with the angle all
# the way. (It was told only pixels.) PCA isn't wrong about the arc. It needs more axes for it: a curve that
# one number describes can fill many dimensions.
#
# ## 4. Error against code size
#
# Real images are in between. Digits bend, but they have no single angle that explains them. We give PCA and an
# autoencoder with two hidden layers codes of the same size, and compare them on test images.

# %%
#| alt: Squared error over the size of the code. PCA's line falls from 18 to near 1; the autoencoder's dots lie well below it at small codes.
#| quick: sizes, epochs = (2, 8), 40
sizes, epochs = (1, 2, 4, 8, 16), 100
curved = {k: error(trained(train, k, (256, 128), epochs, kvae.optimizers.Adam, 2e-3), test) for k in sizes}
flat = {k: error(kvae.PCA(k).fit(train, verbose=0), test) for k in range(1, 33)}
ax = plt.subplots(figsize=(5.6, 3.4))[1]
ax.plot(flat.keys(), flat.values(), color="C4", label="PCA, the best linear code")
ax.plot(curved.keys(), curved.values(), "o", color="C1", ms=8, label="autoencoder, two hidden layers")
ax.set_xscale("log", base=2)
ax.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
ax.set(xlabel="numbers in the code", ylabel="squared error per test image", ylim=(0, None))
ax.legend();
#| check
assert all(curved[k] < 0.95 * flat[k] for k in (2, 8))

# %% [markdown]
# At small codes the orange dots lie well below the violet line: with as many numbers, a curved code says more. With
# growing codes the gap closes, since PCA with all 64 axes is exact and there is nothing left to win. The networks pay
# in time and in settings: PCA took a fraction of a second and has no setting but $k$.
#
# ## 5. Where PCA's memory ends
#
# "PCA can't be done on data larger than memory" is true of PCA as it is mostly called: the singular value
# decomposition of an array. It is false of PCA. The axes are the leading eigenvectors of
#
# $$ C = \frac1n \sum_{i=1}^n (x_i - \bar x)(x_i - \bar x)^\top, $$
#
# and a sum needs its terms one at a time. `kvae.PCA` has two solvers, and takes both from a stream:
#
# - `"covariance"` adds up $C$ in one pass. Exact; $8 D^2$ bytes, whatever $n$ is.
# - `"randomized"` never makes $C$. It reads the data a few times, each time multiplying $C$ with a narrow block of
#   directions. About $8 D (k + 10)$ bytes a pass, for images too large for $D^2$ numbers.
#
# Let us see it. We write noisy digits of 16 x 16 pixels to a file of 1.3 GB, and some of 80 x 80 pixels to another. Then a
# second Python process gets a hard limit, 128 MB beyond what it has after loading its libraries: a *tenth of the file*.
# What does it manage there?
#
# - Streams: PCA, an autoencoder and a VAE, fitted to `kvae.data.from_npy(path)`.
# - Arrays: `sklearn.decomposition.PCA`, by its own choice of solver and by the textbook's full decomposition. (Its
#   `IncrementalPCA` streams too, approximately.)
# - Streams that hold their data after all: `stream.cache()`, and `stream.unbatch().shuffle(n)` with the whole file as
#   its buffer.

# %%
#| quick: ROWS = 640_000
ROWS = 5_120_000
folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
paths = {side: os.path.join(folder.name, f"{side}.npy") for side in (16, 80)}
for side, rows in (16, ROWS), (80, 4_000):
    file = np.lib.format.open_memmap(paths[side], "w+", np.uint8, (rows, side, side))
    clean = np.kron(digits[..., 0], np.full((side // 8, side // 8), 180)).astype("uint8")
    noise = rng.integers(64, size=(2_000, side, side), dtype="uint8")
    for start in range(0, rows, 2_000):
        file[start : start + 2_000] = clean[rng.integers(1797, size=2_000)] + rng.permutation(noise)
print(f"{os.path.getsize(paths[16]) / 1e6:,.0f} MB on disk")

# %%
#| output
lines = under_a_cap.measure(paths[16], megabytes=128)
outcomes = {name: rows == ROWS and outcome == "done" for name, rows, growth, outcome in lines}  # the last of each
for name, passes in outcomes.items():
    print(f"{name:<20} {'passes' if passes else 'dies'}")
#| check
under = {name: (rows, growth) for name, rows, growth, outcome in lines}
assert all(under[name][0] == ROWS and under[name][1] < 64 for name in under_a_cap.STREAMS), lines
assert not any(outcomes[name] for name in under_a_cap.ARRAYS + under_a_cap.HOLDING), lines

# %%
#| alt: Memory above the start over the number of images. The lines of scikit-learn rise and end in crosses at the limit of 128 MB; those of the streams stay below 30 MB up to five million images.
ax = plt.subplots(figsize=(7, 3.8))[1]
styles = dict(zip(under_a_cap.STREAMS + under_a_cap.ARRAYS, ("C0o-", "C0s-", "C0^-", "C1o:", "C1s:")))
for name, style in styles.items():
    rows, growth = np.array([line[1:3] for line in lines if line[0] == name and line[2] is not None]).T
    ax.loglog(rows, np.maximum(growth, 1), style, label=name if name in under_a_cap.ARRAYS else f"stream: {name}")
    if not outcomes[name]:
        ax.loglog([rows[-1], 4 * rows[-1]], [growth[-1], 128], "C1:")
        ax.plot(4 * rows[-1], 128, "X", color="C1", ms=11)
ax.axhline(128, color="grey", ls="--", lw=1.5, label="limit; cross: died")
ax.set(xlabel="images of 16 x 16 pixels", ylabel="memory above the start, MB", ylim=(0.8, 400))
ax.legend(fontsize=8, ncols=2);

# %% [markdown]
# What goes through an array grows with the rows and dies at the limit (the crosses), long before the end of the file. So
# do `cache()` and a shuffle buffer for all rows: they are arrays by another name. The three streams (blue) read all
# five million images, ten times the limit, and stay far below it: in the run shown below 30 MB, a fortieth of the file.
# Neither the networks nor PCA need the data at once. Each works on sums over batches.
#
# Do it with your own file of rows: `python under_a_cap.py mine.npy 128` in this folder.
#
# PCA's matrix $C$ is the exception: it depends on the pixels alone, but on their square. At 80 x 80 = 6,400 pixels it has
# 328 MB. There the other solver goes on.

# %%
#| output
wide = under_a_cap.measure(paths[80], megabytes=128, names=("PCA", "PCA, randomized"))
print({name: outcome for name, rows, growth, outcome in wide})
folder.cleanup()
#| check
assert [line[3] == "done" for line in wide] == [False, True], wide

# %% [markdown]
# What stays is section 3: no solver lets PCA bend.
#
# ## Summary
#
# 1. A linear autoencoder learns PCA's plane, in another basis. PCA computes it without training, and sorted.
# 2. PCA can't bend. Where images lie on a curve, a nonlinear autoencoder needs fewer numbers for the same error.
# 3. Memory is a property of the solver and not of PCA. From a stream the rows cost nothing, for PCA as for networks.
#
# ## Exercises
#
# 1. Write `explained`: which share of the variance do the first $k$ axes hold?

# %%
#| output
def explained(x, k):  # x: an array (n, D)
    ...  # TODO: a number from 0 to 1


exercises.explained(explained)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def explained(x, k):
#     eigenvalues = np.linalg.eigvalsh(np.cov(x.T))[::-1]
#     return eigenvalues[:k].sum() / eigenvalues.sum()
# ```
# </details>
#
# 2. Write `covariance`: of all the rows that an iterator gives, batch by batch, without ever holding all of them.

# %%
#| output
def covariance(batches):  # an iterator of arrays (n, D), with different n
    ...  # TODO: an array (D, D)


exercises.covariance(covariance)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def covariance(batches):
#     rows, total, squares = 0, 0, 0
#     for x in batches:
#         rows, total, squares = rows + len(x), total + x.sum(axis=0), squares + x.T @ x
#     mean = total / rows
#     return squares / rows - np.outer(mean, mean)
# ```
# </details>
#
# 3. Let the bar turn all the way, with `limit = np.pi / 2`: the curve is closed now. What does a code of one number
#    do at the seam? And one of two numbers?
#
# <details><summary>What you'd see</summary>
#
# One number has two ends, and a closed curve has none. So somewhere on the circle two bars that look nearly alike get
# codes from opposite ends, and there the reconstructions break. Two numbers can lay the circle out as a ring.
# </details>
#
# ## References
#
# - K. Pearson. [*On lines and planes of closest fit to systems of points in
#   space.*](https://doi.org/10.1080/14786440109462720) 1901.
# - H. Bourlard, Y. Kamp. [*Auto-association by multilayer perceptrons and singular value
#   decomposition.*](https://doi.org/10.1007/BF00332918) 1988.
# - P. Baldi, K. Hornik. [*Neural networks and principal component analysis: learning from examples without local
#   minima.*](https://doi.org/10.1016/0893-6080(89)90014-2) 1989.
# - G. Hinton, R. Salakhutdinov. [*Reducing the dimensionality of data with neural
#   networks.*](https://doi.org/10.1126/science.1127647) 2006.
# - N. Halko, P.-G. Martinsson, J. Tropp. [*Finding structure with randomness: probabilistic algorithms for
#   constructing approximate matrix decompositions.*](https://arxiv.org/abs/0909.4061) 2011.
