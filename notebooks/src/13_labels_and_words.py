# %% [markdown]
# # Images with labels, codes that are words: which VAE is good at what?
#
# **After this notebook you can**
# - draw an image of a label that you choose, with a conditional variational autoencoder (VAE), and use the same model the
#   other way round, to find the label of an image;
# - put one layer of latents above another, and see what each decides;
# - write an image as sixteen words of a dictionary, and draw new ones from a prior over such sentences.
#
# **Time:** three minutes on two cores. **Data:** `drawn_digits`, digits that look handwritten, with labels. They are
# drawn on your machine the first time, so nothing is downloaded and everybody sees the same images.

# %%
#| setup
import keras
import numpy as np
from keras import layers
from scipy.special import logsumexp
from scipy.stats import norm

from kvae import exercises
from kvae.plots.canvas import show_tiles

# %%
#| output
#| quick: EPOCHS, WORD_EPOCHS = 8, 5
#| alt: A row of sixteen drawn digits, black and white.
SHAPE, BATCH = (28, 28, 1), 100
EPOCHS, WORD_EPOCHS = 24, 16
parts = kvae.data.load("drawn_digits", 10_000, labels="label", examples=10_000, shuffle=0)
(train, labels), (test, test_labels) = ([np.asarray(each) for each in next(iter(parts[i]))] for i in (0, 2))
train, test, test_labels = np.round(train / np.float32(255)), np.round(test[:300] / np.float32(255)), test_labels[:300]
print(f"{len(train):,} images of {train.shape[1:]}, labels {labels.min()} to {labels.max()}; {len(test)} to test")
show_tiles(None, test[:16], 16);

# %% [markdown]
# The images are black and white, so each model gives a *probability* of an image, and all can be compared in nats. One
# function trains most of them. Plain VAEs, of five and of eight latents, are the measure for the others.


# %%
def trained(model, *data, loss=None):
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * len(train) // BATCH)
    model.compile(kvae.optimizers.Adam(schedule), loss or kvae.ELBO())
    model.fit(*data, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


def log_p(model, data, samples=100):  # of each image
    return kvae.evaluation.log_likelihood(model, data, samples=samples, verbose=0).values


def dense(latent_dim, **label):
    keras.utils.set_random_seed(0)
    pair = kvae.networks.dense_encoder, kvae.networks.dense_decoder
    return [network(SHAPE, latent_dim, (256,), **label) for network in pair]


nats = {f"VAE, {size}": log_p(trained(kvae.VAE(*dense(size), "bernoulli", seed=0), train), test) for size in (5, 8)}

# %% [markdown]
# ## 1. Images of a label: the conditional VAE
#
# Both networks of a `ConditionalVAE` are told the label $y$:
#
# $$ p(x \mid y) = \int p(x \mid z, y)\, p(z)\, dz, \qquad \text{encoder } q(z \mid x, y) . $$
#
# The code needn't say which digit it is, since the decoder knows. What is left for it is all the rest. And $z$ doesn't
# depend on $y$, so one $z$ can be drawn with every label.

# %%
#| alt: Five rows of ten digits, from 0 to 9, most of them clear. Each row has one z, and its digits lean and spread alike.
conditional = kvae.ConditionalVAE(*dense(5, label_dim=10), 10, "bernoulli", seed=0)
trained(conditional, train, labels)
z = conditional.prior_distribution(5).sample(seed=0).numpy()
digits = conditional.inverse_transform((np.repeat(z, 10, axis=0), np.tile(np.arange(10), 5)))
ax = show_tiles(None, digits, 10)
ax.set_xticks(range(10), [f"y = {digit}" for digit in range(10)])
ax.set_yticks(range(5), [f"z no. {row}" for row in range(1, 6)]);

# %% [markdown]
# Down a column the label stays and the handwriting changes. Along a row $z$ stays and the digit changes, in much the same
# hand. Nobody told the model of handwriting. It is what is left to say when the digit is known.
#
# Turned round, the model is a classifier, by Bayes' rule. Try all ten labels and see which makes the image most probable:
#
# $$ p(y \mid x) = \frac{p(x \mid y)\, p(y)}{\sum_{y'} p(x \mid y')\, p(y')}, \qquad
#    p(x) = \sum_y p(x \mid y)\, p(y), \qquad p(y) = \tfrac1{10} . $$

# %%
by_label = np.stack([log_p(conditional, (test, np.full(len(test), digit)), 50) for digit in range(10)], axis=1)
named = by_label.argmax(axis=1)
nats["conditional, 5"] = logsumexp(by_label, axis=1) - np.log(10)
print(f"named rightly: {np.mean(named == test_labels):.0%} of {len(test)} test digits")
#| check
assert np.mean(named == test_labels) > 0.85 and np.mean(nats["conditional, 5"] - nats["VAE, 5"]) > 3

# %%
#| alt: Bars of p(y|x) for three test digits with the image in each panel: one certain, with a single bar, and the two least certain, with two or more bars.
probability = np.exp(by_label - logsumexp(by_label, axis=1, keepdims=True))
unsure = np.argsort(probability.max(axis=1))[[len(test) // 2, 1, 0]]  # a typical image, and the two hardest
for ax, i in zip(plt.subplots(1, 3, figsize=(9, 2.3), sharey=True)[1], unsure):
    ax.bar(range(10), probability[i], color=["C0" if digit == test_labels[i] else "0.7" for digit in range(10)])
    ax.set(xlabel="y", xticks=range(10), xlim=(-0.6, 13.5), ylim=(0, 1.05))
    ax.set_title(f"p(y|x), in truth a {test_labels[i]}")
    ax.inset_axes([0.74, 0.5, 0.24, 0.45], xticks=[], yticks=[]).imshow(test[i, ..., 0], "gray")
#| check
assert probability[unsure[0]].max() > 0.9

# %% [markdown]
# The blue bar is the true label. Left, a typical image is named without doubt. The other two are those about which the model
# is least sure, and it says so. Section 4 has $\log p(x)$: it is far above that of a VAE with as many latents, since the
# sum over ten labels is a latent, too, and one that was taught.
#
# ## 2. First the coarse, then the fine: the hierarchical VAE
#
# Let one layer of latents prepare the next. Two numbers $z_2$ are drawn first, and eight more, $z_1$, depend on them:
#
# $$ p(x) = \iint p(x \mid z_1, z_2)\, p(z_1 \mid z_2)\, p(z_2)\, dz_1\, dz_2 . $$
#
# So $p(z_1)$ is no normal any more. It is a mixture of infinitely many, a learned prior
# ([notebook 08](08_better_bounds_priors_posteriors.ipynb)) with a meaning: each $z_2$ is a *kind* of image, and $z_1$ an
# image of that kind. The decoder here reads $z_1$ alone. Upper layers collapse easily, so $\beta$ is warmed up
# ([notebook 11](11_my_kl_is_zero.ipynb)).


# %%
def normal(size, *inputs):  # a network from tensors of these sizes to a mean and a log-variance
    symbols = [keras.Input((count,)) for count in inputs]
    h = layers.Dense(128, "gelu")(layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0])
    return keras.Model(symbols, [layers.Dense(size)(h), layers.Dense(size)(h)])


keras.utils.set_random_seed(0)
hidden = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(256, "relu")])
z1 = keras.Input((8,))
decoder = keras.Model([z1], layers.Reshape(SHAPE)(layers.Dense(784)(layers.Dense(256, "relu")(z1))))
posteriors, priors = [normal(8, 256, 2), normal(2, 256)], [normal(8, 2)]
hierarchical = kvae.HierarchicalVAE(hidden, posteriors, priors, decoder, "bernoulli", seed=0)
trained(hierarchical, train, loss=kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5)))
nats["hierarchical, 8"] = log_p(hierarchical, test)


# %%
#| alt: Left, a map of ten by ten blurred digits, one for each z2, changing slowly from corner to corner. Right, four rows of ten digits drawn for the map's corners: those of a row are of a kind.
def drawn(z2, noise):  # images of z1 ~ p(z1 | z2); without noise, of the mean of z1
    mean, log_var = (values.numpy() for values in hierarchical.priors[0]([z2]))
    z1 = mean + noise * np.exp(0.5 * log_var) * np.random.default_rng(0).standard_normal(mean.shape)
    return hierarchical.inverse_transform(np.concatenate([z1, z2], axis=1).astype("float32"))


line = norm.ppf(np.linspace(0.04, 0.96, 10))  # equal steps in probability
plane = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype("float32")
left, right = plt.subplots(1, 2, figsize=(9.5, 4.4), width_ratios=[1, 1.15])[1]
show_tiles(left, drawn(plane, 0), 10).set_title("Kinds: each z2 of a plane, with the mean of z1")
rows = drawn(np.repeat(plane[[0, 9, 90, 99]], 10, axis=0), 1)
show_tiles(right, rows, 10).set_title("Images of a kind: z1 drawn for one z2 a row")
right.set_yticks(range(4), ["top left", "top right", "bottom left", "bottom right"])
every = drawn(hierarchical.prior_distribution(500).sample(seed=0)[:, 8:].numpy(), 1)
within = rows.reshape(4, 10, -1).var(axis=1).sum(axis=1).mean()
print(f"variance of images of one kind {within:.0f}, of all kinds {every.var(axis=0).sum():.0f}")
#| check
assert within < 0.9 * every.var(axis=0).sum() or EPOCHS < 24

# %% [markdown]
# Left, the map of the kinds: each tile is typical of one $z_2$, and blurred where a kind holds different images. Right, images
# of the kinds in the map's four corners. They vary less than all images do: the upper layer has decided the coarse, and
# the lower one adds the rest.
#
# ## 3. Codes that are words: the VQ-VAE
#
# A `VQVAE` has no normal at all. Its encoder gives a vector for each of 4 x 4 places, and each vector is replaced by the
# nearest of $K = 64$ learned ones, the *codebook*. So an image becomes sixteen whole numbers, a sentence of sixteen words
# from a dictionary of 64. What is missing is a prior over sentences, $p(c) = \prod_i p(c_i \mid c_1, \dots, c_{i-1})$.
# A small transformer learns it, in the same `fit`. Language models are just such priors:
#
# $$ \log p(x) \ge \log p(x \mid c) + \log p(c) . $$


# %%
def words(codes=64, size=8):  # the networks of a VQVAE with 4 x 4 codes
    near = {"kernel_size": 3, "padding": "same", "activation": "relu"}
    pieces = layers.Conv2D(64, 7, strides=7, activation="relu")  # of 7 x 7 pixels each
    encoder = [keras.Input(SHAPE), pieces, layers.Conv2D(64, **near), layers.Conv2D(size, 1)]
    decoder = [keras.Input((4, 4, size)), layers.Conv2D(64, **near), layers.Conv2D(64, **near)]
    decoder.append(layers.Conv2DTranspose(1, 7, strides=7))
    return keras.Sequential(encoder), keras.Sequential(decoder), codes


# %%
keras.utils.set_random_seed(0)
prior = kvae.networks.causal_transformer((4, 4), codes=64)
vq = kvae.VQVAE(*words(), likelihood="bernoulli", seed=0, prior=prior)
vq.reset_unused_codes(train[:1_000])  # puts the codebook among the data
schedule = keras.optimizers.schedules.CosineDecay(3e-3, WORD_EPOCHS * len(train) // BATCH)
vq.compile(kvae.optimizers.Adam(schedule))
vq.fit(train, epochs=WORD_EPOCHS, batch_size=BATCH, verbose=0)
found = vq.evaluate(test, return_dict=True, verbose=0)
print(f"a sentence costs {found['prior_loss']:.1f} nats; if every word were equally likely, {16 * np.log(64):.1f}")
print(f"words in use: {found['perplexity']:.0f} of 64 (perplexity)")
#| check
assert found["prior_loss"] < 16 * np.log(64) - 10 and found["perplexity"] > 10

# %%
#| alt: Three panels: a test digit and its reconstruction with sixteen numbers written over it; new digits from words drawn one by one, which are broken strokes; and new digits from the prior over sentences, most of them digits.
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 3.3))
left.imshow(0.4 * vq.reconstruct(test[:1])[0, ..., 0], "gray", vmin=0, vmax=1)
for (row, column), word in np.ndenumerate(vq.transform(test[:1])[0]):
    left.text(7 * column + 3, 7 * row + 3, word, color="C1", ha="center", va="center", weight="bold")
left.set(title="A digit, and its sixteen words", xticks=[], yticks=[])
alone = vq.sample(25, frequencies=vq.code_frequencies(train), seed=0)
show_tiles(middle, alone, 5).set_title("New: each word by itself")
show_tiles(right, vq.sample(25, seed=0), 5).set_title("New: words in sentences");

# %% [markdown]
# Left, the words of one digit, each at its place. They aren't a set of tiles: the decoder reads each word together with its
# neighbours, as we do, so an empty place has more than one word. Middle, each word is drawn as often as it comes at its
# place, but without heed to its neighbours: strokes that don't meet. Right, the transformer draws one word after the other,
# given those before it: strokes meet, and many images are digits. The two numbers above say the same in nats: what the neighbours
# tell need not be said.
#
# ## 4. Which for what?

# %%
nats["VQ-VAE, 16 words"] = vq.losses_per_example(test)[1]["elbo"].numpy()  # the bound, of each image
print("test images, nats        log p(x)     minus the VAE's, image by image")
gains = {}
for name, values in nats.items():
    more = values - nats["VAE, 5" if name.endswith("5") else "VAE, 8"]
    gains[name] = more.mean(), more.std() / len(more) ** 0.5
    print("{:<20}{:12.1f}{:+16.1f} +- {:.1f}".format(name, values.mean(), *gains[name]))
#| check
if EPOCHS == 24:
    for name in ("conditional, 5", "hierarchical, 8"):
        assert gains[name][0] > 2 * gains[name][1], name

# %% [markdown]
# Against the plain VAE with as many latents, each gains: the label, the upper layer and the sentence are all structure that
# $\mathcal N(0, I)$ doesn't have. (The VQ-VAE's number is its bound, and its networks differ as well: it is there to show
# that whole numbers can be compared in nats, too.) But the nats don't say what each is *for*.
#
# | you want | take | because |
# | --- | --- | --- |
# | images of a label, or the label of an image | `ConditionalVAE` | $p(x \mid y)$ is what it learns |
# | kinds of images, and images of a kind | `HierarchicalVAE` | $z_2$ decides first, $z_1$ depends on it |
# | codes for a language model, or a file | `VQVAE` with a prior | whole numbers, with probabilities |
# | two or ten numbers to look at, or features | `VAE` | the simplest, and a code that moves smoothly |
#
# ## Summary
#
# 1. A conditional VAE leaves the label out of the code. It draws what you ask for, and by Bayes' rule it classifies.
# 2. A hierarchy is a learned prior: the upper layer draws a kind of image, the lower one an image of that kind.
# 3. A VQ-VAE writes an image in words. Words by themselves aren't images: the prior over sentences makes it generative.
#
# ## Exercises
#
# 1. Write `class_posterior`, Bayes' rule of section 1, from $\log p(x \mid y)$. Mind that they may be near -2000.

# %%
#| output
def class_posterior(log_likelihoods):  # an array (n, classes): log p(x|y), all y equally likely
    ...  # TODO: an array (n, classes), p(y|x)


exercises.class_posterior(class_posterior)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def class_posterior(log_likelihoods):
#     return np.exp(log_likelihoods - logsumexp(log_likelihoods, axis=1, keepdims=True))
# ```
# </details>
#
# 2. A sentence costs as many nats as the second number of section 3 without a prior, and as the first with it. How many
#    bytes is that, if a file is written by the prior? (A byte is $8 \log 2$ nats.)
# 3. Take the code of a 3 and that of an 8, and decode codes with the first eight words of one and the last eight of the
#    other. Then do the same with ten numbers of the plain VAE, the first five and the last five. What differs?
#
# <details><summary>Answer to 3</summary>
#
# Words have places: the first eight are the upper half of the image, so the result is the top of one digit on the bottom of
# the other. The numbers of a VAE have none. Each changes the whole image, and the mixture is some third image.
# </details>
#
# ## References
#
# - K. Sohn, H. Lee, X. Yan. [*Learning structured output representation using deep conditional generative
#   models.*](https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models)
#   2015.
# - C. Sønderby, T. Raiko, L. Maaløe, S. Sønderby, O. Winther. [*Ladder variational
#   autoencoders.*](https://arxiv.org/abs/1602.02282) 2016.
# - A. van den Oord, O. Vinyals, K. Kavukcuoglu. [*Neural discrete representation
#   learning.*](https://arxiv.org/abs/1711.00937) 2017.
# - A. Vaswani and others. [*Attention is all you need.*](https://arxiv.org/abs/1706.03762) 2017.
