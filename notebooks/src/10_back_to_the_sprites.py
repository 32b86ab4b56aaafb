# %% [markdown]
# # Back to the sprites: do new images need a better model, or a better prior?
#
# **After this notebook you can**
# - make new images with an autoencoder and with a variational autoencoder (VAE), and compare them by a number;
# - fit a prior to a trained VAE in seconds, with `kvae.fit_prior`;
# - check that new images are new, and say what a VAE has that an autoencoder with a fitted prior lacks.
#
# **Time:** three minutes on two cores. **Data:** `sprites`, small colour pictures of one shape each, drawn on your
# machine the first time, so nothing is downloaded.
#
# In the pictures of codes **blue** is the truth, the codes of images, and **orange** what stands in for it, a prior.

# %%
#| setup
import keras
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.mixture import GaussianMixture

from kvae import exercises
from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. An open question
#
# [Notebook 03](03_a_code_is_not_a_distribution.ipynb) drew codes for an autoencoder's decoder from a normal distribution.
# The new images came out broken, because nothing had asked the codes to follow that distribution.
# [Notebook 04](04_the_variational_autoencoder.ipynb) trained a model that does ask for it: a VAE pays, in nats, for codes
# that differ from its prior, $p(z) = \mathcal N(0, I)$. So are its new images better?
#
# We ask with 03's own measure, the squared distance of a picture to the nearest sprite that there can be. All models have
# the same two networks, the same images, the same training, and codes of ten numbers.

# %%
#| output
#| quick: EPOCHS = 8
EXAMPLES, LATENT_DIM, BATCH = 6_000, 10, 64
EPOCHS = 15
train, _, test = kvae.data.load("sprites", BATCH, size=32, examples=EXAMPLES)
shape = kvae.data.image_shape(train)
x_test = next(test.rebatch(200).as_numpy_iterator()) / np.float32(255)
print(f"{EXAMPLES:,} images of {shape}; {len(x_test)} to test")


def trained(kind, **parts):
    keras.utils.set_random_seed(0)
    pair = kvae.networks.conv_encoder, kvae.networks.conv_decoder
    model = kind(*(network(shape, LATENT_DIM, filters=(16, 32, 64)) for network in pair), **parts)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train))
    model.compile(kvae.optimizers.Adam(schedule))
    model.fit(train, epochs=EPOCHS, verbose=0)
    return model


autoencoder, vae = trained(kvae.Autoencoder), trained(kvae.VAE, seed=0)

# %%
COUNT = 100  # new images of each model


def distance(images):
    return kvae.evaluation.nearest_sprites(images[:COUNT])[1].mean()


def from_normal(codes):  # draws from the normal distribution with the codes' mean and covariance
    z = np.random.default_rng(0).multivariate_normal(codes.mean(axis=0), np.cov(codes.T), COUNT)
    return z.astype("float32")


codes = autoencoder.transform(train)
images = {"autoencoder": (autoencoder.reconstruct(x_test), autoencoder.inverse_transform(from_normal(codes)))}
images["VAE"] = vae.reconstruct(x_test), vae.sample(COUNT, seed=0)
far = {name: [distance(each) for each in pair] for name, pair in images.items()}
for name, (back, new) in far.items():
    print(f"{name:<12} distance to the nearest sprite: reconstructions {back:5.1f}, new images {new:5.1f}")
#| check
assert far["VAE"][0] < 1.1 * far["autoencoder"][0]
assert far["VAE"][1] > 1.8 * far["VAE"][0] and far["autoencoder"][1] > 1.4 * far["autoencoder"][0]

# %%
#| alt: Two rows of twelve reconstructions of the VAE, clean sprites, and two rows of its new images, wisps and pale spots.
rows = [x_test[:12], images["VAE"][0][:12], images["VAE"][1][:24]]
ax = show_tiles(None, np.concatenate(rows), 12)
ax.set_yticks(range(4), ["test images", "reconstructions", "new images", "new images"]);

# %% [markdown]
# No. The VAE gives back unseen images at least as well as the autoencoder, and yet its *new* images are wisps and pale
# spots. Both models share one fault: what they draw is much farther from a sprite than what they give back. The decoder
# is the same in both columns. Only its codes come from elsewhere.
#
# ## 2. Where the codes are
#
# Look at the codes. Blue are codes of training images, draws of $q(z \mid x)$. Orange are draws of the prior.

# %%
#| alt: Two planes of codes. Left, the blue codes reach far beyond the round orange cloud of the prior. Right, orange draws of a mixture lie on the blue codes.
x_train = next(train.rebatch(EXAMPLES).as_numpy_iterator())
z = vae.posterior(x_train).sample(seed=0).numpy()
across, up = np.argsort(z.std(axis=0))[-2:]  # the two latents that spread most
mixture = kvae.MixtureOfGaussians(components=100, covariance="full")
fitted = kvae.fit_prior(vae, train, mixture, seed=0)
panels = plt.subplots(1, 2, figsize=(8, 3.9), sharex=True, sharey=True)[1]
for ax, model, name in zip(panels, (vae, fitted), ("N(0, I), as trained", "a mixture, fitted")):
    prior = model.prior_distribution(2_000).sample(seed=0).numpy()
    ax.scatter(*z[:2_000, [across, up]].T, s=5, color="C0", label="codes of images")
    ax.scatter(*prior[:, [across, up]].T, s=5, color="C1", alpha=0.6, label="draws of the prior")
    ax.set(xlabel=f"z{across}", title=f"Prior: {name}")
panels[0].set_ylabel(f"z{up}")
radius = [np.median(np.linalg.norm(each, axis=1)) for each in (z, vae.prior_distribution(6_000).sample(seed=0))]
print("median distance from the middle, all ten numbers: codes {:.1f}, draws of N(0, I) {:.1f}".format(*radius))
panels[0].legend(loc="upper left", markerscale=3, fontsize=8);
#| check
spread = z.std(axis=0)[[across, up]]
again = fitted.prior_distribution(20_000).sample(seed=0).numpy()
assert spread.min() > 1.1 and np.allclose(again.std(axis=0)[[across, up]], spread, rtol=0.1)
assert radius[0] > 1.1 * radius[1]

# %% [markdown]
# Left: the codes don't do what the prior asks for. They spread wider. The bound lets them, since a nat that is lost on the
# prior is little beside the thousands of nats that a sharp reconstruction gains. In ten dimensions a wider cloud is
# mostly a *hollow* one: codes keep away from the middle, and the draws of $\mathcal N(0, I)$ are there. The decoder has
# seen few codes in that place, and it answers with a wisp.
#
# Training longer doesn't mend it: the prior stays a ball. But the prior need not be a ball. For given networks the bound
# asks for
#
# $$ \max_{p(z)} \; \mathbb E_x\, \mathbb E_{q(z \mid x)} \log p(z) , $$
#
# which is maximum likelihood, with codes as the data. Right: a mixture of 100 Gaussians, fitted in this way to the codes of
# the trained VAE. This is `kvae.fit_prior`: no network changes, so reconstructions stay as they were.
#
# ## 3. Five priors
#
# Two more ways to a prior that follows the codes: a normalizing flow, and a mixture that is learned *together* with the
# networks. And to be fair, the autoencoder gets a mixture as well.

# %%
flow = kvae.FlowPrior(kvae.flows.Coupling(steps=6, hidden=(64,)))
with_flow = kvae.fit_prior(vae, train, flow, seed=0)
together = trained(kvae.VAE, prior=kvae.MixtureOfGaussians(components=50), seed=0)
codes_mixture = GaussianMixture(100, tol=0.02, reg_covar=1e-3, random_state=0).fit(codes)
drawn = codes_mixture.sample(COUNT)[0].astype("float32")
vaes = {"VAE, N(0, I)": vae, "VAE, mixture fitted": fitted, "VAE, flow fitted": with_flow}
vaes["VAE, mixture from the start"] = together
images = {"autoencoder, normal": images["autoencoder"]}
images["autoencoder, mixture"] = images["autoencoder, normal"][0], autoencoder.inverse_transform(drawn)
images |= {name: (model.reconstruct(x_test), model.sample(COUNT, seed=0)) for name, model in vaes.items()}

# %% [markdown]
# Now the table. $\log p(x)$ of a test image is estimated by `kvae.evaluation.log_likelihood`: it is the bound of 200 draws,
# so "at least". It differs far more from image to image than from model to model. So the last column subtracts the first
# VAE's image by image, and gives the mean with its standard error.

# %%
bounds = {
    name: kvae.evaluation.log_likelihood(model, x_test, samples=200, verbose=0).values for name, model in vaes.items()
}
first, far, gain = bounds["VAE, N(0, I)"], {}, {}
print(f"{'squared distance of':<28} reconstr.  new images   log p(x)   gain of the prior, nats")
for name, pair in images.items():
    far[name] = [distance(each) for each in pair]
    line = "{:<28}{:11.1f}{:12.1f}".format(name, *far[name])
    if name in bounds:
        more = bounds[name] - first
        gain[name] = more.mean(), more.std() / len(more) ** 0.5
        line += "{:11.0f}{:+11.1f} +- {:.1f}".format(bounds[name].mean(), *gain[name])
    print(line)
#| check
assert np.allclose(far["VAE, mixture fitted"][0], far["VAE, N(0, I)"][0])
for name in ("VAE, mixture fitted", "VAE, flow fitted"):
    assert far[name][1] < 0.8 * far["VAE, N(0, I)"][1] and gain[name][0] > 2 * gain[name][1], name
assert far["VAE, mixture from the start"][1] < 0.9 * far["VAE, N(0, I)"][1]
assert far["autoencoder, mixture"][1] < 0.85 * far["autoencoder, normal"][1]
assert far["VAE, mixture fitted"][1] < 0.75 * far["autoencoder, normal"][1]
assert far["VAE, mixture fitted"][1] > far["VAE, N(0, I)"][0]
assert far["VAE, N(0, I)"][1] > 0.95 * far["autoencoder, normal"][1]

# %%
#| alt: Seven grids of 25 pictures. Reconstructions are clean. New images from normal priors are wisps and stumps; from mixtures and the flow most are whole shapes of one colour.
figure, panels = plt.subplots(2, 4, figsize=(9.5, 5.4))
shown = {"test images": x_test, "VAE, reconstructions": images["VAE, N(0, I)"][0]}
shown |= {name: pair[1] for name, pair in images.items()}
for ax, (name, tiles) in zip(panels.flat, shown.items()):
    show_tiles(ax, tiles[:25], columns=5)
    ax.set_title(name if name not in far else f"new: {name}\ndistance {far[name][1]:.1f}", fontsize=9)

# %% [markdown]
# The first two panels are what there is to reach, all others are new images. One decoder drew three of them, and what
# tells them apart is the prior. With $\mathcal N(0, I)$ the VAE is no better than the autoencoder with a normal. With a prior
# that follows the codes its new images are mostly whole shapes of one colour, and they beat both.
#
# Read the table with care, though:
#
# - The autoencoder gains by a mixture, too. **Whoever draws codes where codes are gets sprites**, with or without a
#   bound. What the autoencoder doesn't get is a $\log p(x)$, to compare models by and to notice a mixture that is too large.
# - The gain in nats is small, some nats among thousands, while the samples change completely. **$\log p(x)$ hardly sees
#   what a person sees at once.** It is right all the same: the density is better, and the prior is a small part of it.
# - The mixture from the start is a training of its own. Its networks differ from the others by luck, and so does its
#   $\log p(x)$. That luck can be more than a prior is worth here.
# - New images are still farther from the sprites than reconstructions. No mixture of 100 parts fits exactly.
#
# ## 4. Are they new?
#
# A prior with as many parts as there are images would draw good sprites: the training images. So look for the nearest
# training image of each new one, and compare with unseen images, which are new for sure.

# %%
#| alt: A row of twelve new images above a row of their nearest training images: alike, but not the same place, size or colour.
flat = x_train.reshape(EXAMPLES, -1) / np.float32(255)


def nearest(pictures):
    return cdist(pictures.reshape(len(pictures), -1), flat, "sqeuclidean")


new = images["VAE, mixture fitted"][1]
to_train = {"new images": nearest(new), "reconstructed test images": nearest(images["VAE, N(0, I)"][0][:COUNT])}
for name, found in to_train.items():
    print(f"{name:<26} squared distance to the nearest training image: {found.min(axis=1).mean():.1f}")
twins = x_train[to_train["new images"].argmin(axis=1)]
ax = show_tiles(None, np.concatenate([new[:12], twins[:12] / np.float32(255)]), 12)
ax.set_yticks([0, 1], ["new", "nearest in training"]);
#| check
closest = [found.min(axis=1).mean() for found in to_train.values()]
assert closest[0] > 0.8 * closest[1]

# %% [markdown]
# The nearest training image resembles the new one, but differs in place, size, turn, shape or colour. And new images are
# hardly nearer to the training images than reconstructions of *unseen* images are, if at all. They are new.
#
# ## Summary
#
# 1. A VAE with the prior $\mathcal N(0, I)$ can give back unseen images well and still draw worse new ones than an
#    autoencoder with a fitted normal: its codes don't fill the prior.
# 2. Fit the prior to the codes (`kvae.fit_prior`, seconds) and the same decoder draws sprites. $\log p(x)$ rises a
#    little, and reconstructions don't change.
# 3. An autoencoder's codes can be given a mixture as well. A density, a bound and a way to compare come with the VAE only.
#
# ## Exercises
#
# 1. Write `log_mixture`, the density that `fit_prior` maximises at the codes, here of a mixture of normals with a variance
#    for each number.

# %%
#| output
def log_mixture(z, weights, means, variances):  # arrays (n, d), (K,), (K, d), (K, d)
    ...  # TODO: n numbers, log p(z)


exercises.log_mixture(log_mixture)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def log_mixture(z, weights, means, variances):
#     squares = (z[:, None] - means) ** 2 / variances
#     parts = -0.5 * (squares + np.log(2 * np.pi * variances)).sum(axis=2)
#     return logsumexp(parts + np.log(weights), axis=1)
# ```
#
# `logsumexp` is that of `scipy.special`.
# </details>
#
# 2. Fit mixtures of 1, 10, 100 and 1,000 components. Which has the largest $\log p(x)$ of test images, which the smallest
#    distance, and which draws the training images again?
# 3. Fit the prior by hand: a `GaussianMixture` of scikit-learn on draws of $q(z \mid x)$, and on the means of
#    $q(z \mid x)$ alone. Why is the second not the prior that the bound asks for?
#
# <details><summary>Answer to 3</summary>
#
# The bound scores $\log p(z)$ at *draws* of $q(z \mid x)$. The means alone spread less, by the average variance of the
# posteriors. So their mixture is too narrow, and the posteriors reach beyond it and pay for that.
# </details>
#
# ## References
#
# - P. Ghosh, M. Sajjadi, A. Vergari, M. Black, B. Schölkopf. [*From variational to deterministic
#   autoencoders.*](https://arxiv.org/abs/1903.12436) 2020. (A mixture for an autoencoder's codes.)
# - B. Dai, D. Wipf. [*Diagnosing and enhancing VAE models.*](https://arxiv.org/abs/1903.05789) 2019. (A second stage.)
# - J. Tomczak, M. Welling. [*VAE with a VampPrior.*](https://arxiv.org/abs/1705.07120) 2018.
# - L. Dinh, J. Sohl-Dickstein, S. Bengio. [*Density estimation using Real NVP.*](https://arxiv.org/abs/1605.08803) 2017.
