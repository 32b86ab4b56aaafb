# %% [markdown]
# # Can an autoencoder make new images?
#
# **After this notebook you can**
# - draw codes for an autoencoder's decoder, and see what goes wrong;
# - use an autoencoder's code as features, where labels are few;
# - measure how far a picture is from the nearest image that there could be;
# - find the holes in a code, and say what a model needs so that it can generate.
#
# **Time:** two to three minutes on two cores. **Data:** `sprites`, small colour pictures of one shape each, and
# `drawn_digits`, drawn on your machine the first time, so nothing is downloaded.

# %%
#| setup
import keras
import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from kvae import exercises
from kvae.data.sprites.render import RANGES, render
from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. An autoencoder compresses
#
# An autoencoder learns two networks with one aim, a small squared error:
#
# $$ z = \mathrm{encoder}(x), \qquad \hat x = \mathrm{decoder}(z), \qquad
#    \min\; \mathbb E \lVert x - \hat x \rVert^2 . $$
#
# | symbol | in kvae |
# | --- | --- |
# | $z$, the code | `model.transform(x)` |
# | $\hat x$ | `model.reconstruct(x)` |
# | the decoder alone | `model.inverse_transform(z)` |
#
# A sprite has 32 x 32 x 3 = 3,072 values. We keep 32 numbers.

# %%
#| output
#| quick: EPOCHS = 12
#| quick: EXAMPLES = 5_000
SIZE, LATENT_DIM = 32, 32
EXAMPLES = 6_000
EPOCHS = 15
train, validation, test = kvae.data.load("sprites", 64, size=SIZE, examples=EXAMPLES)
shape = kvae.data.image_shape(train)
print(f"an image: {np.prod(shape):,} values; its code: {LATENT_DIM}, {np.prod(shape) // LATENT_DIM} times fewer")
keras.utils.set_random_seed(0)
networks = kvae.networks.conv_encoder, kvae.networks.conv_decoder
model = kvae.Autoencoder(*(network(shape, LATENT_DIM, filters=(16, 32, 64)) for network in networks))
schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train))
model.compile(kvae.optimizers.Adam(schedule))
model.fit(train, validation_data=validation, epochs=EPOCHS, verbose=0);

# %%
#| alt: Ten sprites and their reconstructions: the colours, places and shapes come back, a little blurred.
x_test = next(test.rebatch(100).as_numpy_iterator()) / np.float32(255)
error = model.evaluate(test, return_dict=True, verbose=0)["squared_error"]
blind = np.sum((x_test - x_test.mean(axis=0)) ** 2, axis=(1, 2, 3)).mean()
print(f"squared error of a test image: {error:.1f}; of the mean image in its place: {blind:.1f}")
kvae.plots.reconstructions(model, x_test, count=10).set_title("");
#| check
assert error < blind / 3

# %% [markdown]
# From 32 numbers the decoder gives back colour, place and shape of images that it has never seen. It has learned what
# sprites look like, from images alone: nobody told it a colour, a place or a shape. That makes the code useful.
#
# ## 2. What a code is good for: features
#
# Labels are expensive, images are not. Suppose there are thousands of unlabelled images and labels for 50 of them. Train
# the encoder on all images. Then fit a linear classifier to the *codes* of the 50. We try it on digits
# (`drawn_digits`), against the same classifier on the pixels and on PCA's code of the same size.

# %%
parts = kvae.data.load("drawn_digits", 10_000, labels="label", examples=10_000, shuffle=0)
(digits, labels), (digits_test, labels_test) = (next(iter(part)) for part in (parts[0], parts[2]))
digits, digits_test = (x.numpy() / np.float32(255) for x in (digits, digits_test))
keras.utils.set_random_seed(0)
pair = kvae.networks.conv_encoder, kvae.networks.conv_decoder
coder = kvae.Autoencoder(*(network((28, 28, 1), 16, filters=(16, 32)) for network in pair))
coder.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 4 * 157)))
coder.fit(digits, epochs=4, batch_size=64, verbose=0)  # without labels
pca = kvae.PCA(16).fit(digits, verbose=0)
features = {
    "784 pixels": lambda x: x.reshape(len(x), -1),
    "PCA's 16": pca.transform,
    "autoencoder's 16": coder.transform,
}


# %%
#| alt: Bars of the accuracy with 50 labels: pixels, PCA's code, the autoencoder's code, which is the highest.
def accuracy(code, trials=20):  # mean over draws of the 50 labelled images
    x, x_test, found = code(digits), code(digits_test), []
    for trial in range(trials):
        few = np.random.default_rng(trial).choice(len(x), 50, replace=False)
        classifier = LogisticRegression(max_iter=300).fit(x[few] / x.std(), labels.numpy()[few])
        found.append(classifier.score(x_test / x.std(), labels_test.numpy()))
    return np.mean(found)


scores = {name: accuracy(code) for name, code in features.items()}
ax = plt.subplots(figsize=(6, 1.9))[1]
ax.bar_label(ax.barh(list(scores), list(scores.values()), color=["0.6", "C4", "C1"]), fmt="%.2f", padding=3)
ax.set(xlabel="share of 1,000 test digits recognised, from 50 labels", xlim=(0, 1))
ax.invert_yaxis()
#| check
assert scores["autoencoder's 16"] > max(scores["784 pixels"], scores["PCA's 16"]) + 0.02

# %% [markdown]
# With few labels the best of the three is the code that was learned without any. Its numbers stand for what differs
# between images, so fifty examples tell more. So much for compressing. Can the decoder also draw *new* images?
#
# ## 3. Codes that nobody made
#
# The decoder takes any 32 numbers. To get a *new* image we need a new code, so we have to draw one at random. From
# which distribution? The autoencoder doesn't say: nothing in its loss asks how codes are distributed. We try two
# guesses, both fitted to the codes of the training images.
#
# - **Normal**: $z \sim \mathcal N(m, S)$, where $m$ and $S$ are the codes' mean and covariance.
# - **Uniform**: each number anywhere between its smallest and its largest value.

# %%
rng = np.random.default_rng(0)
codes = model.transform(train)
drawn = {
    "normal codes": rng.multivariate_normal(codes.mean(axis=0), np.cov(codes.T), 100).astype("float32"),
    "uniform codes": rng.uniform(codes.min(axis=0), codes.max(axis=0), (100, LATENT_DIM)).astype("float32"),
}
images = {"test images": x_test, "reconstructions": model.reconstruct(x_test)}
images |= {name: model.inverse_transform(z) for name, z in drawn.items()}

# %%
#| alt: Three grids of 25 pictures: reconstructions are clean shapes, normal codes give blobs and stumps, uniform codes give debris.
figure, panels = plt.subplots(1, 3, figsize=(9, 3.4))
for ax, name in zip(panels, list(images)[1:]):
    show_tiles(ax, images[name][:25], columns=5).set_title(name)

# %% [markdown]
# Left: decoded codes of test images, each one shape of one colour. Middle: normal codes give blobs, stumps and now and
# then two shapes at once. Right: uniform codes give debris. The decoder is the same in all three pictures. What
# differs is where its codes come from.
#
# ## 4. How far from the nearest sprite?
#
# "Looks broken" should be a number. We know all sprites: each is drawn from six factors, its shape, hue, scale,
# orientation and place. So for any picture we can search the one sprite that is nearest to it,
#
# $$ d(\hat x) = \min_{\text{factors}} \lVert \hat x - \mathrm{render}(\text{factors}) \rVert^2 . $$
#
# `kvae.evaluation.nearest_sprites` searches by trial: it starts from the best of a few thousand sprites and keeps what makes
# the distance smaller. A search may miss the best. Test images, which *are* sprites, show by how much.

# %%
distance = {name: kvae.evaluation.nearest_sprites(x)[1] for name, x in images.items()}
for name, values in distance.items():
    print(f"{name:<16} squared distance to the nearest sprite: {np.mean(values):5.1f}")
mean = {name: values.mean() for name, values in distance.items()}
#| check
assert mean["test images"] < mean["reconstructions"] / 2
assert mean["normal codes"] > 1.2 * mean["reconstructions"]
assert mean["uniform codes"] > 1.8 * mean["reconstructions"]

# %%
#| alt: Shares of the pictures below a distance: test images are nearest to the sprites, then reconstructions, normal codes, uniform codes.
ax = plt.subplots(figsize=(6, 3.2))[1]
for (name, values), colour in zip(distance.items(), ("grey", "C0", "C4", "C2")):
    ax.plot(np.sort(values), np.linspace(0, 100, len(values)), color=colour, label=name)
ax.set(xscale="log", xlabel="squared distance to the nearest sprite", ylabel="% of the pictures below")
ax.legend();

# %% [markdown]
# A curve farther to the right is worse. Grey is what the search itself misses. Reconstructions (blue) are nearest to
# the sprites, normal codes (violet) farther, uniform codes (red) farthest. And this is a *lenient* measure: a blurred
# spot has some sprite near it too.
#
# ## 5. Holes: a code that can be seen
#
# 32 dimensions can't be drawn. So we make simpler sprites: four shapes, any hue, one size and place. Shape and hue describe
# them, an autoencoder with a code of two numbers has room for all of them, and we can look at its whole plane.

# %%
def plain(shape, hue):
    fixed = {"scale": 0.6, "orientation": 0.0, "x": 0.5, "y": 0.5}
    return render({"shape": shape, "hue": hue, **{name: np.full(len(hue), fixed[name]) for name in fixed}}, size=24)


hues = rng.uniform(*RANGES["hue"], 2_000)
shapes = rng.integers(4, size=2_000)
small = plain(shapes, hues)
every = plain(np.repeat(range(4), 200), np.tile(np.linspace(*RANGES["hue"], 200), 4)) / np.float32(255)

# %%
keras.utils.set_random_seed(1)
networks = kvae.networks.dense_encoder, kvae.networks.dense_decoder
#| alt: The plane of codes, decoded on a grid, with the codes of the sprites as orange dots on four arcs; between and beyond the arcs are mixtures and odd colours.
sizes = (128, 64), (64, 128)
flat = kvae.Autoencoder(*(make((24, 24, 3), 2, hidden, "gelu") for make, hidden in zip(networks, sizes)))
flat.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, 40 * 32)))
flat.fit(small, epochs=40, batch_size=64, verbose=0)
kvae.plots.code_map(flat, small, size=14, ax=plt.subplots(figsize=(6.5, 6.5))[1]).set_title("");

# %% [markdown]
# Each orange dot is the code of a sprite, drawn on what the decoder makes of the plane. The codes form four arcs, one
# for each shape, and hue runs along them. All that the model ever saw is on these thin lines. Between two arcs the
# pictures are mixtures of two shapes. Beyond the arcs' ends, and in the corner round which they bend, are colours and
# forms that no sprite has. These are the *holes*: the decoder answers there too, but nothing ever told it what.
#
# For these sprites we can list all images that there are (four shapes, 200 hues), so the distance is exact up to the
# hues' steps.

# %%
def off(x):
    return cdist(x.reshape(len(x), -1), every.reshape(len(every), -1), "sqeuclidean").min(axis=1)


z = flat.transform(small)
low, high = z.min(axis=0), z.max(axis=0)
across, up = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 50).T
grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2).astype("float32")
far = off(flat.inverse_transform(grid))
relation = spearmanr(far, cdist(grid, z).min(axis=1))[0]
print(f"rank correlation of a code's distance from the codes, and its picture's from the sprites: {relation:.2f}")
#| check
assert relation > 0.3

# %%
#| alt: The plane of codes, coloured by the distance of each decoded picture to the nearest sprite: dark valleys along the codes, bright between and beyond them.
figure, ax = plt.subplots(figsize=(5.6, 4))
extent = (across[0], across[-1], up[0], up[-1])
drawing = ax.imshow(far.reshape(50, 50), origin="lower", extent=extent, aspect="auto", norm="log")
ax.scatter(*z.T, s=4, color="C1")
figure.colorbar(drawing, label="squared distance to the nearest sprite").outline.set_visible(False)
ax.set(xlabel="z0", ylabel="z1", title="How far from any sprite the plane decodes");

# %%
guesses = rng.multivariate_normal(z.mean(axis=0), np.cov(z.T), 500), rng.uniform(low, high, (500, 2))
held_out = plain(rng.integers(4, size=500), rng.uniform(*RANGES["hue"], 500))
pictures = [flat.reconstruct(held_out), *(flat.inverse_transform(guess.astype("float32")) for guess in guesses)]
means = [off(x).mean() for x in pictures]
print("distance: reconstructions {:.1f}, normal codes {:.1f}, uniform codes {:.1f}".format(*means))
#| check
assert means[1] > 2 * means[0] and means[2] > 2 * means[0]

# %% [markdown]
# Dark is close to a sprite, bright is far. The dark valleys run along the codes. Off them it soon gets brighter, and a
# random code falls off them: a line has no area, so a draw from the plane hits one with probability zero.
#
# Does it help to stay between codes that exist? We walk on a straight line from the code of one sprite to another's.

# %%
#| alt: Nine pictures between the code of a red and that of a violet heart, with their distances: the middle ones are patchy.
ends = flat.transform(plain(np.array([3, 3]), np.array(RANGES["hue"])))  # a red and a violet heart
walk = np.linspace(ends[0], ends[1], 9)
frames = flat.inverse_transform(walk)
ax = show_tiles(None, frames, columns=9)
ax.set_xticks(range(9), [f"{value:.1f}" for value in off(frames)])
ax.set_xlabel("squared distance to the nearest sprite");
#| check
assert off(frames)[2:-2].max() > 3 * off(frames)[[0, -1]].max()

# %% [markdown]
# Both ends are hearts. In between the walk leaves the arc and crosses the hole: patchy hearts of two dull colours,
# and no sprite is like that. A code in the middle of two good codes need not be good.
#
# ## 6. What is missing
#
# The decoder isn't at fault. If we give it codes close to known ones, it draws sprites. Back to the 32 numbers: we take
# the codes of training images and move each a little, by a tenth of the codes' standard deviation.

# %%
#| alt: Twenty pictures, each a clean shape of one colour: decoded codes of training images, moved a little.
known = rng.choice(codes, 100) + 0.1 * codes.std(axis=0) * rng.standard_normal((100, LATENT_DIM))
near = model.inverse_transform(known.astype("float32"))
mean["close to known codes"] = kvae.evaluation.nearest_sprites(near)[1].mean()
print({name: round(float(value), 1) for name, value in mean.items()})
show_tiles(None, near[:20], columns=10).set_title("Decoded: codes of training images, moved a little");
#| check
assert mean["close to known codes"] < 0.8 * mean["normal codes"]

# %% [markdown]
# These are sprites again, as good as the reconstructions. But they are hardly new: each is a training image, a little
# changed. To *generate*, a model needs what an autoencoder's loss never asks for:
#
# 1. a distribution $p(z)$ that we can draw from, fixed beforehand: the **prior**;
# 2. codes that fill this distribution, all of it, so that a draw doesn't fall in a hole;
# 3. a decoder trained on the *surroundings* of each code, and not on a single point.
#
# A variational autoencoder asks for all three at once. Its encoder gives a cloud of codes, $q(z \mid x)$, in place of a
# point, and pays for every cloud that is far from $p(z)$. That is the next notebook. How far it gets what it asks for is
# a question of its own: notebook 06 finds clouds that don't fill $p(z)$ after all, and
# [notebook 10](10_back_to_the_sprites.ipynb) comes back to the sprites with a cure.
#
# ## Summary
#
# 1. An autoencoder finds short codes, without labels, from which unseen images come back. They are good features.
# 2. Its codes lie where training put them, on thin sets with holes between. No simple distribution matches them.
# 3. Codes drawn at random decode to pictures that are far from every sprite. A code is not a distribution.
#
# ## Exercises
#
# 1. Write `nearest`, the squared distance of each picture to the nearest of some images.

# %%
#| output
def nearest(pictures, images):  # arrays (n, h, w, c) and (m, h, w, c)
    ...  # TODO: n numbers


exercises.nearest(nearest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest(pictures, images):
#     differences = pictures[:, None] - images[None]
#     return (differences**2).sum(axis=(2, 3, 4)).min(axis=1)
# ```
# </details>
#
# 2. Write `draw_codes`: new codes from the normal distribution that is fitted to given codes.

# %%
#| output
def draw_codes(codes, count):  # codes: an array (n, d)
    ...  # TODO: an array (count, d), another one in each call


exercises.draw_codes(draw_codes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def draw_codes(codes, count):
#     return np.random.multivariate_normal(codes.mean(axis=0), np.cov(codes.T), count)
# ```
# </details>
#
# 3. Set `LATENT_DIM = 8`. Which gets better, which gets worse: reconstructions, or decoded normal codes? Why?
#
# ## References
#
# - G. Hinton, R. Salakhutdinov. [*Reducing the dimensionality of data with neural
#   networks.*](https://doi.org/10.1126/science.1127647) 2006.
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - P. Ghosh, M. Sajjadi, A. Vergari, M. Black, B. Schölkopf. [*From variational to deterministic
#   autoencoders.*](https://arxiv.org/abs/1903.12436) 2020.
