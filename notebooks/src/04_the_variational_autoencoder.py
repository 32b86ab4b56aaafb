# %% [markdown]
# # How can a model learn p(x) when p(x) is an integral nobody can compute?
#
# **After this notebook you can**
# - say why $p(x)$ and $p(z \mid x)$ are out of reach, and compute both by brute force where $z$ is small;
# - derive the bound that a variational autoencoder (VAE) maximises, and check each of its terms in numbers;
# - write a VAE's `Sampling` layer and `train_step` yourself, and see `kvae.VAE` give the same numbers.
#
# **Time:** about two minutes on two cores. **Data:** a toy in two dimensions, drawn here, and scikit-learn's
# `digits`, 1,797 images of 8 x 8 pixels that come with it. Nothing is downloaded.
#
# One rule for the pictures: **blue** is the truth, **orange** is what stands in for it.

# %%
#| setup
import keras
import numpy as np
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import load_digits

from kvae import exercises
from kvae.plots import diagrams

# %% [markdown]
# ## 1. A story of where the data come from
#
# We see $x$. The story says that it comes from a $z$ that nobody sees:
#
# 1. draw $z$ from the **prior** $p(z) = \mathcal N(0, I)$;
# 2. draw $x$ from the **decoder's** distribution $p(x \mid z)$.

# %%
#| alt: A drawing: z is drawn from the prior p(z) and hidden; the decoder with weights theta gives p(x|z), from which the image x is drawn.
diagrams.generation();

# %% [markdown]
# The decoder has weights, $\theta$, and *maximum likelihood* says how to choose them: so that the images $x_1, x_2, \dots$
# that we have are as probable as can be, $\theta^* = \arg\max_\theta \sum_i \log p_\theta(x_i)$. For that we need $p(x)$.
# The story gives $p(x, z)$, and $z$ has to be summed away, or *marginalised*: over all its values if $z$ is discrete, by
# an integral if it is continuous.
#
# $$ p(x) = \sum_z p(x \mid z)\, p(z) \quad\text{or}\quad p(x) = \int p(x \mid z)\, p(z)\, dz, \qquad p(z \mid x) = \frac{p(x \mid z)\, p(z)}{p(x)} . $$
#
# $p(x)$ is how probable $x$ is under the story. $p(z \mid x)$ is the **posterior**: which $z$ may $x$ have come from?
# Both need the integral, and with a neural network inside nobody can solve it. Where $z$ is one number, we can add the
# integral up on a grid: *quadrature*. So we start with one number. $z$ goes round a circle, and $x$ is a point near it:
#
# $$ p(x \mid z) = \mathcal N\big((\cos 1.3 z,\, \sin 1.3 z),\; 0.2^2 I\big) . $$

# %%
#| output
z, dz = np.linspace(-8, 8, 801, retstep=True)  # the grid
log_prior = norm.logpdf(z)


def circle(z):
    return np.stack([np.cos(1.3 * z), np.sin(1.3 * z)], axis=-1)


def log_joint(x):  # log p(x|z) + log p(z) for every z of the grid: (n, 2) to (n, 801)
    return norm.logpdf(x[:, None], circle(z), 0.2).sum(axis=-1) + log_prior


side, dx = np.linspace(-1.8, 1.8, 73, retstep=True)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
p_x = np.exp(logsumexp(log_joint(plane), axis=1)) * dz  # the integral, for every point of the plane
print(f"p(x) adds up to {p_x.sum() * dx**2:.3f} over the plane")

# %%
#| alt: Left, 400 points near a circle, coloured by the hidden z. Right, the density p(x), a blue ring, with the points A, B and C.
points = np.array([[0.7, 0.7], [0.0, 0.0], [-0.95, 0.0]])  # A, B, C
z_drawn, *noise = np.random.default_rng(0).normal(size=(3, 400))
x_drawn = circle(z_drawn).T + 0.2 * np.array(noise)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True, sharey=True, subplot_kw={"aspect": "equal"})
density = axes[1].pcolormesh(side, side, p_x.reshape(73, 73), cmap="Blues", rasterized=True)
for name, point in zip("ABC", points):
    axes[1].text(*point, name, ha="center", va="center", weight="bold", bbox={"fc": "white", "pad": 2})
figure.colorbar(axes[0].scatter(*x_drawn, c=z_drawn, s=14), ax=axes[0], label="the z it came from")
figure.colorbar(density, ax=axes[1], label="p(x)")
axes[0].set(title="400 draws: z ~ p(z), then x ~ p(x|z)", xlabel="x[0]", ylabel="x[1]")
axes[1].set(title="p(x): the integral, on a grid", xlabel="x[0]");

# %% [markdown]
# On the left the colour shows the hidden $z$; a model sees the points only. On the right $p(x)$ is high where many
# points fall. On the far left of the circle both ends of $z$ meet.
#
# ## 2. The posterior, and a normal that stands in for it
#
# For the points A, B and C we divide: $p(z \mid x) = p(x \mid z)\, p(z) / p(x)$. Beside it stands the *best* normal
# $q(z \mid x) = \mathcal N(\mu, \sigma^2)$. What "best" means is derived in the next section: the largest bound on
# $\log p(x)$. Here we simply try 121 values of $\mu$ and 60 of $\sigma$.

# %%
#| alt: The posteriors of A, B and C in blue with the best normal in orange: they agree for A and B; C has two humps and the normal covers one.
joint = log_joint(points)
log_posterior = joint - logsumexp(joint, axis=1, keepdims=True) - np.log(dz)
means, sigmas = np.linspace(-3, 3, 121), np.geomspace(0.05, 1.5, 60)
q = norm.pdf(z, means[:, None, None], sigmas[:, None])  # (121, 60, 801)
bounds = q @ joint.T * dz + 0.5 * np.log(2 * np.pi * np.e * sigmas**2)[:, None]  # (121, 60, 3)
best = np.array([np.unravel_index(bounds[..., i].argmax(), bounds.shape[:2]) for i in range(3)])
mu, sigma = means[best[:, 0]], sigmas[best[:, 1]]
log_q = norm.logpdf(z, mu[:, None], sigma[:, None])

figure, axes = plt.subplots(1, 3, figsize=(10, 2.8))
for i, ax in enumerate(axes):
    ax.fill_between(z, np.exp(log_posterior[i]), color="C0", alpha=0.5, label="p(z|x), by brute force")
    ax.plot(z, np.exp(log_q[i]), color="C1", lw=3, label="q(z|x), the best normal")
    ax.plot(z, np.exp(log_prior), color="grey", ls=":", lw=2, label="p(z)")
    ax.set(title=f"x = {'ABC'[i]}", xlabel="z", ylabel="density", xlim=(-4, 4), ylim=(0, None))
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3);

# %% [markdown]
# A can only have come from one stretch of the circle: its posterior is nearly a normal. B is the centre, equally far
# from every $z$: it says nothing, and its posterior is the prior. C lies where the two ends meet: its posterior has
# two humps, and the best normal covers one of them.
#
# ## 3. From the integral to a bound
#
# Take any density $q(z \mid x)$. As $\log p(x)$ doesn't depend on $z$, it is its own mean under $q$. And
# $p(x) = p(x \mid z)\, p(z) / p(z \mid x)$ for every $z$. So
#
# $$ \log p(x) = \mathbb E_q\left[\log \frac{p(x \mid z)\, p(z)}{p(z \mid x)}\right]
#  = \mathbb E_q\left[\log p(x \mid z) - \log \frac{q(z \mid x)}{p(z)} + \log \frac{q(z \mid x)}{p(z \mid x)}\right] $$
#
# $$ \log p(x) = \underbrace{\mathbb E_q[\log p(x \mid z)] - \mathrm{KL}\big(q(z \mid x) \,\Vert\, p(z)\big)}_{
#   \text{the ELBO}} + \underbrace{\mathrm{KL}\big(q(z \mid x) \,\Vert\, p(z \mid x)\big)}_{\ge\, 0} . $$
#
# A KL divergence is never negative. One line of Jensen's inequality shows it, as the logarithm of a mean is at least the
# mean of the logarithms:
#
# $$ -\mathrm{KL}(q \Vert p) = \mathbb E_q\left[\log \frac{p(z)}{q(z)}\right] \le \log \mathbb E_q\left[\frac{p(z)}{q(z)}\right]
#    = \log \int p(z)\, dz = 0 . $$
#
# So the first two terms together, the **evidence lower bound** (ELBO), can't exceed $\log p(x)$. And they need no integral
# over all $z$: draws from $q$ will do.

# %%
#| alt: A drawing of three bars: the reconstruction term; the ELBO and the KL to the prior, which add up to it; the ELBO and the gap, which add up to log p(x).
diagrams.bound();

# %% [markdown]
# | symbol | in kvae |
# | --- | --- |
# | $p(z)$, $p(x \mid z)$, $q(z \mid x)$ | `vae.prior_distribution()`, `vae.decoder_distribution(z)`, `vae.posterior(x)` |
# | $\mathbb E_q[\log p(x \mid z)]$ | `-reconstruction_loss` |
# | $\mathrm{KL}(q(z \mid x) \Vert p(z))$ | `kl_loss` |
# | ELBO | `elbo`; its negative is what `kvae.ELBO()` minimises |
# | $\mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$ | `gap` in `kvae.evaluation.elbo_decomposition` |

# %%
#| output
def three_terms(log_joint, log_q, log_prior, cell):  # of one x, on a grid of z
    log_p = logsumexp(log_joint) + np.log(cell)
    q = np.exp(log_q) * cell
    return log_p, q @ (log_joint - log_prior), q @ (log_q - log_prior), q @ (log_q - log_joint + log_p)


print("   log p(x) = E_q[log p(x|z)] - KL(q || p(z)) + KL(q || p(z|x)), in nats")
terms = np.array([three_terms(*pair, log_prior, dz) for pair in zip(joint, log_q)])
log_p, reconstruction, kl, gap = terms.T
for name, row in zip("ABC", terms):
    print("{}  {:7.3f}  = {:10.3f}     - {:9.3f}     + {:9.3f}".format(name, *row.round(3) + 0.0))  # no -0.000
#| check
assert np.allclose(reconstruction - kl + gap, log_p) and abs(gap[2] - np.log(2)) < 0.02

# %%
#| alt: The ELBO of A and of C as the mean of q moves. A's touches log p(x) at its top, C's two tops stay 0.69 nats below.
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharex=True)
for ax, name, i in zip(axes, "AC", (0, 2)):
    bound = bounds[:, best[i, 1], i]
    ax.axhline(log_p[i], color="C0", lw=3, label="log p(x)")
    ax.plot(means, bound, color="C1", lw=3, label="ELBO")
    ax.fill_between(means, bound, log_p[i], color="grey", alpha=0.25, label="KL(q || p(z|x))")
    ax.set(title=f"x = {name}", xlabel="the mean of q", ylabel="nats", xlim=(-3, 3), ylim=log_p[i] + [-5, 0.7])
figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper");

# %% [markdown]
# The three terms add up to $\log p(x)$ in each row of the table. In the picture we slide $q$ along. Wherever it is, the
# ELBO stays below $\log p(x)$, and the grey height is how wrong $q$ is. For A the bound touches. For C it can't:
# of two equal humps one is missed, which costs $\log 2 = 0.69$ nats.
#
# ## 4. A VAE by hand
#
# For each $x$ we searched for a $\mu$ and a $\sigma$. A VAE trains a network to do that, the **encoder**: it gives
# $\mu(x)$ and $\log \sigma^2(x)$ for any $x$ at once, $\Sigma$ being the diagonal matrix of $\sigma^2$. Its weights are called
# $\phi$. The decoder, too, is now learned, and it gives a mean (we write $\hat x$) and a variance ($\sigma_x^2$) as well.

# %%
#| alt: A drawing: x goes through the encoder, which gives mu and Sigma of z; z is drawn, goes through the decoder, which gives mu and Sigma of x.
diagrams.vae();

# %% [markdown]
# Both networks climb the same bound, summed over the data:
#
# $$ \theta^*, \phi^* = \arg\max_{\theta, \phi} \sum_i \Big( \mathbb E_{q_\phi(z \mid x_i)}[\log p_\theta(x_i \mid z)]
#    - \mathrm{KL}\big(q_\phi(z \mid x_i) \,\Vert\, p(z)\big) \Big) . $$
#
# This is an autoencoder, with a lower bound for its loss and one trick to train it. Two things are needed beyond Keras.
#
# * **Sampling.** The first term is a mean over draws, and gradients must pass through them:
#   $z = \mu + \sigma \odot \varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$, where
#   $\sigma = \exp(\tfrac12 \log \sigma^2)$ is the *square root* of the variance. Notebook 05 is about this line.
# * **A `train_step`** that subtracts the KL, which for two normals is a formula:
#   $\mathrm{KL} = \tfrac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)$.
#
# On the right side of the drawing $x$ is drawn as well, $x \sim p(x \mid z)$. That is for making images. Training needs no
# such draw, and no trick for it: it scores the image that is there, by $\log p(x \mid z)$.
#
# The data are scikit-learn's digits. Each pixel is made black or white, so the decoder gives *logits*, and
# $p(x \mid z)$ is a product of Bernoulli probabilities, one a pixel. A black frame keeps the images apart in pictures.
# 297 images are kept for the test.

# %%
#| output
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
x = np.pad(digits.images[order] > 7, [(0, 0), (1, 1), (1, 1)]).astype("float32")[..., None]
train, test, labels = x[:1500], x[1500:], digits.target[order][1500:]
print("train", train.shape, "test", test.shape, "values", np.unique(x))


def networks():  # from one seed, hence with the same weights each time
    keras.utils.set_random_seed(0)
    sizes = {"shape": (10, 10, 1), "latent_dim": 2, "hidden": (128, 128)}
    return kvae.networks.dense_encoder(**sizes), kvae.networks.dense_decoder(**sizes)


# %%
class Sampling(keras.layers.Layer):
    def __init__(self, seed):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, z_mean, z_log_var):
        eps = keras.random.normal(keras.ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + keras.ops.exp(0.5 * z_log_var) * eps


# %%
class HandWrittenVAE(keras.Model):
    def __init__(self, encoder, decoder, seed):
        super().__init__()
        self.encoder, self.decoder, self.sampling = encoder, decoder, Sampling(seed)
        self.elbo = keras.metrics.Mean(name="elbo")

    def train_step(self, x):
        with tf.GradientTape() as tape:
            z_mean, z_log_var = self.encoder(x)
            logits = self.decoder(self.sampling(z_mean, z_log_var))
            log_likelihood = keras.ops.sum(x * logits - keras.ops.softplus(logits), axis=(1, 2, 3))
            kl = 0.5 * keras.ops.sum(z_mean**2 + keras.ops.exp(z_log_var) - 1 - z_log_var, axis=1)
            loss = -keras.ops.mean(log_likelihood - kl)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self.elbo.update_state(log_likelihood - kl)
        return {"elbo": self.elbo.result()}


# %% [markdown]
# Look at the sums: over pixels and over latents, never a mean. Only the batch is averaged. That is the whole
# algorithm. `kvae.VAE` is the same, with checks, streams, other distributions, saving and evaluation. If that is
# true, it must give the same numbers from the same weights, noise and batches.

# %%
#| alt: The ELBO over ten epochs: black dots of kvae.VAE lie on the line of the model written by hand.
#| quick: EPOCHS, MORE_EPOCHS = 3, 12
EPOCHS, MORE_EPOCHS = 10, 60


def climbed(model):
    model.compile(keras.optimizers.Adam(1e-3))
    return model.fit(train, epochs=EPOCHS, batch_size=50, shuffle=False, verbose=0).history["elbo"]


vae = kvae.VAE(*networks(), likelihood="bernoulli", seed=0)
first, second = climbed(HandWrittenVAE(*networks(), seed=0)), climbed(vae)
ax = plt.subplots(figsize=(5.5, 2.6))[1]
ax.plot(first, color="C1", lw=7, alpha=0.5)
ax.plot(second, "ko")
ax.set(xlabel="epoch, from 0", ylabel="ELBO, nats per image", title="By hand (line) and by kvae.VAE (dots)");
#| check
assert np.allclose(first, second, atol=0.02)

# %% [markdown]
# The dots lie on the line: some twenty lines of Keras and `kvae.VAE` climb the same bound, step by step.
#
# ## 5. Brute force once more: the digits' posteriors
#
# We let `kvae.VAE` go on, now with shuffled batches. Its $z$ has two numbers, so that a grid still works: 241 x 241
# points, all decoded once. That gives the exact $\log p(x)$ and the exact posterior of every test image, for the
# decoder as it is now, and with them all three terms.

# %%
vae.fit(train, epochs=MORE_EPOCHS, batch_size=50, verbose=0)
q = vae.posterior(test)
axis, step = np.linspace(-6, 6, 241, retstep=True)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
log_prior = norm.logpdf(grid).sum(axis=1)
logits = vae.decoder.predict(grid, batch_size=8192, verbose=0).reshape(len(grid), -1)
log_dark = -np.logaddexp(0, logits).sum(axis=1)  # log p(x|z) of an image without a white pixel


def joint_and_q(i):  # log p(x|z) + log p(z), and log q(z|x), of test image i for every z of the grid
    return log_dark + logits @ test[i].ravel() + log_prior, norm.logpdf(grid, q.mean[i], q.stddev[i]).sum(axis=1)


# %%
terms = np.array([three_terms(*joint_and_q(i), log_prior, step**2) for i in range(len(test))])
log_p, reconstruction, kl, gap = terms.T
print("log p(x) {:.2f} = reconstruction {:.2f} - KL to p(z) {:.2f} + KL to p(z|x) {:.2f}".format(*terms.mean(axis=0)))
#| check
assert np.allclose(reconstruction - kl + gap, log_p, atol=0.01) and gap.min() > -0.01
assert np.allclose(kl, vae.draw(test).kl_loss, atol=0.02)  # kvae's formula against the grid

# %%
#| alt: The posteriors of three digits in blue with the ellipses of q in orange: overlapping for the typical one, apart for the worst.
figure, axes = plt.subplots(1, 3, figsize=(10, 3.5))
for ax, name, i in zip(axes, ("typical", "one in ten", "the worst"), np.argsort(gap)[[148, 267, 296]]):
    joint, log_q = (values.reshape(241, 241) for values in joint_and_q(i))
    ax.pcolormesh(axis, axis, np.exp(0.5 * (joint - joint.max())), cmap="Blues", rasterized=True)
    ax.contour(axis, axis, log_q - log_q.max(), [-2, -0.5], colors="C1", linestyles="-", linewidths=2.5)
    seen = grid[(np.maximum(joint - joint.max(), log_q - log_q.max()) > -4).ravel()]
    middle, half = (seen.min(axis=0) + seen.max(axis=0)) / 2, 0.7 * np.ptp(seen, axis=0).max()
    ax.set(xlim=middle[0] + [-half, half], ylim=middle[1] + [-half, half], aspect="equal")
    ax.set(title=f"{name}: {gap[i]:.1f} nats", xlabel="z0", ylabel="z1")
    ax.inset_axes([0.76, 0.76, 0.23, 0.23], xticks=[], yticks=[]).imshow(test[i, ..., 0], "gray")

# %% [markdown]
# Blue is $p(z \mid x)$ (its square root, so that faint parts show), the ellipses are one and two $\sigma$ of
# $q(z \mid x)$, and the numbers are $\mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$. The images were picked by their gap: the
# median, one that a tenth of the images exceed, and the largest. For the typical image $q$ lies in the right place, and
# only the shape differs: a diagonal $\Sigma$ can't be tilted. For the worst the encoder, which has never seen this image,
# puts $q$ where little of the posterior is. The ELBO pays for every such error.
#
# ## 6. Closing in on log p(x)
#
# With ten latents a grid is hopeless: 241 points a latent are $241^{10}$, and a computer that decodes a million of them a
# second needs 20 billion years. More draws are the way out. Take $k$ of them from $q(z \mid x)$, with
# the weights $w_i = p(x \mid z_i)\, p(z_i) / q(z_i \mid x)$:
#
# $$ \text{ELBO} \;\le\; \mathbb E\left[\log \frac1k \sum_{i=1}^k w_i\right] \;\le\; \log p(x) . $$
#
# The middle is the ELBO at $k = 1$ and rises with $k$ towards $\log p(x)$. `kvae.evaluation.log_likelihood` computes
# it, and `found.curve` is this bound for each $k$. Here the grid tells where it has to go.

# %%
#| alt: The k-sample bound rises with k from the ELBO towards the line of log p(x), and stays below it.
#| quick: SAMPLES = 500
SAMPLES = 5_000
found = kvae.evaluation.log_likelihood(vae, test, samples=SAMPLES, verbose=False)
counts, curve = np.transpose(list(found.curve.items()))
ax = plt.subplots(figsize=(6, 3.2))[1]
ax.axhline(log_p.mean(), color="C0", lw=3, label="log p(x), by quadrature")
ax.semilogx(counts, curve, "o-", color="C1", lw=2.5, label="k-sample bound (k = 1: ELBO)")
ax.set(xlabel="k, the draws from q(z|x)", ylabel="nats per image", title="Mean over the test images")
ax.legend(loc="center right")
missing = log_p.mean() - curve
print(f"missing to log p(x): {missing[0]:.2f} nats with one draw, {missing[-1]:.2f} with {found.samples}")
#| check
assert np.all(np.diff(missing) < 0.01) and -0.02 < missing[-1] < 0.4 * missing[0]

# %% [markdown]
# One draw gives the ELBO. The more draws, the closer the orange curve comes to the blue line, from below. The last bit
# comes slowly: it belongs to images such as the worst one above, where $q$ rarely draws a $z$ that counts.
#
# ## 7. The plane of codes
#
# Two latents can be looked at as a whole. Each tile is a point $z$ of the plane, decoded.

# %%
#| alt: A grid of 12 x 12 decoded codes: one digit turns into the next along every row and column.
kvae.plots.manifold(vae, size=12, ax=plt.subplots(figsize=(5.2, 5.2))[1]).set(title="", xticks=[], yticks=[]);

# %%
#| alt: The codes of the test images as digits in the plane, equal digits together, within the rings of the prior.
means = vae.transform(test)
ax = plt.subplots(figsize=(5.6, 5.6))[1]
for code, label in zip(means, labels):
    ax.text(*code, str(label), color=plt.cm.tab10(label), ha="center", va="center", fontsize=8)
for share in (0.5, 0.95):
    radius = (-2 * np.log(1 - share)) ** 0.5
    ax.add_patch(plt.Circle((0, 0), radius, fill=False, color="C0", lw=2))
ax.set(xlim=(-3.8, 3.8), ylim=(-3.8, 3.8), aspect="equal", xlabel="z0", ylabel="z1")
inside = np.mean(np.sum(means**2, axis=1) < radius**2)
print(f"{inside:.0%} of the codes are in the larger ring, which holds 95 % of the prior")

# %% [markdown]
# Along any path through the first picture one digit turns into the next without a jump. (The steps are equal in
# probability, not in $z$.) In the second, each figure stands at the code $\mu(x)$ of a test image: equal digits lie
# together, though the model was never told a label. The rings hold 50 and 95 % of the prior. With two latents the codes
# stay roughly within them, and most $z$ drawn from the prior decode to a digit. With more latents that can fail badly:
# notebook 06 shows it, and [notebook 10](10_back_to_the_sprites.ipynb) mends it.
#
# ## Summary
#
# 1. $p(x)$ and $p(z \mid x)$ need an integral over all $z$. A grid gives it for one or two latents, and no more.
# 2. For any $q$, $\;\log p(x) = \text{ELBO} + \mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$. Raising the ELBO raises
#    $\log p(x)$, or brings $q$ closer to the posterior, or both.
# 3. A VAE is an encoder, a decoder, one line of sampling and two terms. More draws for each image close in on what the
#    ELBO misses.
#
# ## Exercises
#
# 1. Write `kl`, the KL of `train_step`, with numpy.

# %%
#| output
def kl(z_mean, z_log_var):  # arrays (n, d)
    ...  # TODO: n numbers, in nats


exercises.kl(kl)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def kl(z_mean, z_log_var):
#     return 0.5 * np.sum(z_mean**2 + np.exp(z_log_var) - 1 - z_log_var, axis=1)
# ```
# </details>
#
# 2. Write `k_sample_bound`, the bound of section 6 for each image, from the logarithms of its weights. Mind that they may
#    be near -2000.

# %%
#| output
def k_sample_bound(log_w):  # an array (n, k): log w of k draws for each of n images
    ...  # TODO: n numbers


exercises.k_sample_bound(k_sample_bound)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def k_sample_bound(log_w):
#     return logsumexp(log_w, axis=1) - np.log(log_w.shape[1])
# ```
# </details>
#
# 3. Give the networks and the VAE `posterior_family=kvae.posteriors.FullNormal()`, whose ellipses may be tilted. Which of
#    the three images of section 5 does it help? (In `joint_and_q`, $\log q$ is then
#    `q.pairwise_log_prob(grid.astype("float32"))[:, i]`.)
#
# ## References
#
# - M. Jordan, Z. Ghahramani, T. Jaakkola, L. Saul. [*An introduction to variational methods for graphical
#   models.*](https://doi.org/10.1023/A:1007665907178) 1999.
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - D. Rezende, S. Mohamed, D. Wierstra. [*Stochastic backpropagation and approximate inference in deep generative
#   models.*](https://arxiv.org/abs/1401.4082) 2014.
# - Y. Burda, R. Grosse, R. Salakhutdinov. [*Importance weighted autoencoders.*](https://arxiv.org/abs/1509.00519) 2016.
# - C. Cremer, X. Li, D. Duvenaud. [*Inference suboptimality in variational
#   autoencoders.*](https://arxiv.org/abs/1801.03558) 2018.
