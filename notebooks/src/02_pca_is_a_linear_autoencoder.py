# %% [markdown]
# # Is PCA an autoencoder, and what can't it do?
#
# **After this notebook you can**
# - say in which sense PCA is a linear autoencoder, and check it with principal angles;
# - tell when a linear code must fail, and by how much a curved one is better;
# - say where PCA runs out of memory, and fit it on data that are larger than memory.
#
# **Time:** one to two minutes on two cores. **Data:** scikit-learn's digits (1,797 grey images of 8 x 8 pixels, no
# download), bars that we draw, and half a million noisy digits that we write to a file. The memory test of section 5
# needs Linux.

# %%
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported: errors only

import json
import subprocess
import sys
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits

import kvae
from kvae.plots.canvas import CATEGORIES, show_tiles

QUICK = "KVAE_QUICK" in os.environ  # set by the tests: smaller runs
plt.rcParams.update({"figure.dpi": 72, "image.interpolation": "nearest"})

# %% [markdown]
# ## 1. PCA: the best linear code
#
# Principal component analysis (PCA) describes an image $x$ of $D$ pixels by $k$ numbers, and gives the image back:
#
# $$ z = W (x - \mu), \qquad \hat x = \mu + W^\top z, \qquad W W^\top = I . $$
#
# Among all linear codes of size $k$ it has the smallest mean squared error $\lVert x - \hat x \rVert^2$ on the images
# it was fitted to.
#
# | symbol | in kvae |
# | --- | --- |
# | $\mu$, the rows of $W$ (the *axes*) | `pca.mean`, `pca.components` |
# | $z$, $\hat x$ | `pca.transform(x)`, `pca.reconstruct(x)` |
# | the variance along each axis | `pca.explained_variance` |

# %%
# NBVAL_CHECK_OUTPUT
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
# NBVAL_CHECK_OUTPUT
def error(model, x):
    return model.evaluate(x, return_dict=True, verbose=0)["squared_error"]


eigenvalues = np.linalg.eigvalsh(np.cov(train.reshape(1400, -1).astype("float64").T, bias=True))[::-1]
print(f"squared error with 4 axes: {error(pca, train):.3f}; variance left out: {eigenvalues[4:].sum():.3f}")
assert np.isclose(error(pca, train), eigenvalues[4:].sum(), rtol=1e-4)

# %%
kvae.plots.reconstructions({f"{k} axes": kvae.PCA(k).fit(train, verbose=0) for k in (2, 8, 32)}, test, count=10);
# %% [markdown]
# Two axes give a grey average, eight a blurred digit, and 32 nearly the image itself, at half of its 64 numbers.
#
# ## 2. A linear autoencoder finds the same plane
#
# An autoencoder has two networks and the same aim:
#
# $$ z = \mathrm{encoder}(x), \qquad \hat x = \mathrm{decoder}(z), \qquad
#    \min\; \mathbb E \lVert x - \hat x \rVert^2 . $$
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
columns = linear.decoder.get_weights()[0]  # (4, 64)
angles = np.degrees(subspace_angles(axes.T, columns.T))
print(f"angles in degrees: {angles.round(2)}; squared errors: {error(pca, test):.4f}, {error(linear, test):.4f}")
assert angles.max() < 3 and abs(error(linear, test) / error(pca, test) - 1) < 0.01
mixed = np.linalg.lstsq(columns.T, axes.T)[0].T @ columns  # as close to the axes as a mix of the columns comes
tiles = np.concatenate([rows / np.abs(rows).max(axis=1, keepdims=True) for rows in (axes, columns, mixed)])
ax = show_tiles(None, 0.5 + tiles.reshape(-1, 8, 8) / 2, columns=4, left=2)
ax.images[0].set_cmap("PuOr")
ax.set_yticks(range(3), ["PCA's axes", "decoder's columns", "columns, mixed"]);

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
# The last picture is the mean of two bars. A linear code of size one can only move along a straight line, and so it
# must pass such pictures. An autoencoder with a hidden layer or two may bend its line.

# %%
bent = trained(turning, 1, (128, 64), epochs=60, optimizer=kvae.optimizers.Adam, rate=3e-3)
straight = {k: kvae.PCA(k).fit(turning, verbose=0) for k in range(1, 7)}
errors = [error(model, turning_test) for model in straight.values()]
print(f"autoencoder, 1 number: {error(bent, turning_test):.3f}; PCA, 1 to 6 numbers:", *np.round(errors, 3))
assert error(bent, turning_test) < errors[2] / 2 and error(bent, turning_test) < errors[0] / 10

# %%
models = {"PCA, 1 number": straight[1], "PCA, 3 numbers": straight[3], "autoencoder, 1 number": bent}
kvae.plots.reconstructions(models, turning_test[8::16], count=10);
# %%
codes = bent.transform(turning_test)
way = np.linspace(codes.min(), codes.max(), 200, dtype="float32")[:, None]
points, curve = (straight[2].transform(x) for x in (turning_test, bent.inverse_transform(way)))
figure, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
drawn = ax.scatter(*points.T, c=np.degrees(angles), s=30, label="test images")
ax.plot(points[:, 0], 0 * points[:, 0], color=CATEGORIES[1], lw=2.5, label="PCA, 1 number")
ax.plot(*curve.T, color=CATEGORIES[2], lw=2.5, label="autoencoder, 1 number")
figure.colorbar(drawn, label="angle of the bar, degrees").outline.set_visible(False)
ax.set(xlabel="score on PCA's first axis", ylabel="score on the second axis", aspect="equal")
ax.legend(frameon=False, loc="center", bbox_to_anchor=(0.5, 0.3))
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
sizes, epochs = ((2, 8), 40) if QUICK else ((1, 2, 4, 8, 16), 100)
curved = {k: error(trained(train, k, (256, 128), epochs, kvae.optimizers.Adam, 2e-3), test) for k in sizes}
flat = {k: error(kvae.PCA(k).fit(train, verbose=0), test) for k in range(1, 33)}
assert all(curved[k] < 0.95 * flat[k] for k in (2, 8))
figure, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
ax.plot(flat.keys(), flat.values(), color=CATEGORIES[0], lw=2.5, label="PCA, the best linear code")
ax.plot(curved.keys(), curved.values(), "o", color=CATEGORIES[1], ms=8, label="autoencoder, two hidden layers")
ax.set_xscale("log", base=2)
ax.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
ax.set(xlabel="numbers in the code", ylabel="squared error per test image", ylim=(0, None))
ax.legend(frameon=False);

# %% [markdown]
# At small codes the orange dots lie well below the blue line: with as many numbers, a curved code says more. With
# growing codes the gap closes, since PCA with all 64 axes is exact and there is nothing left to win. The networks pay
# in time and in settings: PCA took a fraction of a second and has no setting but $k$.
#
# ## 5. Where PCA's memory ends
#
# "PCA can't be done on data larger than memory" is true of PCA as it is mostly called: the singular value
# decomposition of an array. It is false of PCA. The axes are the leading eigenvectors of
#
# $$ C = \frac1n \sum_{i=1}^n (x_i - \mu)(x_i - \mu)^\top, $$
#
# and a sum needs its terms one at a time. `kvae.PCA` has two solvers, and takes both from a stream:
#
# - `"covariance"` adds up $C$ in one pass. Exact; $8 D^2$ bytes, whatever $n$ is.
# - `"randomized"` never makes $C$. It reads the data a few times, each time multiplying $C$ with a narrow block of
#   directions. About $8 D (k + 10)$ bytes a pass, for images too large for $D^2$ numbers.
#
# We measure it. First half a million noisy digits of 16 x 16 pixels go to a file of 131 MB, and 2,000 larger ones to
# each of two others.

# %%
def write(rows, side):
    path = os.path.join(folder.name, f"{side}.npy")
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, side, side))
    clean = np.kron(digits[..., 0], np.full((side // 8, side // 8), 180))
    for start in range(0, rows, 1000):
        file[start : start + 1000] = clean[rng.integers(1797, size=1000)] + rng.integers(64, size=(1000, side, side))
    return path


CAP, ROWS = 128_000_000, (8_000, 16_000, 64_000, 256_000, 512_000)
rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
paths = {16: write(ROWS[-1], 16), 32: write(2_000, 32), 80: write(2_000, 80)}

# %% [markdown]
# Then a second Python process fits PCA again and again, with a limit of 128 MB on what it may take beyond what it has
# after loading its libraries (`RLIMIT_DATA`; Linux keeps the peak as `VmHWM`). Two ways go through an array and
# scikit-learn: `"full"`, the textbook's singular value decomposition, and `"auto"`, the leanest of its PCA's
# solvers. Two go through a stream and `kvae.PCA`. (scikit-learn's `IncrementalPCA` streams too, approximately.)

# %%
CHILD = r"""
import json, re, resource, sys
import kvae, numpy as np, sklearn.decomposition

def memory(name):  # bytes
    return 1024 * int(re.search(name + r":\s+(\d+)", open("/proc/self/status").read())[1])

def variance(solver, path, rows):
    if solver in ("covariance", "randomized"):  # a stream, read from the file in batches
        stream = kvae.data.from_npy(path, 500).take(rows // 500)
        return kvae.PCA(4, seed=0, solver=solver).fit(stream, verbose=0).explained_variance.numpy().sum()
    x = np.load(path, mmap_mode="r")[:rows].reshape(rows, -1) / np.float32(255)  # an array
    return sklearn.decomposition.PCA(4, svd_solver=solver).fit(x).explained_variance_.sum()
"""

# %%
CHILD += r"""
cap, *cases = json.loads(sys.argv[1])
for solver, path, rows in cases:  # threads and buffers, before anything is measured
    variance(solver, path, 1000)
limit = memory("VmData") + cap
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for case in cases:
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM, the peak, starts anew
    before = memory("VmRSS")
    try:
        print(json.dumps([float(variance(*case)), memory("VmHWM") - before]), flush=True)
    except MemoryError:
        print(json.dumps([None, None]), flush=True)
"""

# %%
cases = [(solver, side, 2_000) for solver in ("covariance", "randomized") for side in (32, 80)]
cases += [(solver, 16, rows) for solver in ("covariance", "auto", "full") for rows in ROWS]
tasks = json.dumps([CAP, *((solver, paths[side], rows) for solver, side, rows in cases)])
lean = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
command = ["sh", "-c", 'ulimit -s 1024; exec "$@"', "sh", sys.executable, "-c", CHILD, tasks]
ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | lean)
lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
assert len(lines) == len(cases), ended.stderr[-500:]
found = dict(zip(cases, lines, strict=True))

# %%
# NBVAL_CHECK_OUTPUT
for (solver, side, rows), (_, peak) in found.items():
    if rows in (2_000, ROWS[-1]):
        print(f"{solver:<10} {rows:>7,} x {side * side:>5,}:", "done" if peak else "MemoryError")
assert found["covariance", 16, ROWS[-1]][1] < CAP / 4
assert np.isclose(found["auto", 16, 16_000][0], found["covariance", 16, 16_000][0], rtol=1e-3)
assert np.isclose(found["covariance", 32, 2_000][0], found["randomized", 32, 2_000][0], rtol=1e-4)

# %%
figure, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
for solver, label, i in (("full", "array, full SVD", 1), ("auto", "array, leanest", 6), ("covariance", "stream", 0)):
    peaks = np.array([found[solver, 16, rows][1] or np.nan for rows in ROWS]) / 1e6
    ax.loglog(ROWS, peaks, "o-", color=CATEGORIES[i], lw=2.5, label=label)
    ax.loglog(ROWS, np.where(np.isnan(peaks), CAP / 1e6, np.nan), "X", color=CATEGORIES[i], ms=12)
ax.axhline(CAP / 1e6, color="grey", ls="--", label="limit; cross: died")
ax.set(xlabel="images of 16 x 16 pixels", ylabel="memory above the start, MB")
ax.legend(frameon=False);
# %% [markdown]
# The crosses are fits that died at the limit. Both ways through an array grow with the rows and die, the leaner one
# later. The stream's line stays at a few megabytes up to half a million images, a file larger than the limit. Its
# covariance matrix depends on the pixels alone, but on their square: the table above says that this solver dies at
# 80 x 80 = 6,400 pixels (328 MB), where the randomized one goes on. What stays is section 3: no solver lets PCA bend.
#
# ## Summary
#
# 1. A linear autoencoder learns PCA's plane, in another basis. PCA computes it without training, and sorted.
# 2. PCA can't bend. Where images lie on a curve, a nonlinear autoencoder needs fewer numbers for the same error.
# 3. Memory is a property of the solver and not of PCA: from a stream the rows cost nothing. The pixels do.
#
# ## Exercises
#
# 1. How many axes explain 90 % of the variance of the training digits? Set `answer` below.
# 2. Let the bar turn all the way, with `limit = np.pi / 2`: the curve is closed now. What does a code of one number
#    do at the seam? And one of two numbers?
# 3. Give `linear` of section 2 a hidden layer of 16 units, and both networks in `trained` `activation="linear"`. Is its
#    plane still PCA's? Why?

# %%
# NBVAL_CHECK_OUTPUT
answer = None  # axes
needed = 1 + np.searchsorted(np.cumsum(eigenvalues) / eigenvalues.sum(), 0.9)
print("exercise 1:", "right" if answer == needed else "not yet")

# %% [markdown]
# ## References
#
# - K. Pearson. *On lines and planes of closest fit to systems of points in space.* 1901.
# - H. Bourlard, Y. Kamp. *Auto-association by multilayer perceptrons and singular value decomposition.* 1988.
# - P. Baldi, K. Hornik. *Neural networks and principal component analysis: learning from examples without local
#   minima.* 1989.
# - G. Hinton, R. Salakhutdinov. *Reducing the dimensionality of data with neural networks.* 2006.
# - N. Halko, P.-G. Martinsson, J. Tropp. *Finding structure with randomness: probabilistic algorithms for
#   constructing approximate matrix decompositions.* 2011.
# - C. Musco, C. Musco. *Randomized block Krylov methods for stronger and faster approximate singular value
#   decomposition.* 2015.
