# %% [markdown]
# # What does the ELBO give away, and how do we get it back?
#
# **After this notebook you can**
# - say which two quantities a variational autoencoder (VAE) loses, and measure both in nats;
# - change the bound, the posterior $q(z \mid x)$ or the prior $p(z)$ of a model by one argument, with the same `fit`;
# - compare models by $\log p(x)$ with its error, and see why the ELBO alone is no judge between them.
#
# **Time:** three to four minutes on two cores. **Data:** `drawn_digits`, 20,000 digits that look handwritten. They are
# drawn on your machine the first time, so nothing is downloaded and everybody sees the same images.
#
# In all pictures of the codes **blue** is the truth and **orange** what stands in for it.

# %%
#| setup
import keras
import numpy as np

from kvae.plots.canvas import show_tiles

# %%
#| quick: IMAGES, EPOCHS, BATCH = 5_000, 8, 100
#| quick: DRAWS = 200
#| output
#| alt: Two rows of twelve drawn digits, black and white.
IMAGES, EPOCHS, BATCH = 20_000, 8, 100
DRAWS = 1000  # of z for each test image, to estimate log p(x)
parts = kvae.data.load("drawn_digits", 20_000, examples=20_000, shuffle=0)
train, test = (np.round(next(iter(part)).numpy() / np.float32(255)) for part in (parts[0], parts[2]))
train, test = train[:IMAGES], test[:500]
print(test.shape, "to test; values:", np.unique(test))
show_tiles(None, test[:24], 12);

# %% [markdown]
# The images are black and white, so $p(x \mid z)$ is a product of Bernoulli probabilities, and $\log p(x)$ the
# logarithm of a probability. The codes have two latents. That is too few for a good model, and just right to look at.
#
# ## 1. Two things that the ELBO gives away
#
# A VAE maximises the evidence lower bound (ELBO). Two identities say how it falls short:
#
# $$ \log p(x) = \text{ELBO} + \mathrm{KL}\left(q(z \mid x) \,\Vert\, p(z \mid x)\right) , $$
#
# $$ \mathbb E_x\, \mathrm{KL}\left(q(z \mid x) \,\Vert\, p(z)\right)
#    = I(x; z) + \mathrm{KL}\left(q(z) \,\Vert\, p(z)\right), \qquad q(z) = \mathbb E_x\, q(z \mid x) . $$
#
# - The **gap** is there because $q(z \mid x)$ isn't the true posterior. It makes the ELBO a poor measure, and it makes
#   the decoder prefer simple posteriors to good images.
# - The **mismatch** is there because all codes together, the *aggregate posterior* $q(z)$, don't fill the prior. The
#   mutual information $I(x; z)$ is what a code has to cost. The mismatch is paid on top, for nothing, and is the reason
#   why samples can be worse than reconstructions (notebook 06).
#
# | symbol | in kvae |
# | --- | --- |
# | the gap, $I(x; z)$, the mismatch | `gap`, `mutual_information`, `aggregate_kl` in `kvae.evaluation` |
# | $q(z \mid x)$, $p(z)$, the bound | `kvae.VAE(..., posterior_family=, prior=)`, `compile(loss=)` |
#
# The function below makes and trains a model. One model is trained first. All others start from its two networks and
# go on, each with one argument changed, so that what differs between them is due to that argument and not to luck. A
# model with nothing changed goes on as well, under the name ELBO, so that none has seen more data than another.


# %%
def trained(prior=None, posterior_family=None, loss=None):
    keras.utils.set_random_seed(1)
    sizes = {"shape": train.shape[1:], "latent_dim": 2, "hidden": (200, 200)}
    pair = kvae.networks.dense_encoder(**sizes, posterior_family=posterior_family), kvae.networks.dense_decoder(**sizes)
    for network, weights in zip(pair, start):  # some posteriors have more weights: those are new
        network.set_weights(weights + network.get_weights()[len(weights) :])
    vae = kvae.VAE(*pair, "bernoulli", prior, posterior_family, seed=1)
    vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train) // BATCH)), loss)
    vae.fit(train, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return vae


# %%
start, models, found = [], {}, {}
vae = trained()
start = [vae.encoder.get_weights(), vae.decoder.get_weights()]


def add(name, **changed):
    models[name] = trained(**changed)
    found[name] = kvae.evaluation.elbo_decomposition(models[name], test, samples=DRAWS, verbose=False)


add("ELBO")
print(found["ELBO"])
#| check
assert found["ELBO"].gap.value > 2 * found["ELBO"].aggregate_kl.value > 0.2

# %%
#| alt: Left, the posterior of one digit in blue and the normal that stands in for it, two orange ellipses beside it or partly on it. Right, all codes in blue, crowded in places, and the round prior in orange.
first = found["ELBO"].likelihood
gaps = first.values - first.reconstruction + first.kl
one = int(np.argsort(gaps)[int(0.7 * len(test))])  # three images in ten have a larger gap
left, right = plt.subplots(1, 2, figsize=(8, 3.8))[1]
kvae.plots.posterior(models["ELBO"], test, index=one, ax=left)
kvae.plots.aggregate_posterior(models["ELBO"], train, count=5000, ax=right)
for ax in (left, right):
    ax.get_legend().remove()

# %% [markdown]
# Left, one test image. Blue is its true posterior $p(z \mid x)$, the orange ellipses hold 50 and 95 % of the normal
# $q(z \mid x)$ that stands in for it: this is where the gap comes from. Right, all images. Blue is $q(z)$, the orange
# rings are those of the prior. There are crowded places and empty ones, and the prior knows of neither: this is the
# mismatch. The gap is the larger of the two here. Let us take it first.
#
# ## 2. A better bound: more draws
#
# Take $k$ draws of $q(z \mid x)$ in place of one, with the weights $w_i = p(x \mid z_i)\, p(z_i) / q(z_i \mid x)$:
#
# $$ \text{ELBO} = \mathbb E \log w_1 \;\le\; \mathbb E \log \frac1k \sum_{i=1}^k w_i \;\le\; \log p(x) . $$
#
# `log_likelihood` uses this bound to *measure*, with many draws. The importance-weighted autoencoder (IWAE) *trains*
# on it. The `loss` is the argument that changes.

# %%
#| alt: Left, the k-sample bound of two models over k: the one trained on the IWAE starts far lower, crosses, and ends higher. Right, the posterior of the same image and a much wider q.
add("IWAE", loss=kvae.IWAE(samples=10, gradient="doubly_reparameterized"))
left, right = plt.subplots(1, 2, figsize=(9, 3.8))[1]
for name, colour in ("ELBO", "C4"), ("IWAE", "C2"):
    counts, curve = np.transpose(list(found[name].likelihood.curve.items()))
    left.semilogx(counts, curve, "o-", color=colour, label=f"trained on the {name}")
left.set(xlabel="k, the draws from q(z|x)", ylabel="nats per test image", title="The k-sample bound of both")
left.legend()
kvae.plots.posterior(models["IWAE"], test, index=one, ax=right)
right.set_title(f"The same image, IWAE: {right.get_title()}", fontsize=9)
right.get_legend().remove()
for name in models:
    print(f"{name}: gap {found[name].gap.value:.1f} nats, log p(x) {found[name].likelihood.mean:.1f}")
#| check
assert found["IWAE"].gap.value > 1.5 * found["ELBO"].gap.value

# %% [markdown]
# The curves cross. With one draw the IWAE is far worse, with many it is better, and where both are nearly flat, they
# are close to $\log p(x)$. Mind what has happened to the gap: it has *grown*. IWAE scores ten draws together, so single
# draws may miss. Its $q(z \mid x)$ is wider than it was and a worse stand-in for the posterior. In return it seldom
# misses the place with all ten, and the decoder no longer has to keep its posteriors simple: it is the decoder that has
# become better. **The ELBO of an IWAE is still a bound, but a poor score for the model.** Compare models by
# $\log p(x)$.
#
# ## 3. Better posteriors: more shapes
#
# The other way is to give $q(z \mid x)$ more shapes. `FullNormal` has a covariance matrix in place of variances: its
# ellipses may be tilted. `FlowPosterior` bends a normal by an invertible network, $z = f(u)$, and knows its density:
#
# $$ \log q(z \mid x) = \log \mathcal N(u; \mu, \sigma^2) - \log \left| \det \frac{\partial f}{\partial u} \right| . $$

# %%
#| alt: The posterior of the same image under three models, with the lines of a diagonal normal, a tilted normal, and a flow; each lies beside or across the blue posterior.
coupling = kvae.flows.Coupling(steps=4, hidden=(32,))
add("FullNormal", posterior_family=kvae.posteriors.FullNormal())
add("FlowPosterior", posterior_family=kvae.posteriors.FlowPosterior(coupling, context=16))
axes = plt.subplots(1, 3, figsize=(10, 3.6))[1]
for ax, name in zip(axes, ("ELBO", "FullNormal", "FlowPosterior")):
    kvae.plots.posterior(models[name], test, index=one, ax=ax)
    ax.set_title(
        f"{name}, this image: {ax.get_title().split('= ')[1]}\nall test images: {found[name].gap.value:.2f}",
        fontsize=10,
    )
    ax.get_legend().remove()
#| check
assert found["FlowPosterior"].elbo.value > found["ELBO"].elbo.value
assert found["FullNormal"].gap.value > 0.8 * found["ELBO"].gap.value
assert found["FlowPosterior"].gap.value > 0.5 * found["ELBO"].gap.value

# %% [markdown]
# The numbers are $\mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$ in nats. The full normal's ellipses may tilt, and the flow
# may bend. Yet the full normal's gap is hardly smaller, if at all, and even the flow's stays well above half of the
# plain normal's. Look at where the lines lie: much of a gap is not the shape of $q(z \mid x)$ but its place. One encoder
# has to guess the posterior of every image, and for images it was not trained on it often misses. This part is called
# the *amortization gap*, and no shape closes it. More images to train on do, and so do more draws when you measure.
#
# ## 4. Better priors: what the codes ask for
#
# For the mismatch there is a cure: let the prior come to the codes. Which prior has the largest bound? By the second
# identity $p(z) = q(z)$: the mismatch is then zero. That would be a mixture of as many normals as there are images.
# Three ways to something smaller:
#
# - `MixtureOfGaussians`: $p(z) = \sum_k \pi_k\, \mathcal N(z; m_k, S_k)$, all of it learned;
# - `VampPrior`: $p(z) = \frac1K \sum_k q(z \mid u_k)$, the posteriors of $K$ *pseudo-inputs*, which are learned
#   images;
# - `FlowPrior`: a normal that a flow bends.

# %%
#| alt: Two rows of twelve pseudo-inputs: digits with some noise in and around their strokes.
add("MixtureOfGaussians", prior=kvae.MixtureOfGaussians(components=20))
vamp = kvae.VampPrior(components=50)
vamp.build((None, 2), train.shape[1:])
vamp.start_at(train[:50])
add("VampPrior", prior=vamp)
add("FlowPrior", prior=kvae.FlowPrior(kvae.flows.Coupling(steps=6, hidden=(32,))))
show_tiles(None, vamp.pseudo_inputs.numpy()[:24], 12);

# %% [markdown]
# These are pseudo-inputs of the `VampPrior`. They began as 50 training images (`start_at`) and still look like them,
# but they have learned: noise has come to places where it makes $q(z \mid u)$ a better part of the prior.
#
# ## 5. The aggregate posterior against each prior

# %%
#| alt: Four planes of codes, blue, each with the lines of a prior in orange: a round one, and three that follow the outline of the codes.
axes = plt.subplots(2, 2, figsize=(8, 7.4), sharex=True, sharey=True)[1]
for ax, name in zip(axes.flat, ("ELBO", "MixtureOfGaussians", "VampPrior", "FlowPrior")):
    kvae.plots.aggregate_posterior(models[name], train, count=5000, ax=ax)
    prior = type(models[name].prior).__name__
    ax.set(xlim=(-5, 5), ylim=(-5, 5))
    ax.set_title(f"{prior}: mismatch {found[name].aggregate_kl.value:.2f} nats", fontsize=10)
    ax.get_legend().remove()
#| check
learned = [found[name].aggregate_kl.value for name in ("MixtureOfGaussians", "VampPrior", "FlowPrior")]
assert max(learned) < found["ELBO"].aggregate_kl.value

# %% [markdown]
# The standard normal is a disc, whatever the codes do. The learned priors bend to the outline of $q(z)$, and each has a
# smaller mismatch. The codes use the freedom, too: they spread beyond the old disc, since nothing keeps them in it any
# more. What is left of the mismatch is mostly fine grain: lumps of single images, which no smooth prior follows.
#
# ## 6. The table of bounds
#
# All seven models, on the same test images. $\log p(x)$ differs far more from image to image than from model to
# model. So the error of a mean over images is large, and the same for all. The *differences* are taken image by
# image, and their error is small. That is how two models should be compared.

# %%
gains = {}
print(f"{len(test)} test images, nats       ELBO   k = 10  log p(x)   above the first model's")
for name, part in ((name, found[name].likelihood) for name in models):
    gain = part.values - first.values
    gains[name] = gain.mean(), gain.std() / len(gain) ** 0.5
    numbers = part.elbo, part.curve[10], part.mean, *gains[name]
    print(f"{name:<20}" + "{:13.2f}{:9.2f}{:10.2f}{:+11.2f} +- {:.2f}".format(*numbers))
print(f"Over images the standard error of log p(x) is {first.standard_error:.2f} for the first model.")

# %%
#| output
for name in models:
    curve = found[name].likelihood.curve
    print(f"{name:<20} ELBO < k = 10 < log p(x):", curve[1] < curve[10] < found[name].likelihood.mean)
print("IWAE: lower ELBO, higher log p(x):", found["IWAE"].elbo.value < found["ELBO"].elbo.value, gains["IWAE"][0] > 0)
#| check
assert gains["IWAE"][0] > 3 * gains["IWAE"][1] and found["IWAE"].elbo.value < found["ELBO"].elbo.value

# %%
#| alt: For each model a grey bar from its ELBO to its log p(x). The IWAE's is the longest: it starts lowest and ends highest.
ax = plt.subplots(figsize=(8, 3.2))[1]
height = np.arange(len(models))
bounds = {k: [found[name].likelihood.curve[k] - first.mean for name in models] for k in (1, 10)}
mean, error = np.transpose(list(gains.values()))
ax.hlines(height, bounds[1], mean, color="lightgrey", lw=5)
ax.plot(bounds[1], height, "o", color="C1", ms=8, label="ELBO")
ax.plot(bounds[10], height, "^", color="C1", ms=8, label="k = 10")
ax.errorbar(mean, height, xerr=1.96 * error, fmt="D", color="C0", capsize=4, label="log p(x), 95 %")
ax.set_yticks(height, models)
ax.invert_yaxis()
ax.set(xlabel="nats per test image, from the first model's log p(x)", title="From the ELBO to log p(x)")
ax.legend(fontsize=8, loc="lower left");
#| check
if IMAGES == 20_000:
    assert max(gains, key=lambda name: gains[name][0]) == "IWAE"
    assert min(models, key=lambda name: found[name].elbo.value) == "IWAE"
    others = {name: gain for name, (gain, _) in gains.items() if name != "IWAE"}
    assert max(others, key=others.get) == "FlowPosterior" and max(map(abs, others.values())) < 2

# %% [markdown]
# The grey bars are the gaps. By the ELBO the IWAE is the worst model of the seven, and by $\log p(x)$ it is the best by
# far. The flow posterior comes second. The full normal and the learned priors are within about a nat of the first model,
# most of them within their error: a mismatch of less than a nat is not much to win. (With ten latents it costs the samples:
# [notebook 10](10_back_to_the_sprites.ipynb).) These errors count the images, not the luck of the training; several runs
# from other starts would show that, too.
#
# ## Summary
#
# 1. The ELBO gives away the gap, $\mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$, and pays for the mismatch,
#    $\mathrm{KL}(q(z) \Vert p(z))$. Both can be measured.
# 2. Training on more draws (`kvae.IWAE`) gives a better decoder, though a worse $q(z \mid x)$. More shapes
#    (`posterior_family=`) close only what of the gap is shape. A learned prior (`prior=`) shrinks the mismatch. Each is
#    one argument of the same model and the same `fit`.
# 3. Compare models by $\log p(x)$, image by image, with an error. The ELBO of an IWAE is a poor score for it.
#
# ## Exercises
#
# 1. The posterior of an image is one of the $K = 50$ components of a `VampPrior`, and the components don't overlap.
#    How many nats is $\mathrm{KL}(q(z \mid x) \Vert p(z))$?
# 2. Change two arguments at once, such as `trained(prior=kvae.VampPrior(50, 0.3, 0.3), loss=kvae.IWAE(10))`. Do the
#    gains add up?
# 3. Train the IWAE with `gradient="plain"` and 50 draws. What happens to $q(z \mid x)$, and what to $\log p(x)$?
#
# <details><summary>Answer to 1</summary>
#
# Where that component is, the other 49 are 0, so $p(z) = q(z \mid x) / 50$. The logarithm of the ratio is $\log 50 = 3.91$
# nats everywhere, and so is its mean.
# </details>
#
# ## References
#
# - Y. Burda, R. Grosse, R. Salakhutdinov. [*Importance weighted autoencoders.*](https://arxiv.org/abs/1509.00519) 2016.
# - T. Rainforth and others. [*Tighter variational bounds are not necessarily
#   better.*](https://arxiv.org/abs/1802.04537) 2018.
# - G. Tucker, D. Lawson, S. Gu, C. Maddison. [*Doubly reparameterized gradient estimators for Monte Carlo
#   objectives.*](https://arxiv.org/abs/1810.04152) 2019.
# - D. Rezende, S. Mohamed. [*Variational inference with normalizing flows.*](https://arxiv.org/abs/1505.05770) 2015.
# - L. Dinh, J. Sohl-Dickstein, S. Bengio. [*Density estimation using Real NVP.*](https://arxiv.org/abs/1605.08803) 2017.
# - M. Hoffman, M. Johnson. [*ELBO surgery: yet another way to carve up the variational evidence lower
#   bound.*](http://approximateinference.org/accepted/HoffmanJohnson2016.pdf) 2016.
# - J. Tomczak, M. Welling. [*VAE with a VampPrior.*](https://arxiv.org/abs/1705.07120) 2018.
# - C. Cremer, X. Li, D. Duvenaud. [*Inference suboptimality in variational
#   autoencoders.*](https://arxiv.org/abs/1801.03558) 2018.
