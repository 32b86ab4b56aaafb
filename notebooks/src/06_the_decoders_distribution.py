# %% [markdown]
# # Which distribution should the decoder have?
#
# **After this notebook you can**
# - say which Gaussian a squared error assumes, and see what happens when the error is averaged over pixels;
# - let the variance be learned, and check it against the variance that PCA leaves over;
# - choose a likelihood for grey, coloured or binary images, and draw images from it.
#
# **Time:** two to three minutes on two cores. **Data:** `sprites` and `drawn_digits`, both drawn on your machine the
# first time, so nothing is downloaded and everybody sees the same images.

# %%
#| setup
import warnings

import keras
import numpy as np
import tensorflow as tf
from scipy.spatial.distance import cdist

from kvae import exercises
from kvae.distributions import Bernoulli, Normal
from kvae.plots.canvas import CONTINUOUS, show_tiles

# %%
#| quick: SPRITES, STEPS = 1_000, 200
#| quick: DIGITS, DIGIT_STEPS = 4_000, 1_000
LATENT_DIM, BATCH = 10, 64  # numbers in a code; images in a batch
SPRITES, STEPS = 5_000, 1_000  # images; steps of the optimizer for each model
DIGITS, DIGIT_STEPS = 10_000, 1_500
tf.get_logger().setLevel("ERROR")  # TensorFlow takes several short trainings for a mistake, and says so at length

# %% [markdown]
# ## 1. A decoder gives a distribution
#
# The decoder of a variational autoencoder (VAE) doesn't say what the image is. It says how probable every image is:
# $p(x \mid z)$. Its network gives the parameters of that distribution, pixel by pixel. Here are two families, for one
# pixel. We write $\hat x$ for the decoder's mean and $\sigma_x$ for its standard deviation.
#
# | $p(x \mid z)$ | $-\log p(x \mid z)$ in nats | in kvae |
# | --- | --- | --- |
# | Gaussian $\mathcal N(\hat x, \sigma_x^2)$ | $\frac{1}{2 \sigma_x^2} (x - \hat x)^2 + \frac12 \log (2 \pi \sigma_x^2)$ | `kvae.GaussianLikelihood(variance)` |
# | Bernoulli, $x$ is 0 or 1 | $-x \log \hat x - (1 - x) \log (1 - \hat x)$ | `kvae.BernoulliLikelihood()` |
#
# Three decoders all say $\hat x = 0.7$. What does each of them pay for a value of the pixel?

# %%
#| alt: Left, three densities of one pixel around 0.7: a wide and a narrow bell curve, and two bars at 0 and 1. Right, the nats each pays for a value.
grid = np.linspace(-0.5, 1.5, 201, dtype="float32")[:, None]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.9))
for variance, colour in (0.5, "C0"), (0.02, "C1"):
    log_prob = Normal(np.full_like(grid, 0.7), np.log(variance)).log_prob(grid)
    left.plot(grid, np.exp(log_prob), color=colour, label=f"Gaussian, variance {variance}")
    right.plot(grid, -log_prob, color=colour)
values = np.array([[0.0], [1.0]], "float32")
log_prob = Bernoulli(np.full_like(values, np.log(0.7 / 0.3))).log_prob(values)
left.vlines(values, 0, np.exp(log_prob), color="C2", lw=5, label="Bernoulli (probabilities)")
right.plot(values, -log_prob, "o", color="C2", ms=8)
left.set(xlabel="the pixel's value x", ylabel="p(x|z)", title="What the decoder expects")
right.set(xlabel="the pixel's value x", ylabel="nats", ylim=(-2, 12), title="What it pays: −log p(x|z)")
left.legend(fontsize=8);

# %% [markdown]
# The wide Gaussian hardly cares where the pixel is. The narrow one gains when it is right, and pays steeply when it is
# wrong. The Bernoulli knows two values only. It has probabilities where the others have densities: a density can be
# above 1, and then the price is negative.
#
# ## 2. What a squared error assumes
#
# For an image of $D$ pixel values and a fixed variance,
#
# $$ -\log p(x \mid z) = \frac{1}{2 \sigma_x^2} \lVert x - \hat x \rVert^2 + \frac D2 \log (2 \pi \sigma_x^2) . $$
#
# The second term doesn't depend on the networks. So whoever minimises a squared error beside the KL has chosen a
# Gaussian, and its variance too:
#
# | squared error beside the KL | its factor | so $\sigma_x^2$ is |
# | --- | --- | --- |
# | summed over the image | $1 = \frac{1}{2 \sigma_x^2}$ | $1/2$ |
# | averaged over the image (`keras.losses.MeanSquaredError`) | $\frac1D = \frac{1}{2 \sigma_x^2}$ | $D/2$ |
#
# Let us check it on sprites of 32 x 32 pixels and 3 colours. For some guess $\hat x$ we take both errors off
# $-\log p(x \mid z)$. What is left must be the constant, the same for every image.

# %%
#| output
parts = kvae.data.load("sprites", SPRITES, shuffle=0, size=32, examples=10_000, config_seed=1)
sprites, sprites_test = (next(iter(part)).numpy() / np.float32(255) for part in (parts[0], parts[2]))
D = sprites[0].size
guess = np.full_like(sprites[:100], 0.3)
error = np.square(sprites[:100] - guess, dtype="float64").sum(axis=(1, 2, 3))
for name, weight, variance in ("summed", 1, 1 / 2), ("averaged", 1 / D, D / 2):
    log_prob = kvae.GaussianLikelihood(variance).distribution([guess]).log_prob(sprites[:100])
    rest = -np.asarray(log_prob, "float64") - weight * error
    print(f"{name:<9} sigma_x = {variance**0.5:5.2f}, constant {rest.mean():7.0f} nats, in all 100 images")
#| check
assert np.allclose(rest, D / 2 * np.log(2 * np.pi * variance), atol=0.05)

# %% [markdown]
# Pixels are between 0 and 1, and the averaged error claims that they scatter by 39 about their mean. What would that
# look like? Here is one sprite, and images drawn from $\mathcal N(\text{sprite}, \sigma_x^2 I)$.

# %%
#| alt: A sprite four times: clean, with a little noise, under heavy noise at sigma 0.71, and as pure noise at sigma 39.
rng = np.random.default_rng(0)
sigmas = {"the sprite": 0, "nearly as learned below": 0.05, "summed": 0.5**0.5, "averaged": (D / 2) ** 0.5}
figure, panels = plt.subplots(1, 4, figsize=(8, 2.4))
for ax, (name, sigma) in zip(panels, sigmas.items()):
    ax.imshow(np.clip(sprites[3] + sigma * rng.normal(size=sprites[3].shape), 0, 1))
    ax.set_title(f"{name}\n$\\sigma_x$ = {sigma:.2f}", fontsize=10)
    ax.axis("off")

# %% [markdown]
# With $\sigma_x = 39$ nothing of the sprite is left: each value is black or full by chance. Whoever believes that
# images look like this has no reason to put anything of an image into its code.
#
# ## 3. Trained under each assumption
#
# We train three VAEs with the same networks, steps and images. Only the variance differs: $D/2$, $1/2$, and one that
# is learned together with the networks (`variance="shared"`, kvae's default).


# %%
def conv(shape):
    sizes = shape, LATENT_DIM, (16, 32, 64)
    return kvae.networks.conv_encoder(*sizes), kvae.networks.conv_decoder(*sizes)


def trained(networks, x, likelihood, steps, rate=3e-3, callbacks=()):
    keras.utils.set_random_seed(0)
    vae = kvae.VAE(*networks(x.shape[1:]), likelihood, seed=0)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss=kvae.ELBO())
    vae.fit(x, batch_size=BATCH, epochs=steps * BATCH // len(x), verbose=0, callbacks=list(callbacks))
    return vae


# %%
variances = {"averaged: D/2": D / 2, "summed: 1/2": 1 / 2, "learned": "shared"}
models = {name: trained(conv, sprites, kvae.GaussianLikelihood(v), STEPS) for name, v in variances.items()}
results = kvae.evaluation.compare(models, sprites_test)
for name, found in results.items():
    sigma = float(np.exp(0.5 * models[name].likelihood.log_var))
    numbers = f"squared error {found['squared_error']:5.2f}   KL {found['kl_loss']:5.2f}   ELBO {found['elbo']:9,.1f}"
    print(f"{name:<14} sigma_x {sigma:6.3f}   {numbers} nats")
#| check
total = np.square(sprites_test - sprites.mean(axis=0)).sum() / len(sprites_test)  # error of the mean image
averaged, summed, learned = results.values()
assert averaged["kl_loss"] < 0.1 and averaged["squared_error"] > 0.95 * total
assert learned["squared_error"] < 0.8 * summed["squared_error"] and learned["elbo"] > summed["elbo"] > averaged["elbo"]

# %%
#| alt: Seven sprites and their reconstructions: always the same blur with D/2, pale spots with 1/2, coloured shapes with the learned variance.
kvae.plots.reconstructions(models, sprites_test, count=7).set_title("");

# %% [markdown]
# Averaged, the error is so cheap that no latent is used: the KL is 0, and every image comes back as the same blur, the
# mean image. This is *posterior collapse*, and nobody asked for it: the code only said `mean` where the bound says
# sum. Summed, a few nats go into the code, and a pale spot comes back at the right place. With a learned variance
# colour and form come back too.
#
# There is another way to put it. Multiply a loss by a constant, and its minimum stays where it is. So the averaged
# error is the bound for any $\sigma_x^2$ you like, with the KL weighted by $\beta = D / (2 \sigma_x^2)$. For the
# variance learned above this $\beta$ is about a million. All three ELBOs in the table are bounds of the same
# $\log p(x)$, so they can be compared, and a fixed variance costs thousands of nats.
#
# ## 4. The learned variance, and PCA's
#
# Which variance is best? Set the derivative of the loss with respect to $\sigma_x^2$ to 0:
#
# $$ \sigma_x^2 = \frac1D \, \mathbb E \lVert x - \hat x \rVert^2, $$
#
# the mean squared error that is left. If encoder and decoder are linear, the answer is known without training. The
# best linear VAE is *probabilistic PCA*: its $\sigma_x^2$ is the mean of the variances along the axes that are left
# out,
#
# $$ \sigma_x^2 = \frac{1}{D - L} \sum_{j > L} \lambda_j , \qquad L = \texttt{latent\_dim}, $$
#
# where $\lambda_1 \ge \lambda_2 \ge \dots$ are the eigenvalues of the covariance, and in kvae `pca.noise_variance`.
# We train a linear VAE and a deep one on grey digits, and watch their variances. The digits look handwritten but are
# drawn by a program: `kvae.data.load("drawn_digits")`, 28 x 28 pixels.

# %%
#| alt: Two rows of twelve drawn digits that look handwritten, white on black.
parts = kvae.data.load("drawn_digits", DIGITS, examples=DIGITS, shuffle=0)
grey, grey_test = (next(iter(part)).numpy() / np.float32(255) for part in (parts[0], parts[2]))
print("to train on:", grey.shape, "to test:", grey_test.shape)
show_tiles(None, grey_test[:24], 12)


def dense(shape, hidden=(256, 128)):
    encoder = kvae.networks.dense_encoder(shape, LATENT_DIM, hidden)
    return encoder, kvae.networks.dense_decoder(shape, LATENT_DIM, hidden[::-1])


# %%
pca = kvae.PCA(LATENT_DIM).fit(grey, verbose=0)
noise_variance = float(pca.noise_variance)
paths, networks = {}, {"linear VAE": ((), 1e-2), "deep VAE": ((256, 128), 3e-3)}
for name, (hidden, rate) in networks.items():
    likelihood, path = kvae.GaussianLikelihood(), paths.setdefault(name, [])
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs, path=path, p=likelihood: path.append(float(np.exp(p.log_var)))
    )
    deep = trained(lambda shape, h=hidden: dense(shape, h), grey, likelihood, DIGIT_STEPS, rate, [watch])
    print(f"{name}: variance {path[-1]:.5f}, {path[-1] / noise_variance:.3f} of PCA's {noise_variance:.5f}")
errors = kvae.evaluation.squared_error(deep, grey_test), kvae.evaluation.squared_error(pca, grey_test)
print(f"squared error on test images: deep VAE {errors[0]:.2f}, PCA {errors[1]:.2f}")
#| check
assert errors[0] < errors[1]
assert abs(paths["linear VAE"][-1] / noise_variance - 1) < 0.05 and paths["deep VAE"][-1] < 0.95 * noise_variance

# %%
#| alt: Left, the variances along PCA's axes fall from 5 to 0.01; lines mark D/2 far above all, 1/2 which a few dozen exceed, and PCA's own 0.04. Right, the linear VAE's variance settles on PCA's, the deep VAE's falls below it.
eigenvalues = np.linalg.eigvalsh(np.cov(grey.reshape(len(grey), -1).T, bias=True))[:-65:-1].clip(1e-9)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
for part, fill, name in (slice(LATENT_DIM), "C0", "axes kept"), (slice(LATENT_DIM, None), "none", "left out"):
    left.semilogy(np.arange(1, 65)[part], eigenvalues[part], "o", color="C0", mfc=fill, ms=5, label=name)
for variance, name in (grey[0].size / 2, "$\\sigma_x^2 = D/2$"), (1 / 2, "1/2"), (noise_variance, "PCA's"):
    left.axhline(variance, color="grey", ls="--", lw=1.5)
    left.text(64, variance * 1.15, name, ha="right")
left.set(xlabel="axis", ylabel="variance along it, λ", ylim=(1e-3, 1.5e3), title="PCA's axes and three variances")
left.legend(loc="lower left")
for (name, path), colour in zip(paths.items(), ("C1", "C2")):
    right.semilogy(np.linspace(0, DIGIT_STEPS, len(path) + 1)[1:], path, color=colour, label=name)
right.axhline(noise_variance, color="C0", ls="--", label="PCA's")
right.set(xlabel="steps of the optimizer", ylabel="learned variance", title="While training")
right.legend();
#| check
assert np.allclose(eigenvalues[:LATENT_DIM], pca.explained_variance, rtol=1e-3)
assert eigenvalues[0] < grey[0].size / 2 and 5 < (eigenvalues > 0.5).sum() < 60

# %% [markdown]
# Left: a linear decoder uses an axis only where $\lambda$ is above $\sigma_x^2$ (Tipping and Bishop 1999; Lucas and
# others 2019). No axis of these images comes anywhere near $D/2$, and only the first few dozen are above $1/2$: the
# collapse of section 3 is no accident of training. Right: the linear VAE comes down to PCA's dashed line and stays
# there. The deep VAE goes on below it, since its decoder can bend: it leaves less of the images to noise, and less of
# test images too.
#
# ## 5. A variance for each pixel
#
# Not all pixels are equally hard. `variance="pixel"` learns one variance for each of them.

# %%
#| alt: Left, the mean of all digits: a grey cloud. Right, the learned sigma of each pixel: near 0 in the border, large in the middle.
by_pixel = trained(dense, grey, kvae.GaussianLikelihood("pixel"), DIGIT_STEPS)
sigma = np.exp(0.5 * by_pixel.likelihood.log_var)[..., 0]
figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.9))
shown = left.imshow(grey.mean(axis=0)[..., 0], cmap="gray", vmin=0, vmax=1)
figure.colorbar(shown, ax=left, label="mean of the images")
figure.colorbar(right.imshow(sigma, cmap=CONTINUOUS, vmin=0), ax=right, label="learned $\\sigma_x$")
left.set(xticks=[], yticks=[], title="What is there")
right.set(xticks=[], yticks=[], title="How uncertain it is")
shared, pixel = (vae.evaluate(grey_test, return_dict=True, verbose=0)["elbo"] for vae in (deep, by_pixel))
print(f"ELBO: one variance {shared:.0f}, one for each pixel {pixel:.0f} nats; smallest sigma_x {sigma.min():.4f}")
#| check
assert pixel > shared and sigma.min() < 0.5 * sigma.max()

# %% [markdown]
# Pixels of the border, which are nearly always black, get a small $\sigma_x$. Those that differ from image to image
# get a large one, and the bound is far higher. Take care, though. A pixel that never changes has a density without
# limit as $\sigma_x \to 0$, and nats can be had for nothing. kvae holds the variance above `min_variance`, by default
# that of rounding to 256 levels, and `kvae.evaluation.report` says where a variance has come down to it.
#
# ## 6. Black or white: the Bernoulli
#
# If pixels are 0 or 1, the Bernoulli is the distribution that wastes no probability on other values. Its
# $-\log p(x \mid z)$ is the cross-entropy. On *grey* pixels the same formula is no likelihood: over $[0, 1]$,
# $p^x (1 - p)^{1 - x}$ does not integrate to 1, and kvae warns of it.

# %%
#| output
grid = np.linspace(0, 1, 10_001)
for p in 0.1, 0.5, 0.9:
    area = np.trapezoid(p**grid * (1 - p) ** (1 - grid), grid)
    print(f"p = {p}: the area under p^x (1 - p)^(1 - x) is {area:.3f}")
#| check
assert area < 0.5

# %%
binary, binary_test = np.round(grey), np.round(grey_test)
bernoulli = trained(dense, binary, kvae.BernoulliLikelihood(), DIGIT_STEPS)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    bernoulli.evaluate(grey_test, verbose=0)
print("on grey images:", said[0].message)
#| check
assert "grey" in str(said[0].message)

# %% [markdown]
# ## 7. What the model says images look like
#
# Four models, and three rows of pictures of each. First the usual one: draw $z \sim p(z)$ and show the mean $\hat x$.
# Second, for the same $z$, a *draw* of $p(x \mid z)$: what the model says images look like. Third, means again, but
# with $z$ drawn from somewhere else: from the normal that has the mean and the covariance of the training images'
# codes. The decoder is the same as in the first row.

# %%
fixed = trained(dense, grey, kvae.GaussianLikelihood(1 / 2), DIGIT_STEPS)
columns = {"Gaussian, $\\sigma_x^2$ = 1/2": fixed, "Gaussian, learned": deep}
columns |= {"learned, each pixel": by_pixel, "Bernoulli": bernoulli}


def like_codes(vae, count=16):  # z from the normal fitted to the codes of the training images
    codes = vae.transform(binary if vae is bernoulli else grey)
    drawn = np.random.default_rng(0).multivariate_normal(codes.mean(axis=0), np.cov(codes.T), count)
    return drawn.astype("float32")


# %%
#| alt: Samples of four models in three rows. With the learned variance, means from the prior are speckled and broken, and means from codes like those of the images are digits.
figure, panels = plt.subplots(3, 4, figsize=(9, 7))
for (name, vae), (first, second, third) in zip(columns.items(), panels.T):
    kvae.plots.samples(vae, 16, ax=first).set_title(name, fontsize=11)
    kvae.plots.samples(vae, 16, noise=True, ax=second).set_title("")
    show_tiles(third, vae.inverse_transform(like_codes(vae)), 4)
for ax, text in zip(panels[:, 0], ("means, z ~ p(z)", "draws of p(x|z), z ~ p(z)", "means, z like the codes")):
    ax.set_ylabel(text, fontsize=10)


# %%
def distance(images):  # mean squared distance to the nearest training image
    return cdist(images.reshape(len(images), -1), grey.reshape(len(grey), -1), "sqeuclidean").min(axis=1).mean()


means = {
    "z ~ p(z)": deep.sample(200, noise=False, seed=0),
    "z like the codes": deep.inverse_transform(like_codes(deep, 200)),
}
for name, images in means.items():
    print(f"learned variance, {name:<17} squared distance to the nearest training image: {distance(images):5.1f}")
codes = deep.transform(grey)
print("spread of the codes along their axes:", np.linalg.eigvalsh(np.cov(codes.T)).round(2)[::-1], "(prior: 1)")
print(f"distance of their mean from 0: {np.linalg.norm(codes.mean(axis=0)):.2f} (prior: 0)")
#| check
assert distance(means["z ~ p(z)"]) > 1.2 * distance(means["z like the codes"])
assert np.linalg.norm(codes.mean(axis=0)) > 0.8 and np.linalg.eigvalsh(np.cov(codes.T))[0] < 0.6

# %% [markdown]
# **The second row** shows what a variance means. With $\sigma_x^2 = 1/2$ the draws are noise: the model has learned
# vague means and believes in snow. With a learned variance a draw is close to its mean. With one variance a pixel the
# dark border stays quiet. Only the Bernoulli's draws are, like its data, black and white. (Its nats are of
# probabilities, the others' of densities. Such numbers can't be compared.)
#
# **The first row** has a riddle. The learned variance gives by far the better bound, and yet its samples are the worse
# ones: speckled, many of them no digit at all. The third row solves it. The decoder can draw digits. It was handed the
# wrong codes: the codes of the images don't fill $p(z)$ but lie in a shifted, narrower cloud, as the last lines of
# print show, and most draws of the prior fall beside it. Training longer doesn't mend that (exercise 3). This is the
# *mismatch* between the codes and the prior. Notebook 08 measures it, and lets the prior come to the codes. (The
# Bernoulli's codes fill the prior far better. There is little to mend, and a normal is no better a guess than $p(z)$.)
#
# Which likelihood, then? Binary data: Bernoulli. Grey or coloured pixels: a Gaussian with a learned variance, or
# `kvae.DiscretizedLogisticLikelihood()`, which gives probabilities to the 256 levels of a byte, in nats that can be
# compared with others' results. Cross-entropy on grey pixels: `kvae.ContinuousBernoulliLikelihood()`, which has the
# missing constant.
#
# ## Summary
#
# 1. A loss for the reconstruction *is* a choice of $p(x \mid z)$. A squared error summed over the image is a Gaussian
#    of variance $1/2$; averaged over $D$ values, of variance $D/2$, which can collapse every latent.
# 2. The variance can be learned. For a linear decoder it comes out as PCA's residual variance, for a deep one lower.
# 3. A better bound is not better samples. Look at draws of $p(x \mid z)$, and ask where the codes are.
#
# ## Exercises
#
# 1. Write `gaussian_nats`, the price of an image under a Gaussian decoder. Replace the dots and run the cell: it says
#    "right", or what is not yet right.

# %%
#| output
def gaussian_nats(x, mean, variance):  # images (n, h, w, c), the decoder's means, and one number
    ...  # TODO: -log N(x; mean, variance I), one number for each image


exercises.gaussian_nats(gaussian_nats)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def gaussian_nats(x, mean, variance):
#     terms = (x - mean) ** 2 / (2 * variance) + 0.5 * np.log(2 * np.pi * variance)
#     return terms.sum(axis=(1, 2, 3))
# ```
# </details>
#
# 2. Write `best_variance`: for given means, which one variance makes these nats, averaged over images, smallest?

# %%
#| output
def best_variance(x, mean): ...  # TODO: one number


exercises.best_variance(best_variance)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def best_variance(x, mean):
#     return np.mean((x - mean) ** 2)
# ```
# </details>
#
# 3. Train `deep` of section 4 eight times longer, `trained(dense, grey, kvae.GaussianLikelihood(), 8 * DIGIT_STEPS)`,
#    and look at its samples. Does the ELBO rise? Do the samples mend?
#
# <details><summary>What you'd see</summary>
#
# The ELBO rises by some 150 nats, the strokes get sharper, and most samples of the prior are still broken. Codes drawn
# like those of the images again decode to digits.
# </details>
#
# ## References
#
# - M. Tipping, C. Bishop. [*Probabilistic principal component
#   analysis.*](https://doi.org/10.1111/1467-9868.00196) 1999.
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - M. Hoffman, M. Johnson. [*ELBO surgery: yet another way to carve up the variational evidence lower
#   bound.*](http://approximateinference.org/accepted/HoffmanJohnson2016.pdf) 2016.
# - J. Lucas, G. Tucker, R. Grosse, M. Norouzi. [*Don't blame the ELBO! A linear VAE perspective on posterior
#   collapse.*](https://arxiv.org/abs/1911.02469) 2019.
# - G. Loaiza-Ganem, J. Cunningham. [*The continuous Bernoulli: fixing a pervasive error in variational
#   autoencoders.*](https://arxiv.org/abs/1907.06845) 2019.
# - O. Rybkin, K. Daniilidis, S. Levine. [*Simple and effective VAE training with calibrated
#   decoders.*](https://arxiv.org/abs/2006.13202) 2021.
