# %% [markdown]
# # Can you spot the bug?
#
# **After this notebook you can**
# - recognise six well-known mistakes in code of variational autoencoders (VAEs) by what they do to a picture;
# - say why each is wrong, and what it silently computes instead;
# - write for each a test of a few lines that fails for the wrong code and holds for the right one.
#
# **Time:** about two minutes on two cores. **Data:** scikit-learn's digits, 1,797 grey images of 8 x 8 pixels that
# come with it. Nothing is downloaded.
#
# Every section goes the same way: some code, a picture that is not as it should be, and a question. *Stop there.*
# Look for the line before you unfold the answer. None of the six raises an error, and in each the loss falls nicely.

# %%
#| setup
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy.stats import norm
from sklearn.datasets import load_digits

from kvae.distributions import Bernoulli, ContinuousBernoulli
from kvae.plots.canvas import show_tiles

# %%
#| quick: EPOCHS, LATENT_DIM = 20, 32
#| output
EPOCHS, LATENT_DIM = 60, 32
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
grey, labels = (digits.images[order] / 16).astype("float32")[..., None], digits.target[order]
binary = np.round(grey)  # each pixel 0 or 1
print("images", grey.shape, "grey levels", len(np.unique(grey)), "black and white", np.unique(binary))

# %% [markdown]
# The suspects are trained by hand, by the few lines below. They know three things: two networks, a way of
# `sampling`, and a `loss`. Afterwards the two networks go into a `kvae.VAE`, which draws the pictures and knows how
# to compute the evidence lower bound (ELBO). So each picture shows what the mistake did to the *networks*.


# %%
class ByHand(keras.Model):
    def __init__(self, loss, sampling):
        super().__init__()
        self.nats, self.sampling, sizes = loss, sampling, ((8, 8, 1), LATENT_DIM, (128, 128))
        self.encoder, self.decoder = kvae.networks.dense_encoder(*sizes), kvae.networks.dense_decoder(*sizes)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            z_mean, z_log_var = self.encoder(x)
            z = self.sampling([z_mean, z_log_var])
            loss = ops.mean(self.nats(x, self.decoder(z), z_mean, z_log_var))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


# %%
def by_hand(loss, sampling=None):
    keras.utils.set_random_seed(0)
    model = ByHand(loss, sampling or kvae.Sampling(seed=0))
    model.compile(kvae.optimizers.Adam(2e-3))
    return model


def trained(model, x, likelihood="bernoulli", epochs=EPOCHS):
    model.fit(x, epochs=epochs, batch_size=50, verbose=0)
    return kvae.VAE(model.encoder, model.decoder, likelihood, seed=0)


# %% [markdown]
# ## 1. Good reconstructions, bad samples
#
# Binary digits, a Bernoulli decoder, and the textbook's formula for the KL of two normals:


# %%
#| alt: Eight digits and nearly perfect reconstructions; sixteen samples of which few look like digits.
def loss(x, logits, z_mean, z_log_var):
    reconstruction = -Bernoulli(logits).log_prob(x)
    kl = -0.5 * ops.mean(1 + z_log_var - z_mean**2 - ops.exp(z_log_var), axis=1)
    return reconstruction + kl


suspect, test = trained(by_hand(loss), binary[:1500]), binary[1500:]
left, right = plt.subplots(1, 2, figsize=(8, 2.4), width_ratios=[2.4, 1])[1]
kvae.plots.reconstructions(suspect, test, ax=left).set_title("")
kvae.plots.samples(suspect, 16, ax=right).set_title("Samples, z ~ p(z)");

# %% [markdown]
# The reconstructions of unseen images are nearly perfect. But few of the samples look like any of them (at 8 x 8 pixels
# one has to look twice). **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is the second: `ops.mean`. A KL of independent latents is a *sum* over them:
#
# $$ \mathrm{KL}\left(q(z \mid x) \,\Vert\, p(z)\right) = -\tfrac12 \sum_{j=1}^{d}
#    \left(1 + \log \sigma_j^2 - \mu_j^2 - \sigma_j^2\right) . $$
#
# The mean divides it by $d$. That is a $\beta$ of $1/32$ that nobody asked for, and another one for every size of the
# code. **The test:** a latent with $\mu = 1$ and $\sigma = 1$ costs half a nat, so eight of them cost four.
#
# </details>


# %%
#| alt: Distances of z from 0 for codes and for draws of the prior: apart with the mean, one upon the other with the sum.
def kl(z_mean, z_log_var):
    return -0.5 * ops.sum(1 + z_log_var - z_mean**2 - ops.exp(z_log_var), axis=1)


def elbo_loss(x, logits, z_mean, z_log_var):
    return kl(z_mean, z_log_var) - Bernoulli(logits).log_prob(x)


def cost(loss, latents):  # of so many latents with mean and variance 1
    x, zeros = binary[:1], np.zeros((1, latents), "float32")
    return float((loss(x, x, zeros + 1, zeros) - loss(x, x, zeros, zeros))[0])


print(f"eight such latents cost {cost(elbo_loss, 8):.2f} nats with the sum, {cost(loss, 8):.2f} with the mean")
sound = trained(by_hand(elbo_loss), binary[:1500])
for ax, name, vae in zip(plt.subplots(1, 2, figsize=(8, 2.6))[1], ("mean", "sum"), (suspect, sound)):
    for z, colour in (vae.draw(test).z[:, 0], "C0"), (vae.prior_distribution(297).sample(seed=0), "C1"):
        ax.hist(np.linalg.norm(z, axis=1), 40, alpha=0.6, color=colour)
    ax.set(xlabel="distance of z from 0", ylabel="draws", title=f"{name}: ELBO {np.mean(vae.draw(test).elbo):.1f} nats")
    ax.legend(["z ~ q(z|x)", "z ~ p(z)"])
#| check
assert np.isclose(cost(elbo_loss, 8), 4) and not np.isclose(cost(loss, 8), 4)
assert np.mean(sound.draw(test).elbo) > np.mean(suspect.draw(test).elbo) + 5 and np.var(suspect.draw(test).z) > 1.2

# %% [markdown]
# With the mean, the codes of unseen images lie farther out than the draws of the prior: what the decoder gets when it
# samples, it has seldom seen. With the sum both have the same distances from 0, and the ELBO is far higher.
#
# ## 2. Every reconstruction is the same
#
# Grey digits now, and a squared error, since grey values are real numbers:


# %%
#| alt: Ten digits, and the same grey ghost ten times as their reconstruction.
def loss(x, mean, z_mean, z_log_var):
    reconstruction = ops.mean(ops.square(x - mean), axis=(1, 2, 3))
    return reconstruction + kl(z_mean, z_log_var)


suspect = trained(by_hand(loss), grey[:1500], "gaussian")
kvae.plots.reconstructions(suspect, grey[1500:], count=10).set_title("")
print(f"mean squared error: {np.mean((suspect.reconstruct(grey[1500:]) - grey[1500:]) ** 2):.2f}")

# %% [markdown]
# One grey ghost for all images, and an error that looks small. **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is `ops.mean` once more, on the other side. Per image, the Gaussian log-likelihood is
#
# $$ -\log p(x \mid z) = \frac{1}{2 \sigma_x^2} \sum_{i=1}^{D} (x_i - \hat x_i)^2
#    + \frac D2 \log (2 \pi \sigma_x^2) , $$
#
# a sum over the $D = 64$ pixels. The mean is that with $\sigma_x^2 = D / 2 = 32$: it says that pixels in $[0, 1]$
# are seen through noise of $\sigma_x = 5.7$. Then no image can be told from another, a code isn't worth a single
# nat, and the best thing to do is to let $q(z \mid x) = p(z)$: *posterior collapse*. **The test:** a loss in nats is
# the logarithm of a density that scipy knows.
#
# </details>


# %%
#| alt: Ten digits, the ghosts of the averaged error, and the recognisable reconstructions of the summed one.
def gaussian_loss(x, mean, z_mean, z_log_var, variance=0.05):
    error = ops.sum(ops.square(x - mean), axis=(1, 2, 3))
    return 0.5 * error / variance + 32 * np.log(2 * np.pi * variance) + kl(z_mean, z_log_var)


def is_density(loss, sigma):
    mean, nothing = 0.9 * grey[:5], np.zeros((5, 1), "float32")  # a KL of zero
    return np.allclose(loss(grey[:5], mean, nothing, nothing), -norm.logpdf(grey[:5], mean, sigma).sum(axis=(1, 2, 3)))


print(
    "the logarithm of a density:", is_density(gaussian_loss, 0.05**0.5), "- with the mean:", is_density(loss, 32**0.5)
)
sound = trained(by_hand(gaussian_loss), grey[:1500], "gaussian")
kvae.plots.reconstructions({"mean": suspect, "sum": sound}, grey[1500:], count=10).set_title("");
#| check
assert is_density(gaussian_loss, 0.05**0.5) and not any(is_density(loss, sigma) for sigma in (0.05**0.5, 1, 32**0.5))
assert np.mean(suspect.draw(grey[1500:]).kl_loss) < 0.1 and np.mean(sound.draw(grey[1500:]).kl_loss) > 3  # nats

# %% [markdown]
# With the sum, and a variance that fits pixels in $[0, 1]$, the code has something to say. Better still is to *learn*
# the variance, as `kvae.GaussianLikelihood()` does.
#
# ## 3. A bound above what it bounds
#
# Back to binary digits. The loss is the right one of section 1, but here the sampling is written by hand:


# %%
#| alt: Three numbers on one line: the ELBO by kvae lowest, log p(x) above it, and the reported ELBO above both.
def sampling(inputs):
    z_mean, z_log_var = inputs
    eps = tf.random.normal(tf.shape(z_mean))
    return z_mean + ops.exp(z_log_var) * eps


suspect = trained(by_hand(elbo_loss, sampling), binary[:1500])
outputs = suspect.encoder(test)
reported = -np.mean([np.mean(elbo_loss(test, suspect.decoder(sampling(outputs)), *outputs)) for _ in range(20)])
found = kvae.evaluation.log_likelihood(suspect, test, samples=1000, verbose=False)
names, values = ["ELBO by kvae", "log p(x)", "ELBO as reported"], [found.elbo, found.mean, reported]
ax = plt.subplots(figsize=(5.5, 1.7))[1]
ax.plot(values, names, "o", ms=10)
ax.set(xlabel="nats per unseen image", title="Three numbers of one pair of networks", ylim=(-0.5, 2.5));
#| check
assert found.elbo < found.mean < reported

# %% [markdown]
# The loss that was minimised claims a larger value than $\log p(x)$ has, which 1,000 draws an image estimate. A lower
# bound can't do that, so it isn't one. **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is the last of `sampling`. $\Sigma$ is a variance, and $\sigma$ its *square root*:
#
# $$ z = \mu + \sigma \odot \varepsilon, \qquad \sigma = \exp\left(\tfrac12 \log \sigma^2\right) . $$
#
# In code `z_mean + ops.exp(0.5 * z_log_var) * eps`, as `kvae.Sampling` has it. Where $\sigma < 1$, the variance is
# smaller still. The decoder sees less noise than $q(z \mid x)$ has, and the bound takes credit for precision that the KL
# never paid for. **The test:** draws with variance 4 have the standard deviation 2. (With variance 1, the value that comes
# to mind first, the test would pass for both.)
#
# </details>


# %%
def spread(sampling, variance, draws=10_000):
    return float(np.std(sampling([np.zeros((draws, 1), "float32"), np.full((draws, 1), np.log(variance), "float32")])))


for variance in (4, 1):
    values = spread(kvae.Sampling(seed=0), variance), spread(sampling, variance)
    print("variance {}: kvae's draws spread by {:.1f}, the suspect's by {:.1f}".format(variance, *values))
#| check
assert abs(spread(kvae.Sampling(seed=0), 4) - 2) < 0.1 < abs(spread(sampling, 4) - 2)
assert abs(spread(sampling, 1) - 1) < 0.1  # the test that sees nothing

# %% [markdown]
# The picture showed it: the reported number lies above $\log p(x)$, and the honest ELBO of the same networks below.
#
# ## 4. Images made of salt and pepper
#
# Grey digits, and the loss that most tutorials use for them:


# %%
#| alt: Three grids of digits: grey data, blurred grey means, and draws in black and white only.
def loss(x, logits, z_mean, z_log_var):
    reconstruction = ops.sum(ops.binary_crossentropy(x, logits, from_logits=True), axis=(1, 2, 3))
    return reconstruction + kl(z_mean, z_log_var)


suspect = trained(by_hand(loss), grey[:1500])
figure, axes = plt.subplots(1, 3, figsize=(8, 2.9))
show_tiles(axes[0], grey[1500:1516], 4).set_title("data")
kvae.plots.samples(suspect, 16, ax=axes[1]).set_title("mean of p(x|z)")
kvae.plots.samples(suspect, 16, noise=True, ax=axes[2]).set_title("x ~ p(x|z)");

# %% [markdown]
# The means in the middle are blurred digits, as usual. But the model claims to be a density of images, and on the
# right is what it says that images are: black and white pixels. The data have 17 grey levels. **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is the cross-entropy. $x \log p + (1 - x) \log (1 - p)$ is a Bernoulli's log-*probability* for $x = 0$
# or $1$. For grey $x$ it is a number, but no density: over $x \in [0, 1]$ it doesn't integrate to one. The nats that
# it reports are no $\log p(x \mid z)$, and can't be compared with any. What is missing is a normaliser, and with it
# the formula is the *continuous Bernoulli*, `kvae.ContinuousBernoulliLikelihood()`. **The test:** it has to
# integrate to one.
#
# </details>


# %%
#| alt: The integral over a pixel's grey values by logit: 1 everywhere for the continuous Bernoulli, below 1 for the cross-entropy.
def grey_loss(x, logits, z_mean, z_log_var):
    return kl(z_mean, z_log_var) - ContinuousBernoulli(logits).log_prob(x)


def integral(loss, logit):  # over the grey values of one pixel
    x, nothing = np.linspace(0, 1, 1001, dtype="float32")[:, None, None, None], np.zeros((1001, 1), "float32")
    return np.trapezoid(np.exp(-loss(x, np.full_like(x, logit), nothing, nothing)), x.ravel())


logits = np.linspace(-6, 6, 49)
figure, ax = plt.subplots(figsize=(5.5, 2.4))
for name, function, colour in ("cross-entropy", loss, "C1"), ("continuous Bernoulli", grey_loss, "C0"):
    ax.plot(logits, [integral(function, logit) for logit in logits], color=colour, label=name)
ax.set(xlabel="logit of the pixel", ylabel="integral over x", ylim=(0, 1.1))
ax.legend();
#| check
assert all(np.isclose(integral(grey_loss, logit), 1, atol=1e-3) and integral(loss, logit) < 0.99 for logit in logits)

# %% [markdown]
# The blue line is a density at every logit; the orange one is none at any.
# On pixels that *are* 0 or 1 the cross-entropy is right, and kvae's `BernoulliLikelihood` warns where they are not.
#
# ## 5. A loss that never comes to rest
#
# A stream of images from files, which lie in a folder for each digit:

# %%
by_digit = np.argsort(labels[:1500], kind="stable")
files = tf.data.Dataset.from_tensor_slices((binary[by_digit], labels[by_digit]))
stream = files.batch(50).shuffle(1000, seed=0)


# %%
#| alt: Left, each of twelve batches holds one digit or two. Right, the loss jumps up and down to the end.
def draw(stream, epochs=5):
    left, right = plt.subplots(1, 2, figsize=(8, 2.4))[1]
    for number, (_, digit) in enumerate(stream.take(12)):
        left.scatter(np.full(50, number), digit, s=60, alpha=0.1, color="C0")
    left.set(title="What is in a batch", xlabel="batch", ylabel="digit")
    step = tf.function(by_hand(elbo_loss).train_step)
    losses = np.array([step(x)["loss"] for _ in range(epochs) for x, _ in stream])
    right.plot(losses)
    right.set(title="Its loss, in training", xlabel="step", ylabel="nats per image", ylim=(5, 50))
    return losses


losses, wrong = draw(stream), stream

# %% [markdown]
# Each batch holds one digit or two, and the loss jumps up and down to the end. But `shuffle` is there, and
# its buffer is large. **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is the last, where `batch` stands before `shuffle`. What is shuffled are whole batches. The images of a
# batch stay together for ever, so every gradient belongs to one digit, and the next one to another. And the buffer
# holds 1,000 *batches*: 50 times the memory that was meant. **The test:** in another epoch an image has other
# company.
#
# </details>

# %%
#| alt: Left, each batch holds all digits. Right, the loss falls in a narrow band.
stream = files.shuffle(1500, seed=0).batch(50)


def companies(stream):  # which images were together, in one epoch
    return {frozenset(image.tobytes() for image in x) for x, _ in stream.as_numpy_iterator()}


same = [len(companies(each) & companies(each)) for each in (wrong, stream)]
print(f"of 30 batches, together again in the next epoch: {same[0]}, after the repair {same[1]}")
better = draw(stream)
#| check
assert same == [30, 0]
assert np.std(np.diff(losses[-60:])) > 2 * np.std(np.diff(better[-60:]))

# %% [markdown]
# Shuffled first, each batch is a small sample of all digits, and the loss falls in a narrow band.
#
# ## 6. Better at the start of the test set
#
# The last one is about no formula. 1,797 images, some to train on and some to test:

# %%
#| alt: The ELBO of 1,400 test images by number, with a moving mean: higher for the first 300, then a step down.
train, test = binary[:700], binary[-1400:]
values = trained(by_hand(elbo_loss), train, epochs=250).draw(test, samples=20).elbo.numpy()
ax = plt.subplots(figsize=(6, 2.6))[1]
means = np.convolve(values, np.ones(100) / 100, "valid")
ax.plot(range(1400), values, ".", color="0.7", ms=3)
ax.plot(range(50, 1351), means, color="C1", lw=3)
ax.set(xlabel="number of the image in the test set", ylabel="ELBO, nats", ylim=(-32, -6), title="Line: mean of 100");

# %% [markdown]
# The order of the images is random. Yet the first ones are better than the others, and then there is a step.
# **What is wrong?**

# %% [markdown]
# <details><summary>The answer</summary>
#
# **The line** is the first. 700 and 1,400 are more than 1,797: the first 303 images of `test` are the last ones
# of `train`. The model has learned them by heart, and its mean over the test set is too good. Choosing the epoch, the
# learning rate or $\beta$ by the test set is the same mistake, only slower. **The test:** no image is in both.
#
# </details>


# %%
#| output
def shared(train, test):  # grey images: two different ones may be equal in black and white
    return len({image.tobytes() for image in train} & {image.tobytes() for image in test})


print("images in both:", shared(grey[:700], grey[-1400:]), "and after the repair:", shared(grey[:700], grey[700:]))
#| check
assert shared(grey[:700], grey[700:]) == 0
assert values[:303].mean() > values[303:].mean() + 1

# %% [markdown]
# ## Summary
#
# 1. Sum over latents, sum over pixels, and average over images only. A mean anywhere else is a $\beta$ in disguise.
# 2. A loss in nats is the logarithm of a density. So it can be tested: against scipy, by an integral, and by a bound
#    that must stay below what it bounds.
# 3. The data can be wrong as well as the model. Look into the batches, and at who is in which set.
#
# ## Exercises
#
# 1. The mean-squared error of section 2 is averaged over colour images of 64 x 64 x 3. Which $\sigma_x$ does it
#    silently assume?
# 2. Put both means into one loss, over pixels and over latents. Which $\beta$ is that, beside both sums? Does the
#    code collapse?
# 3. Write the KL with `z_log_var` read as the logarithm of $\sigma$ in place of $\sigma^2$, the sampling as in
#    section 3. Is that a bug?
#
# <details><summary>Answers</summary>
#
# To 1: $\sigma_x^2 = D / 2$ with $D = 12{,}288$, so $\sigma_x = 78.4$.
#
# To 2: with a fixed $\sigma_x$, the error is divided by $D$ and the KL by $d$, so the KL weighs $D / d$ times as much as
# beside both sums: $64 / 32 = 2$ here.
#
# To 3: no. If `z_log_var` is $\log \sigma$ in both places, `exp(z_log_var)` is $\sigma$, and only the name is wrong.
# </details>
#
# ## References
#
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - S. Bowman and others. [*Generating sentences from a continuous space.*](https://arxiv.org/abs/1511.06349) 2016. (On
#   posterior collapse.)
# - I. Higgins and others. [*beta-VAE: learning basic visual concepts with a constrained variational
#   framework.*](https://openreview.net/forum?id=Sy2fzU9gl) 2017.
# - G. Loaiza-Ganem, J. Cunningham. [*The continuous Bernoulli: fixing a pervasive error in variational
#   autoencoders.*](https://arxiv.org/abs/1907.06845) 2019.
# - O. Rybkin, K. Daniilidis, S. Levine. [*Simple and effective VAE training with calibrated
#   decoders.*](https://arxiv.org/abs/2006.13202) 2021.
# - S. Kapoor, A. Narayanan. [*Leakage and the reproducibility crisis in machine-learning-based
#   science.*](https://doi.org/10.1016/j.patter.2023.100804) 2023.
