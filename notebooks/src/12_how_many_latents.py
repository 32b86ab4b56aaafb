# %% [markdown]
# # How many latents does a model need?
#
# **After this notebook you can**
# - choose the number of latents by $\log p(x)$ of unseen images, with the error that belongs to the question;
# - say why PCA's spectrum answers another question;
# - find the latents of a variational autoencoder (VAE) that say next to nothing, and say what they cost.
#
# **Time:** two to three minutes on two cores. **Data:** `sprites` of 16 x 16 pixels, each drawn from six numbers, with
# noise added. So the answer is known. They are drawn on your machine the first time, and nothing is downloaded.

# %%
#| setup
import keras
import numpy as np

from kvae import exercises
from kvae.plots.canvas import show_tiles

# %%
#| output
#| quick: EPOCHS = 8
#| alt: Two rows of sixteen sprites of 16 x 16 pixels, one coloured shape each: clean above, grainy below.
SIZES = 1, 2, 3, 4, 6, 8, 12, 24  # numbers of latents to try
NOISE, BATCH = 0.1, 100
EPOCHS = 16
train, _, test = kvae.data.load("sprites", 10_000, size=16, examples=10_000, shuffle=0)
train, clean = (next(iter(part)).numpy() / np.float32(255) for part in (train, test))
clean = clean[:300]
rng = np.random.default_rng(0)
train, test = ((x + NOISE * rng.standard_normal(x.shape)).astype("float32") for x in (train, clean))
print(f"{len(train):,} images of {train.shape[1:]}, {len(test)} to test")
show_tiles(None, np.concatenate([clean[:16], test[:16]]), 16);

# %% [markdown]
# ## 1. What PCA's spectrum says
#
# An image has 768 values. It was drawn from six numbers, a shape, a hue, a size, an angle and two for the place, and then
# noise with a standard deviation of 0.1 came on top, as from a camera. So six numbers say all that can be said of it.
#
# The classical way to find such a number is PCA's spectrum. Order the axes by the variance of the data along them, and
# look for an elbow, or count the axes that stand out of the noise.

# %%
#| alt: The variance along PCA's axes, falling smoothly without an elbow at six, far above the line of the noise for dozens of axes.
variances = np.linalg.eigvalsh(np.cov(train.reshape(len(train), -1).T))[::-1]
above = int(np.sum(variances > 2 * NOISE**2))
ax = plt.subplots(figsize=(6.5, 2.8))[1]
ax.semilogy(np.arange(1, 151), variances[:150], color="C4", label="variance along PCA's axes")
ax.axhline(NOISE**2, color="grey", ls=":", label="variance of the noise")
ax.axvline(6, color="C0", ls="--", label="six, the numbers behind a sprite")
ax.set(xlabel="axis", ylabel="variance")
ax.legend()
print(f"{above} axes have more than twice the variance of the noise")
#| check
assert above > 25 and variances[5] / variances[6] < 1.5

# %% [markdown]
# No elbow at six, and dozens of axes stand out. A shape that moves isn't a straight line in the space of pixels. It is a
# curve that bends through ever new axes, and PCA has only straight ones. Its spectrum counts how many *straight* numbers
# the images need.
#
# ## 2. What log p(x) says
#
# So ask the model that will use the code. Train a VAE of each size, and see which one gives unseen images the highest
# density. The ELBO would do for a first look, but its gap differs from model to model. So we take $\log p(x)$ as
# `kvae.evaluation.log_likelihood` estimates it, with 200 draws of $z$ for each image.


# %%
def trained(latent_dim, seed=0):
    keras.utils.set_random_seed(seed)
    encoder = kvae.networks.dense_encoder(train.shape[1:], latent_dim, hidden=(256, 128))
    decoder = kvae.networks.dense_decoder(train.shape[1:], latent_dim, hidden=(128, 256))
    model = kvae.VAE(encoder, decoder, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train) // BATCH)
    model.compile(kvae.optimizers.Adam(schedule))
    model.fit(train, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def score(model):  # log p(x) of each test image
    return kvae.evaluation.log_likelihood(model, test, samples=200, verbose=0).values


models = {size: trained(size) for size in SIZES}
log_p = {size: score(model) for size, model in models.items()}
best = max(SIZES, key=lambda size: log_p[size].mean())
print("the largest log p(x):", best, "latents")
#| check
assert 4 <= best <= 12

# %% [markdown]
# Now the errors, and there are three of them.
#
# 1. **Over images.** Some images are easier than others, so the mean over 300 of them has a standard error. It is what
#    `log_likelihood` prints. It answers: how would the number change with *other images*?
# 2. **Over differences.** All models saw the *same* images, and an image that is hard for one is hard for all. So take the
#    difference image by image, and then its standard error. It answers: which of *these two models* is better?
# 3. **Over trainings.** Start from other random weights and train again. It answers: which *size* is better?

# %%
again = {size: score(trained(size, seed=1)) for size in SIZES[3:7]}  # the second training


def with_error(values):
    return values.mean(), values.std() / len(values) ** 0.5


print("latents    log p(x)           minus the best        second training minus the best")
for size in SIZES:
    line = "{:>7}{:10.1f} +- {:4.1f}".format(size, *with_error(log_p[size]))
    line += "{:14.1f} +- {:3.1f}".format(*with_error(log_p[size] - log_p[best]))
    second = "{:18.1f} +- {:3.1f}".format(*with_error(again[size] - log_p[best])) if size in again else ""
    print(line + second)
#| check
few, many = (with_error(log_p[size] - log_p[best]) for size in (2, 24))
assert few[0] < -3 * few[1] and many[0] < -2 * many[1]
assert with_error(log_p[best])[1] > 2 * with_error(log_p[6 if best != 6 else 8] - log_p[best])[1]

# %%
#| alt: Left, log p(x) over the number of latents with long error bars: it rises steeply, and at the top the bars overlap. Right, differences from the best with shorter bars, and hollow points of a second training: a flat top around eight, lower at both ends.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
mean, error = np.transpose([with_error(log_p[size]) for size in SIZES])
left.errorbar(SIZES, mean, 1.96 * error, fmt="o-", color="C0", capsize=4)
left.set(title="Over images: long bars", ylabel="log p(x), nats per test image")
mean, error = np.transpose([with_error(log_p[size] - log_p[best]) for size in SIZES])
right.errorbar(SIZES, mean, 1.96 * error, fmt="o-", color="C0", capsize=4, label="first training")
second = [with_error(again[size] - log_p[best])[0] for size in again]
right.plot(list(again), second, "o", mfc="none", mew=2, color="C1", ms=9, label="second training")
right.set(title="Image by image: short bars", ylabel="nats from the best", ylim=(2.2 * mean[-1] - 3, 4))
right.legend(loc="lower center")
for ax in (left, right):
    ax.set(xscale="log", xlabel="latents")
    ax.set_xticks(SIZES, SIZES)
    ax.minorticks_off()

# %% [markdown]
# Left, the bars are long, and those at the top overlap: by these errors nothing can be chosen there. Right, the same numbers,
# image by image. Too few latents cost many nats, too many cost some as well, and in between lies a plateau at or a little
# above the six numbers that are really there. On the plateau a second training can move a point as much as a step in size
# does. So the answer is a range, and the smallest size in it is a good choice.
#
# Mind one more thing: the estimate of $\log p(x)$ is itself a lower bound, and the more latents, the more draws it needs.
# Exercise 2 looks at that.
#
# ## 3. Latents that say next to nothing
#
# What does a VAE do with latents that it doesn't need? Each latent's share of the rate tells,
# $\mathrm{KL}(q(z_j \mid x) \Vert p(z_j))$, averaged over images.

# %%
#| alt: Bars of each latent's KL, largest first, for the best size and for 24 latents. With 24 the bars are lower and fall on and on, and the last latents carry almost nothing.
figure, panels = plt.subplots(1, 2, figsize=(9.5, 2.7), sharey=True)
kl = {}
for ax, size in zip(panels, (best, 24)):
    terms = models[size].draw(test, index=np.arange(len(test))).kl
    kl[size] = np.sort(np.mean(terms, axis=0))[::-1]
    ax.bar(np.arange(1, size + 1), kl[size], color="C0")
    ax.set(title=f"{size} latents: {kl[size].sum():.1f} nats in all", xlabel="latents, the busiest first", xlim=(0, 25))
panels[0].set_ylabel("KL to the prior, nats")
print(f"of 24 latents {np.sum(kl[24] < kl[24][0] / 4)} carry less than a quarter of what the first one does")
#| check
assert kl[24][12:].mean() < kl[best].mean() and kl[24].sum() < 24 / best * kl[best].sum()
if EPOCHS == 16:
    assert kl[24][12:].mean() < 0.5 * kl[best].mean() and kl[24].sum() < 1.6 * kl[best].sum()

# %% [markdown]
# With 24 latents each one says less, and the last ones next to nothing: their $q(z_j \mid x)$ is almost the prior. Three
# times the latents don't carry three times the nats, since there is no more to say. A latent whose KL is 0 is called
# *inactive*, and the longer one trains, the more of them get there. So a VAE prunes its own code, which an
# autoencoder doesn't do. But the pruning isn't free. The encoder has to learn to say nothing, and the decoder to ignore the noise. That is
# the loss on the right of the curve. "Take plenty, the model will sort it out" is half true: it does, and pays some nats.
#
# ## 4. What it looks like

# %%
#| alt: Rows of sprites: clean, noisy, then reconstructions from one, three and the best number of latents: a grey spot, then places and some colours, then place, colour and tilt; the noise is gone.
sizes = 1, 3, best
rows = [clean[:12], test[:12], *(models[size].reconstruct(test[:12]) for size in sizes)]
ax = show_tiles(None, np.concatenate(rows), 12)
ax.set_yticks(range(5), ["clean", "with noise", *(f"{size} latent{'s' * (size > 1)}" for size in sizes)])
far = [np.sum((model.reconstruct(test) - clean) ** 2, axis=(1, 2, 3)).mean() for model in models.values()]
#| check
assert far[0] > far[2] > far[SIZES.index(best)]

# %% [markdown]
# One latent can't hold a place and a colour at once. Three hold roughly where and which colour. The best size brings back place, colour,
# size and tilt, and not the noise. Noise can't be predicted from anything, so no latent gains by holding it. That is why
# the count stops. (Without noise it goes on much further: exercise 3.)
#
# ## Summary
#
# 1. PCA's spectrum counts straight axes. Images that move, turn and change colour need many of those, whatever number of
#    causes they have.
# 2. Choose by $\log p(x)$ of unseen images, by differences image by image, and train more than once: the answer is a range.
# 3. Latents beyond that say next to nothing: their KL falls towards 0. They cost little, but not nothing.
#
# ## Exercises
#
# 1. Write `paired`: by how many nats is model b better than model a, and with what standard error?

# %%
#| output
def paired(a, b):  # arrays (n,): log p(x) of the same images under two models
    ...  # TODO: (mean, standard error)


exercises.paired(paired)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def paired(a, b):
#     return np.mean(b - a), np.std(b - a) / len(a) ** 0.5
# ```
# </details>
#
# 2. Look at `kvae.evaluation.log_likelihood(model, test, samples=2_000).curve` for 4 and for 24 latents. Which one still
#    rises at the end? Does it change the choice?
# 3. Set `NOISE = 0.0`. Where is the best size now, and why does the learned variance have to do with it?
#
# <details><summary>Answer to 3</summary>
#
# Without noise nothing is unpredictable, and the learned variance follows the squared error down. The smaller it is, the
# more nats each remaining error costs, and so one more latent that takes a little error away pays. The best size is then
# larger than six, and depends on how long you train.
# </details>
#
# ## References
#
# - M. Tipping, C. Bishop. [*Probabilistic principal component analysis.*](https://doi.org/10.1111/1467-9868.00196) 1999.
# - Y. Burda, R. Grosse, R. Salakhutdinov. [*Importance weighted autoencoders.*](https://arxiv.org/abs/1509.00519) 2016.
# - B. Dai, Y. Wang, J. Aston, G. Hua, D. Wipf. [*Connections with robust PCA and the role of emergent sparsity in
#   variational autoencoder models.*](https://arxiv.org/abs/1706.05148) 2018. (Inactive latents.)
