# %% [markdown]
# # My KL is zero, my samples are bad: what is wrong with my VAE?
#
# **After this notebook you can**
# - read the vital signs of a variational autoencoder (VAE) off `kvae.evaluation.report`;
# - tell four failures apart, which look alike in the loss: a variance too large or too small, a decoder that needs no
#   code, and codes that don't fill the prior;
# - cure each, and see by a number that it is cured.
#
# **Time:** two to three minutes on two cores. **Data:** `drawn_digits`, digits that look handwritten. They are drawn on your
# machine the first time, so nothing is downloaded and everybody sees the same images.

# %%
#| setup
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kvae import exercises
from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. Vital signs
#
# A loss alone tells little: 300 nats may be good or bad. `kvae.evaluation.report` measures more, on images that the model
# wasn't trained on, and says in sentences what looks wrong. We read these signs:
#
# | sign | healthy | sick |
# | --- | --- | --- |
# | the rate, $\mathrm{KL}(q(z \mid x) \Vert p(z))$ | some nats for each latent in use | near 0: the code is empty |
# | active latents, whose mean varies with $x$ | as many as the data need | none, or a few of many |
# | the mismatch, $\mathrm{KL}(q(z) \Vert p(z))$, of each latent alone | a fraction of a nat | nats: the prior's draws miss the codes |
# | $\log p(x)$ | as high as in other models | far below them |
#
# We make four patients ourselves, so that we know what they suffer from. All have dense networks and ten latents.

# %%
#| output
#| quick: EPOCHS = 4
LATENT_DIM, BATCH = 10, 100
EPOCHS = 8
train, _, test = kvae.data.load("drawn_digits", 10_000, examples=10_000, shuffle=0)
train, test = (next(iter(part)).numpy() / np.float32(255) for part in (train, test))
test = test[:500]
print(f"{len(train):,} images of {train.shape[1:]}; {len(test)} to test")


def trained(images, likelihood, loss=None, kind=kvae.VAE):
    keras.utils.set_random_seed(0)
    pair = kvae.networks.dense_encoder, kvae.networks.dense_decoder
    model = kind(*(network(images.shape[1:], LATENT_DIM, (256,)) for network in pair), likelihood, seed=0)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(images) // BATCH)
    model.compile(kvae.optimizers.Adam(schedule), loss)
    model.fit(images, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model


# %%
signs = {}


def examine(name, model, images):
    report = kvae.evaluation.report(model, images, samples=100, verbose=0)
    parts = report.decomposition
    mismatch = parts.aggregate.latents["aggregate_kl"]  # None for a prior that isn't a normal
    mismatch = np.nan if mismatch is None else mismatch.sum()
    signs[name] = parts.kl.value, report.units.active.sum(), mismatch, parts.log_likelihood.value
    line = "{:<24} rate {:5.1f}   active {:2}   mismatch {:4.1f}   log p(x) {:9.1f}".format(name, *signs[name])
    print(line.replace("nan", "  -"))
    return report


def show(models, images, count=8):  # a panel for each model: images, reconstructions, samples
    panels = plt.subplots(1, len(models), figsize=(9.5, 2.1))[1]
    for ax, (name, model) in zip(panels, models.items()):
        rows = images[:count], model.reconstruct(images[:count]), model.sample(count, seed=0)
        show_tiles(ax, np.concatenate(rows), count).set_title(name)
    panels[0].set_yticks(range(3), ["test", "reconstructed", "new"])


# %% [markdown]
# ## 2. A variance that is wrong
#
# **Patient 1.** "My loss is Keras' mean squared error plus the KL." An error that is *averaged* over $D = 784$ pixels is
# a normal $p(x \mid z)$ of variance $\sigma^2 = D/2 = 392$: pixels between 0 and 1 are believed to scatter by 20.
# **Patient 2** fixed $\sigma^2 = 0.0001$, "for sharp images".

# %%
models = {"1: variance 392": trained(train, kvae.GaussianLikelihood(392.0))}
models["2: variance 0.0001"] = trained(train, kvae.GaussianLikelihood(1e-4))
models["cured: learned"] = trained(train, kvae.GaussianLikelihood())
reports = {name: examine(name, model, test) for name, model in models.items()}
for name, model in models.items():
    print(f"{name:<24} squared error of a pixel {kvae.evaluation.squared_error(model, test) / 784:.3f}")
print("the report says of patient 1:", reports["1: variance 392"].findings[0])
#| check
empty, fixed, cured = (signs[name] for name in models)
assert empty[0] < 0.5 and empty[1] == 0 and "collapsed" in reports["1: variance 392"].findings[0]
assert fixed[0] > 1.4 * cured[0] and fixed[3] < -10_000
assert cured[3] > max(empty[3], fixed[3]) + 1_000 and cured[1] > 5
error = [kvae.evaluation.squared_error(model, test) / 784 for model in models.values()]
assert 0.5 < np.exp(float(np.ravel(models["cured: learned"].likelihood.log_var)[0])) / error[2] < 1.5
assert error[0] > 1.5 * error[2] and error[1] < 1.3 * error[2]

# %%
#| alt: Three panels of test digits, reconstructions and new images. Variance 392: the same grey blur everywhere. Variance 0.0001 and the learned one: digits come back, and new images are full of speckle.
show(models, test)

# %% [markdown]
# **Symptoms.** Patient 1: a rate of 0, no active latent, and one grey blur, the mean image, for every reconstruction.
# Patient 2: digits come back, but at a high rate, and $\log p(x)$ of test images is a disaster.
#
# **Diagnosis.** The report names the symptom, not its cause. For that, compare $\sigma^2$ with the squared error of a
# pixel. They should agree, and here they are orders of magnitude apart. The variance is the rate of exchange between
# the bound's two terms:
#
# $$ \log p(x) \ge -\frac{1}{2 \sigma^2}\, \mathbb E_q \lVert x - \hat x \rVert^2 - \frac D2 \log (2 \pi \sigma^2) - \mathrm{KL} . $$
#
# A large $\sigma^2$ is a large $\beta$ that nobody chose: at 392, all the error that a code could save is less than the
# code costs. At 0.0001 the model swears that no pixel is off by more than a few hundredths, and test images prove it wrong.
#
# **Cure.** Let the model learn it: `kvae.GaussianLikelihood()`. The best value is the squared error of a pixel, and it
# follows the error while that falls. **After:** active latents, and a $\log p(x)$ more than a thousand nats above both.
#
# But look at the last row on the right. The new images are still full of speckle. There is a second illness.
#
# ## 3. Codes that don't fill the prior
#
# **Patient 3** is the cured one: good reconstructions, good $\log p(x)$, bad samples. What does the report say?

# %%
models = {"3: prior N(0, I)": models["cured: learned"]}
report = examine("3: prior N(0, I)", models["3: prior N(0, I)"], test)
print("the report says:", report.findings[0])
mixture = kvae.MixtureOfGaussians(components=100, covariance="full")
models["cured: fitted mixture"] = kvae.fit_prior(models["3: prior N(0, I)"], train, mixture, seed=0)
examine("cured: fitted mixture", models["cured: fitted mixture"], test);
#| check
before, after = (signs[name] for name in models)
assert "aggregate" in report.findings[0] and before[2] > 1
assert after[0] < before[0] - 2 and after[3] > before[3] + 2

# %%
#| alt: Two panels of test digits, reconstructions and new images. With the prior N(0, I) the new images are speckle; with the fitted mixture they are digits, as blurred as the reconstructions.
show(models, test, count=12)

# %% [markdown]
# **Symptom.** A mismatch of several nats, and samples that are worse than reconstructions.
#
# **Diagnosis.** All codes together, $q(z) = \mathbb E_x\, q(z \mid x)$, aren't distributed like the prior, so its draws
# fall where no image was encoded. More training doesn't mend it.
#
# **Cure.** Bring the prior to the codes, by `kvae.fit_prior`, or train with a learned prior from the start
# ([notebook 08](08_better_bounds_priors_posteriors.ipynb)). **After:** the encoder is the same, and the rate is lower. The
# difference is mismatch that the old prior was paying for, and it goes to $\log p(x)$. New images are digits.
#
# ## 4. A decoder that needs no code
#
# **Patient 4.** "I gave the decoder more power, and now it ignores the code." Its decoder sees what is already drawn:
# each pixel is predicted from $z$ *and from the pixels before it*, as language models predict a word from the words
# before it. The images are black and white here, and shrunk to 14 x 14, so that this is quick.


# %%
class PixelByPixel(kvae.VAE):
    def __init__(self, *parts, **settings):
        super().__init__(*parts, **settings)
        first = layers.Conv1D(96, 60, padding="causal", activation="relu")  # sees four rows
        stack = [first, layers.Conv1D(96, 1, activation="relu"), layers.Conv1D(1, 1), layers.Reshape((14, 14, 1))]
        self.before = keras.Sequential([keras.Input((196, 1)), *stack])

    def logits(self, x, z):  # of each pixel, given z and the pixels before it, row by row
        pixels = ops.reshape(x, (-1, 196, 1))[:, :-1]
        return self.decoder(z) + self.before(ops.pad(pixels, [(0, 0), (1, 0), (0, 0)]))

    def log_likelihood(self, x, z, training=False):
        return self.likelihood.distribution([self.logits(x, z)]).log_prob(x)


# %%
def shrunk(images):
    return (images.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4)) > 0.4).astype("float32")


small, small_test = shrunk(train), shrunk(test)
warm_up = kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5))  # of the KL, over half of the run
free_bits = kvae.ELBO(free_bits=1.0)  # a latent's first nat costs nothing more
models = {"an ordinary decoder": trained(small, "bernoulli")}
models["4: sees pixels before"] = trained(small, "bernoulli", kind=PixelByPixel)
models["treated: warm-up"] = trained(small, "bernoulli", warm_up, PixelByPixel)
models["treated: free bits"] = trained(small, "bernoulli", free_bits, PixelByPixel)
for name, model in models.items():
    examine(name, model, small_test)
#| check
ordinary, strong, warmed, bits = (signs[name] for name in models)
assert strong[0] < 0.6 * ordinary[0] and warmed[0] > 1.2 * strong[0] and bits[0] > 2 * strong[0]
assert strong[3] > ordinary[3] + 2 and min(warmed[3], bits[3]) > strong[3] - 3

# %% [markdown]
# What does such a code say? We draw images pixel by pixel, several from the code of the same test image.


# %%
#| alt: Two panels; in each, the first column has five test digits and the others have draws from its code. In the patient's panel the draws are other digits; with free bits most resemble the first column.
def drawn(model, z):
    rng, x, logits = np.random.default_rng(0), np.zeros((len(z), 14, 14, 1), "float32"), tf.function(model.logits)
    for row, column in np.ndindex(14, 14):
        probability = 1 / (1 + np.exp(-logits(x, z)[:, row, column, 0].numpy()))
        x[:, row, column, 0] = rng.random(len(z)) < probability
    return x


off, panels = {}, plt.subplots(1, 2, figsize=(8.5, 3.4))[1]
for ax, name in zip(panels, ("4: sees pixels before", "treated: free bits")):
    again = drawn(models[name], np.repeat(models[name].transform(small_test[:60]), 7, axis=0)).reshape(60, 7, 14, 14, 1)
    off[name] = np.abs(again - small_test[:60, None]).sum(axis=(2, 3, 4)).mean()
    show_tiles(ax, np.concatenate([small_test[:5, None], again[:5]], axis=1).reshape(-1, 14, 14, 1), 8)
    ax.set_title(f"{name}\n{off[name]:.0f} of 196 pixels are off")
    ax.set_xticks([0, 4], ["test", "drawn from its code"])
#| check
assert off["treated: free bits"] < 0.9 * off["4: sees pixels before"]

# %% [markdown]
# **Symptom.** The rate is a fraction of the ordinary decoder's, though $\log p(x)$ is *better*. Left: what is drawn from the
# code of a digit (first column) is mostly some other digit.
#
# **Diagnosis.** Strokes can be continued from the pixels before, so the code is worth little to the bound. At the start
# it is worth even less: the decoder learns strokes at once, and the code's nats are saved before anyone has learned to
# use them.
#
# **Treatment.** Don't charge for them. *Warm-up* raises $\beta$ from 0 to 1, so that the code is in use before it costs.
# *Free bits* charge each latent one nat, whether used or not, so nothing is saved by saying less. **After:** higher rates,
# and draws that resemble their image (right). $\log p(x)$ is about what it was. Take that seriously: to the *bound* the
# empty code was no fault. It is one only if you need the code, for features or to steer what is drawn.
#
# ## Summary
#
# 1. Rate 0 and no active latent: look at the variance first. A mean in place of a sum is a variance of $D/2$. Learn it.
# 2. Good reconstructions and bad samples: a mismatch. Fit the prior to the codes.
# 3. A low rate beside a high $\log p(x)$: the decoder doesn't need the code. Warm-up or free bits make it use one.
#
# | symptom | look at | cure |
# | --- | --- | --- |
# | rate 0, one blur for all | $\sigma^2$ against the squared error of a pixel; $\beta$ | learn $\sigma^2$, sum over pixels |
# | high rate, $\log p(x)$ far too low | the same | learn $\sigma^2$ |
# | samples worse than reconstructions | the mismatch | `fit_prior`, a learned prior |
# | low rate, good $\log p(x)$ | what else the decoder sees | warm-up, free bits, a weaker decoder |
#
# ## Exercises
#
# 1. Write `free_bits`, the KL term that `kvae.ELBO(free_bits=...)` charges for each image.

# %%
#| output
def free_bits(kl, bits):  # kl: an array (n, latents), the KL of each latent, in nats
    ...  # TODO: n numbers, where a latent below `bits` counts as `bits`


exercises.free_bits(free_bits)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def free_bits(kl, bits):
#     return np.maximum(kl, bits).sum(axis=1)
# ```
# </details>
#
# 2. Train patient 1 with $\sigma^2 = 1$, as "squared error, summed, over two" does. How many latents are active now, and
#    which $\sigma^2$ would you expect to be best?
# 3. Make a fifth patient, with `kvae.ELBO(beta=50.0)` and a learned variance. Which sign gives it away? Why doesn't the
#    learned variance save it?
#
# <details><summary>Answer to 3</summary>
#
# The rate, again, and the count of active latents. The variance that suits the blur is the blur's own squared error, so
# $\sigma^2$ agrees with the error of a pixel: the fault isn't there. What is wrong is the weight of the KL.
# </details>
#
# ## References
#
# - S. Bowman and others. [*Generating sentences from a continuous space.*](https://arxiv.org/abs/1511.06349) 2016. (A strong
#   decoder, and warm-up.)
# - D. Kingma and others. [*Improved variational inference with inverse autoregressive
#   flow.*](https://arxiv.org/abs/1606.04934) 2016. (Free bits.)
# - X. Chen and others. [*Variational lossy autoencoder.*](https://arxiv.org/abs/1611.02731) 2017. (What a code is worth.)
# - J. Lucas, G. Tucker, R. Grosse, M. Norouzi. [*Don't blame the ELBO! A linear VAE perspective on posterior
#   collapse.*](https://arxiv.org/abs/1911.02469) 2019. (The variance.)
# - A. Alemi and others. [*Fixing a broken ELBO.*](https://arxiv.org/abs/1711.00464) 2018.
