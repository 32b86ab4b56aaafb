# %% [markdown]
# # How does a gradient get through a random draw?
#
# **After this notebook you can**
# - say why a draw of $z$ has no slope, and name two ways round that;
# - measure how noisy each of the two is, and check that both are right on average;
# - say why the noise is multiplied by $\sigma$, the square root of the variance, and what happens otherwise.
#
# **Time:** about two minutes on two cores. **Data:** formulas with a known answer, then `sprites` of 16 x 16 pixels,
# drawn on your machine the first time, so nothing is downloaded.
#
# Where two gradients are compared, **violet** is the pathwise one (the reparameterization trick), **red** the score
# function's. Blue is the truth, as in all notebooks.

# %%
#| setup
import keras
import numpy as np
import tensorflow as tf
from scipy.stats import norm

from kvae import exercises
from kvae.plots import diagrams

# %% [markdown]
# ## 1. A draw has no slope
#
# The first term of a VAE's bound is a mean over draws, $\mathbb E_q[\log p(x \mid z)]$ with $z \sim q(z \mid x) =
# \mathcal N(\mu, \sigma^2)$. To train the encoder we need its slope in $\mu$ and $\sigma$. Take something simpler in
# place of $\log p(x \mid z)$, with an answer that we know:
#
# $$ f(z) = z^2, \qquad \mathbb E_q[f(z)] = \mu^2 + \sigma^2, \qquad \frac{d}{d\mu} \mathbb E_q[f(z)] = 2 \mu . $$
#
# A draw is a number. Which $\mu$ it was drawn with can't be seen in it, so automatic differentiation finds nothing.
# But write the draw as $z = \mu + \sigma \varepsilon$, $\;\varepsilon \sim \mathcal N(0, 1)$: then the randomness
# stands beside $\mu$, and $z$ is a plain function of $\mu$.

# %%
#| alt: Two drawings. Left, mu and sigma lead to a draw of z and on to f(z); the gradient can't pass the draw. Right, z is mu plus sigma times eps, the noise comes from beside, and the gradient passes.
diagrams.trick();

# %%
#| output
mu, sigma = tf.Variable(1.0), 0.5
rng = np.random.default_rng(0)
with tf.GradientTape(persistent=True) as tape:
    drawn = tf.constant(rng.normal(mu.numpy(), sigma), "float32") ** 2
    written = (mu + sigma * tf.constant(rng.normal(), "float32")) ** 2
print("slope of a draw:", tape.gradient(drawn, mu))
print("slope of mu + sigma * eps:", tape.gradient(written, mu) is not None)

# %%
#| alt: Two estimates of E[z squared] over the mean. Left, with new draws for each mean: jagged. Right, with the same eps: smooth. Both follow the dashed exact curve.
means = np.linspace(-2, 2, 81)
fresh, once = rng.normal(size=(81, 10)), rng.normal(size=10)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, eps, title in zip(axes, (fresh, once), ("new draws for each mean", "the same eps for each mean")):
    ax.plot(means, means**2 + sigma**2, "C0--", label="exact: mean² + sigma²")
    ax.plot(means, ((means[:, None] + sigma * eps) ** 2).mean(axis=1), color="C1", label="average of 10 draws")
    ax.set(title=title, xlabel="mean of q")
axes[0].set_ylabel("E[z²]")
axes[0].legend();

# %% [markdown]
# Both orange curves estimate the same dashed one. On the left each point has its own draws: the curve is jagged, and its
# slope at a point means nothing. On the right $\varepsilon$ is drawn once and $\mu$ moves the draws along: the curve is
# smooth, and it has a slope.
#
# ## 2. Two gradients, both right
#
# **Pathwise** (the reparameterization trick). The distribution of $\varepsilon$ doesn't depend on $\mu$, so the
# derivative goes inside the mean:
#
# $$ \frac{d}{d\mu} \mathbb E_q[f(z)] = \mathbb E_\varepsilon\left[\frac{d}{d\mu} f(\mu + \sigma \varepsilon)\right]
#  = \mathbb E_\varepsilon[f'(z)] . $$
#
# **Score function** (REINFORCE). Leave the draws alone, differentiate the density, and use $dq = q\; d\log q$:
#
# $$ \frac{d}{d\mu} \mathbb E_q[f(z)] = \int f(z)\, \frac{d q(z)}{d\mu}\, dz
#  = \mathbb E_q\left[f(z)\, \frac{d \log q(z)}{d\mu}\right] . $$
#
# It needs no derivative of $f$: it weighs each draw's score $d \log q / d\mu$ with how good the draw was.
# The same holds for $\log \sigma^2$, where the exact slope is $\sigma^2$.
#
# | symbol | in kvae |
# | --- | --- |
# | $\mu$, $\log \sigma^2$ | `z_mean`, `z_log_var` |
# | $z = \mu + \sigma \varepsilon$ | `kvae.Sampling()([z_mean, z_log_var])` |
# | $\log q(z)$ | `kvae.distributions.Normal(z_mean, z_log_var).log_prob(z)` |
#
# The function below gives both gradients, one estimate a row, from one draw each.


# %%
def gradients(f, z_mean, z_log_var, baseline=0.0):  # of E_q[f(z)]: pathwise, score function
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z_mean, z_log_var])
        z = kvae.Sampling(seed=0)([z_mean, z_log_var])
        log_q = kvae.distributions.Normal(z_mean, z_log_var).log_prob(tf.stop_gradient(z))
        pathwise = f(z)
        score = tf.stop_gradient(pathwise - baseline) * log_q
    return [np.stack(tape.gradient(each, [z_mean, z_log_var])) for each in (pathwise, score)]


# %%
COUNT, EXACT = 100_000, np.array([2 * 1.0, 0.5**2])  # the slopes in z_mean and z_log_var at mu = 1, sigma = 0.5
z_mean, z_log_var = tf.fill((COUNT, 1), 1.0), tf.fill((COUNT, 1), np.float32(np.log(0.25)))
toy = dict(zip(("pathwise", "score function"), gradients(lambda z: z[:, 0] ** 2, z_mean, z_log_var)))
for name, found in toy.items():
    found = found[..., 0]
    average, error = found.mean(axis=1), found.std(axis=1) / COUNT**0.5
    print(f"{name:<15} in z_mean {average[0]:.3f} +- {error[0]:.3f} (exact 2), variance {found[0].var():5.2f}")
    print(f"{'':<15} in z_log_var {average[1]:.3f} +- {error[1]:.3f} (exact 0.25), variance {found[1].var():.2f}")
#| check
for found in toy.values():
    average, error = found[..., 0].mean(axis=1), found[..., 0].std(axis=1) / COUNT**0.5
    assert np.all(np.abs(average - EXACT) < 5 * error)
assert abs(toy["pathwise"][0].var() / 1 - 1) < 0.1 and abs(toy["score function"][0].var() / 21.75 - 1) < 0.1

# %%
#| alt: Histograms of 100,000 estimates. The pathwise ones lie closely round the exact slope 2; the score function's peak at 0 and spread far.
ax = plt.subplots(figsize=(7, 3))[1]
for (name, found), colour in zip(toy.items(), ("C4", "C2")):
    ax.hist(found[0, :, 0], np.linspace(-4, 14, 145), density=True, alpha=0.6, color=colour, label=f"{name}, one draw")
ax.axvline(2, color="C0", ls="--", label="exact")
ax.set(xlabel="gradient in z_mean", ylabel="density", title="100,000 estimates of one number")
ax.legend();

# %% [markdown]
# Both average to the exact slope, within their standard errors: both are *unbiased*. But a pathwise estimate is close
# to 2, while most of the score function's are near 0 or have the wrong sign, and a few very large ones, some beyond the
# picture, make up for it. For this $f$ the variances are known too:
#
# $$ \text{pathwise: } 4 \sigma^2, \qquad
#    \text{score function: } \frac{\mu^4}{\sigma^2} + 14 \mu^2 + 15 \sigma^2 , $$
#
# which is 1 against 21.75 here, as measured.
#
# ## 3. It gets worse with size
#
# Now $z$ has $d$ numbers and $f(z) = \sum_j z_j^2$. What does the gradient in the first of them cost? The pathwise one
# sees $z_1$ only. The score function weighs it with the *whole* $f$, whose other terms are noise to it.
#
# One remedy: as $\mathbb E_q[d \log q / d\mu] = 0$, any constant $b$ may be taken off $f$ without a bias. Such a
# **baseline**, best near $\mathbb E_q[f]$, leaves only what differs from draw to draw.

# %%
sizes, rows = (1, 3, 10, 30, 100, 300), 5_000
variances = {"score function": [], "score function, baseline": [], "pathwise": []}
for d in sizes:
    means, log_vars = tf.fill((rows, d), 1.0), tf.fill((rows, d), np.float32(np.log(0.25)))
    pathwise, score = gradients(lambda z: tf.reduce_sum(z**2, axis=1), means, log_vars)
    better = gradients(lambda z: tf.reduce_sum(z**2, axis=1), means, log_vars, baseline=1.25 * d)[1]
    for found, values in zip((score, better, pathwise), variances.values()):
        values.append(found[0, :, 0].var())
plain, better, pathwise = map(np.array, variances.values())
#| check
assert plain[-1] > 100 * better[-1] > 10_000 and np.allclose(pathwise, 1, atol=0.15)

# %%
#| alt: Variance of one estimate over the size of z: the score function's rises steeply, with a baseline less so, the pathwise one stays at 1.
ax = plt.subplots(figsize=(6.5, 3.4))[1]
for (name, values), style in zip(variances.items(), ("C2o-", "C2o:", "C4o-")):
    ax.loglog(sizes, values, style, label=name)
ax.set(xlabel="d, the size of z", ylabel="variance of one estimate", title="Gradient in the mean of one latent")
ax.legend();

# %% [markdown]
# The solid red line rises with $d^2$, the dotted one, with $\mathbb E_q[f]$ as its baseline, still with $d$. The
# violet one stays at 1. The error of an average falls with the root of the draws; at $d = 300$ the score function needs
# hundreds of thousands of draws for what one pathwise draw gives, and more than a thousand with its baseline.
#
# What the pathwise gradient asks in return: $f$ must have a derivative, and $z$ must be a smooth function of noise.
# For a $z$ that jumps (a class, a coin) it is not there, and the score function is what remains.
#
# ## 4. Sigma is the square root of the variance
#
# The encoder gives `z_log_var` $= \log \sigma^2$. So $\sigma$ = `exp(0.5 * z_log_var)`. Forget the one half, and the
# noise is multiplied by the *variance*. Nothing fails: shapes fit, losses fall. But the draws aren't $q$'s any more,
# while the KL still is. What does it do? Take a model whose $\log p(x)$ is known:
#
# $$ p(z) = \mathcal N(0, 1), \quad p(x \mid z) = \mathcal N(z, \tfrac14), \quad p(x) = \mathcal N(0, \tfrac54), \quad
#    p(z \mid x) = \mathcal N(\tfrac45 x, \tfrac15) . $$

# %%
#| output
x, mu, v = 1.0, 0.8, np.geomspace(0.03, 1.5, 400)  # v: the variance that the encoder says
kl = 0.5 * (mu**2 + v - 1 - np.log(v))


def reported(variance):  # the "bound", where the draws of z have this variance: E[log p(x|z)] - KL
    return norm.logpdf(x, mu, 0.5) - variance / (2 * 0.25) - kl


right, wrong, log_p = reported(v), reported(v**2), norm.logpdf(x, 0, 1.25**0.5)
print(f"log p(x) {log_p:.3f}; highest bound with sigma {right.max():.3f}, with the variance {wrong.max():.3f}")
print(f"reached at a variance of {v[right.argmax()]:.2f} and {v[wrong.argmax()]:.2f}; the posterior's is 0.20")
#| check
assert right.max() <= log_p + 1e-9 and wrong.max() > log_p + 0.3

# %%
#| alt: Left, draws with sigma follow the density of q, draws with the variance crowd at the mean. Right, the bound with sigma touches log p(x), the one with the variance rises above it.
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
eps = np.random.default_rng(1).normal(size=20_000)
bins, drawn = np.linspace(-0.8, 2.8, 73), np.linspace(-0.8, 2.8, 200)
axes[0].hist(1 + 0.5 * eps, bins, density=True, color="C1", alpha=0.6, label="mean + sigma * eps")
axes[0].hist(1 + 0.25 * eps, bins, density=True, color="C2", alpha=0.6, label="mean + variance * eps")
axes[0].plot(drawn, norm.pdf(drawn, 1, 0.5), "C0", label="q(z) = N(1, 0.25)")
axes[0].set(title="Draws of z", xlabel="z", ylabel="density", ylim=(0, 2.6))
axes[1].semilogx(v, right, color="C1", lw=3, label="with sigma")
axes[1].semilogx(v, wrong, color="C2", lw=3, label="with the variance")
axes[1].axhline(log_p, color="C0", ls="--", label="log p(x)")
axes[1].set(title='What is reported as "ELBO"', xlabel="variance of q", ylabel="nats", ylim=(log_p - 1.5, log_p + 0.8))
for ax in axes:
    ax.legend(fontsize=8)

# %% [markdown]
# On the left the red draws crowd too close to the mean: where the variance is below 1, it is smaller than its square
# root. On the right, with $\sigma$, the ELBO touches $\log p(x)$ exactly where $q$ is the posterior. With the variance
# the reported number rises *above* what it should bound, by 0.37 nats for one latent, and more for each further one.
# A "better ELBO" may be a bug. The test that finds it: a model whose $\log p(x)$ is known.
#
# ## 5. The same on images
#
# Now $f$ is a decoder's $\log p(x \mid z)$, of sprites with 768 values. We train one VAE the usual way, pathwise, and
# twins of it whose encoder gets the score function's gradient. It takes one trick: the surrogate
#
# $$ \log p(x \mid z) + \big[\log p(x \mid z) - b\big] \cdot \big(\log q(z \mid x) - [\log q(z \mid x)]\big) , $$
#
# where $[\,\cdot\,]$ is a constant to the gradient, `tf.stop_gradient`, and so is $z$. Its value is
# $\log p(x \mid z)$; its slope in the encoder's weights is the score function's estimate. The baseline $b$ is the
# batch's average, or 0. (An image's own value is a 64th of that average, which makes the slope a 64th too small.) The
# KL is a formula, and the decoder's gradient needs no draw's slope: both stay as they are.

# %%
#| output
train, validation, test = kvae.data.load("sprites", 64, size=16, examples=2000, config_seed=1)
print(train.element_spec.shape, [len(part) for part in (train, validation, test)], "batches")


class ScoreFunctionVAE(kvae.VAE):
    baseline = 1.0  # 0.0: none

    def draw(self, x, samples=1, **keywords):
        draw = super().draw(x, samples, **keywords)
        z = tf.stop_gradient(draw.z[:, 0])
        log_p, log_q = self.log_likelihood(x, z), self.posterior(x).log_prob(z)
        weight = tf.stop_gradient(log_p - self.baseline * tf.reduce_mean(log_p))
        return draw._replace(log_likelihood=(log_p + weight * (log_q - tf.stop_gradient(log_q)))[:, None])


# %%
#| quick: EPOCHS = 5
EPOCHS = 20


def trained(kind, baseline=1.0):
    keras.utils.set_random_seed(0)
    sizes = {"shape": (16, 16, 3), "latent_dim": 6, "hidden": (256,)}
    networks = kvae.networks.dense_encoder(**sizes), kvae.networks.dense_decoder(**sizes)
    model = kind(*networks, likelihood=kvae.GaussianLikelihood(0.02), seed=0)
    model.baseline = baseline
    model.compile(keras.optimizers.Adam(1e-3))
    return model, model.fit(train, validation_data=validation, epochs=EPOCHS, verbose=0).history


vae, pathwise_run = trained(kvae.VAE)
scored, score_run = trained(ScoreFunctionVAE)
_, plain_run = trained(ScoreFunctionVAE, baseline=0.0)

# %%
#| alt: Eight sprites; the pathwise VAE gives back place and colour, its score-function twin rough places and few colours.
kvae.plots.reconstructions({"pathwise": vae, "score function": scored}, test, count=8).set_title("");

# %% [markdown]
# From the same networks, images and number of steps, the pathwise VAE gives back place and colour, if blurred. The
# twin, even with its baseline, has the rough place and few colours: its encoder has learned much less.
#
# ## 6. Both estimators, side by side
#
# Why? Take one test image, the VAE trained pathwise, and 5,000 draws of $z$. Each draw gives one estimate of
# $\frac{d}{d\mu_j} \mathbb E_q[\log p(x \mid z)]$ either way, here for the latent $j$ with the smallest $\sigma$.
# The baseline is now better than a batch's average: it is this image's own average of $\log p(x \mid z)$.

# %%
image = tf.cast(next(iter(test))[:1], "float32") / 255
q, copies = vae.posterior(image), tf.repeat(image, 5_000, axis=0)
z_mean, z_log_var = tf.repeat(q.mean, 5_000, axis=0), tf.repeat(q.log_var, 5_000, axis=0)


def f(z):
    return vae.log_likelihood(copies, z)


average = tf.reduce_mean(f(kvae.Sampling(seed=1)([z_mean, z_log_var])))
latent = int(np.argmin(q.log_var))
pathwise, plain = (each[0, :, latent] for each in gradients(f, z_mean, z_log_var))
better = gradients(f, z_mean, z_log_var, baseline=average)[1][0, :, latent]

# %%
for name, found in (("pathwise", pathwise), ("score function, baseline", better), ("score function", plain)):
    error = found.std() / 5_000**0.5
    print(f"{name:<25} {found.mean():8.2f} +- {error:6.2f}   variance {found.var():12,.0f}")
#| check
for found in (better, plain):
    assert abs(found.mean() - pathwise.mean()) < 5 * np.hypot(found.std(), pathwise.std()) / 5_000**0.5
assert plain.var() > 100 * better.var() and better.var() > 2 * pathwise.var()

# %%
#| alt: Left, distances of 5,000 estimates from the exact gradient: pathwise nearest, with baseline further, without far away. Right, validation losses of three trainings: pathwise lowest and smooth.
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
runs = {"score function": (plain, plain_run, "C2", ":"), "with baseline": (better, score_run, "C2", "-")}
runs["pathwise"] = (pathwise, pathwise_run, "C4", "-")
for name, (found, run, colour, style) in runs.items():
    bins = np.geomspace(0.1, 1e6, 71)
    axes[0].hist(abs(found - pathwise.mean()), bins, histtype="step", color=colour, ls=style, lw=2.5, label=name)
    axes[1].plot(range(1, len(run["val_loss"]) + 1), run["val_loss"], colour + style, lw=2.5, label=name)
axes[0].set(title="One gradient, 5,000 estimates of each kind", xscale="log", ylabel="estimates")
axes[0].set(xlabel="distance from the exact gradient")
axes[1].set(title="Training", xlabel="epoch", ylabel="loss (−ELBO), validation", ylim=(None, 200))
axes[1].xaxis.get_major_locator().set_params(integer=True)
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3);
#| check
assert pathwise_run["val_loss"][-1] < min(score_run["val_loss"][-1], plain_run["val_loss"][-1]) - 20

# %% [markdown]
# Left, further right is worse, on a logarithmic axis. The pathwise estimates lie nearest to the exact gradient (their
# own average stands for it), the score function's with the baseline up to a few times further off, those without one
# far away. Right, what it does to training: the violet loss falls steadily; the red ones stay above it and jump, when
# a few bad estimates throw the encoder off. Only the estimate of one gradient differs between these runs.
#
# ## Summary
#
# 1. A draw is a number without a slope. Written as $z = \mu + \sigma \varepsilon$, it is a function of $\mu$ and
#    $\sigma$.
# 2. Pathwise and score-function gradients are both right on average. The second is far noisier, and the more so the
#    larger $z$ and $x$ are; a baseline helps, but not enough.
# 3. $\sigma$ is the square root of the variance. With the variance in its place nothing fails, but the "bound" isn't
#    a bound any more.
#
# ## Exercises
#
# 1. Write `reparameterize`, the line in the middle of the right drawing.

# %%
#| output
def reparameterize(z_mean, z_log_var, eps):  # eps: standard normal, an array (n, d)
    ...  # TODO: draws of N(z_mean, exp(z_log_var))


exercises.reparameterize(reparameterize)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def reparameterize(z_mean, z_log_var, eps):
#     return z_mean + np.exp(0.5 * z_log_var) * eps
# ```
# </details>
#
# 2. Write `score_gradient`: it estimates $d / d\mu$ of $\mathbb E[f(z)]$ from draws of $\mathcal N(\mu, \sigma^2)$, and must
#    work for an $f$ that jumps.

# %%
#| output
def score_gradient(f, mu, sigma, z):  # z: an array of draws
    ...  # TODO: one number


exercises.score_gradient(score_gradient)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def score_gradient(f, mu, sigma, z):
#     score = (z - mu) / sigma**2  # d log q / d mu
#     return np.mean(f(z) * score)
# ```
# </details>
#
# 3. Section 2 has both variances for $f(z) = z^2$. With $\mu = 3$ and $\sigma = 0.5$, how many draws must the score
#    function average to be as sure as one pathwise draw?
#
# <details><summary>Answer</summary>
#
# $(3^4 / 0.25 + 14 \cdot 3^2 + 15 \cdot 0.25) / (4 \cdot 0.25) = 453.75$, so 454.
# </details>
#
# ## References
#
# - R. Williams. [*Simple statistical gradient-following algorithms for connectionist reinforcement
#   learning.*](https://doi.org/10.1007/BF00992696) 1992.
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - D. Rezende, S. Mohamed, D. Wierstra. [*Stochastic backpropagation and approximate inference in deep generative
#   models.*](https://arxiv.org/abs/1401.4082) 2014.
# - A. Mnih, K. Gregor. [*Neural variational inference and learning in belief
#   networks.*](https://arxiv.org/abs/1402.0030) 2014.
# - S. Mohamed, M. Rosca, M. Figurnov, A. Mnih. [*Monte Carlo gradient estimation in machine
#   learning.*](https://arxiv.org/abs/1906.10652) 2020.
