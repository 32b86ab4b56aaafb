# %% [markdown]
# # What does your loss minimise?
#
# **After this notebook you can**
# - read off any loss of a variational autoencoder (VAE) which likelihood it is, with which $\sigma^2$ and which $\beta$;
# - recognise what a wrong weight, a wrong term or a wrong draw does to samples;
# - let `kvae.audit` look at a loss of your own, and set the number that it prints beside $\log p(x)$.
#
# **Time:** about three minutes on two cores. **Data:** `drawn_digits`, grey digits of 28 x 28 pixels. They are drawn on your
# machine the first time, so nothing is downloaded.

# %%
#| setup
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. A loss is a model
#
# Code of VAEs mostly says "reconstruction loss plus KL". The theory says more. With a normal $p(x \mid z)$ of variance
# $\sigma^2$, minus the bound is
#
# $$ \frac{1}{2 \sigma^2} \sum_{i=1}^{D} (x_i - \hat x_i)^2 + \frac D2 \log (2 \pi \sigma^2)
#    + \beta\, \mathrm{KL}\left(q(z \mid x) \,\Vert\, p(z)\right) \quad \text{with } \beta = 1. $$
#
# So whoever writes $c \sum_i (x_i - \hat x_i)^2 + w\, \mathrm{KL}$ has chosen $\sigma^2 = 1 / 2c$ and $\beta = w$, whether
# they thought of it or not. And only the ratio counts for the optimum: $\beta = 1$ with $\sigma^2 = w / 2c$ has the same.
# Here are six losses, each of a kind that is in print:

# %%
SHAPE, LATENT_DIM, CAPACITY = (28, 28, 1), 8, 0.0


def kl_terms(z_mean, z_log_var):
    return -0.5 * (1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var))


def kl(z_mean, z_log_var):
    return ops.sum(kl_terms(z_mean, z_log_var), axis=1)


def squares(x, output):
    return ops.sum(ops.square(x - output), axis=(1, 2, 3))


# %%
def keras_mse(x, output, z_mean, z_log_var):
    return ops.mean(ops.square(x - output)) + ops.mean(kl(z_mean, z_log_var))


def small_weight(x, output, z_mean, z_log_var):
    return ops.mean(ops.square(x - output)) + 0.00025 * ops.mean(kl(z_mean, z_log_var))


def averaged_kl(x, output, z_mean, z_log_var):
    errors = ops.binary_crossentropy(x, output, from_logits=True)
    return ops.mean(ops.sum(errors, axis=(1, 2, 3))) + ops.mean(kl_terms(z_mean, z_log_var))


# %%
def clamped(x, output, z_mean, z_log_var):
    return 10 * squares(x, output) + ops.clip(kl(z_mean, z_log_var), 0.0, CAPACITY)


def squared_log_var(x, output, z_mean, z_log_var):
    terms = 1 + z_log_var - ops.square(z_mean) - ops.square(z_log_var)
    return 10 * squares(x, output) - 0.5 * ops.sum(terms, axis=1)


def by_the_book(x, output, z_mean, z_log_var):
    return 10 * squares(x, output) + kl(z_mean, z_log_var)


def wide_draws(inputs):
    z_mean, z_log_var = inputs
    return z_mean + ops.exp(z_log_var) * tf.random.normal(tf.shape(z_mean), dtype=z_mean.dtype)


# %% [markdown]
# Take a minute: **what is $\sigma^2$ in the first, and $\beta$ in the third?** Which of the six is wrong in a way that no
# weight can mend? The sixth loss is right, but its `wide_draws` aren't.
#
# ## 2. Ask the loss
#
# `kvae.audit` knows nothing of the code. It calls the function at chosen points: $x$ and reconstruction at a few values,
# $\mu$ and $\log \sigma^2$ along lines, batches of several sizes. From the values it says what the function is.

# %%
result = kvae.audit(keras_mse, SHAPE, LATENT_DIM)
result
#| check
assert result.names == ("squared-error-mean",) and np.isclose(result.sigma2, 392) and np.isclose(result.beta, 1)

# %% [markdown]
# Keras' mean squared error is an average over the $D = 784$ pixels: $c = 1/784$ and $\sigma^2 = 392$. Pixels between 0 and 1
# are believed to scatter by 20, and no code is worth a nat. Now all six:

# %%
#| output
losses = {
    "keras_mse": (keras_mse, kvae.Sampling(seed=0)),
    "small_weight": (small_weight, kvae.Sampling(seed=0)),
    "averaged_kl": (averaged_kl, kvae.Sampling(seed=0)),
    "clamped": (clamped, kvae.Sampling(seed=0)),
    "squared_log_var": (squared_log_var, kvae.Sampling(seed=0)),
    "wide_draws": (by_the_book, wide_draws),
}
audits = {name: kvae.audit(loss, SHAPE, LATENT_DIM, sampling=sampling) for name, (loss, sampling) in losses.items()}
for name, audit in audits.items():
    sigma2 = "-" if audit.sigma2 is None else f"{audit.sigma2:.4g}"
    print(f"{name:<16} sigma^2 {sigma2:>5}  beta {audit.beta:<8.4g} {', '.join(audit.names)}")
#| check
assert [audit.names[-1] for audit in audits.values()] == [
    *("squared-error-mean", "kl-weight", "kl-mean", "kl-dead", "kl-square", "sigma")
]
assert np.isclose(audits["small_weight"].sigma2_at_beta_1, 0.098) and np.isclose(audits["averaged_kl"].beta, 1 / 8)

# %% [markdown]
# - `small_weight` has $\beta = 0.00025$ beside $\sigma^2 = 392$. That looks absurd, and is the same as $\beta = 1$ with
#   $\sigma^2 = 0.098$: two mistakes that nearly cancel. It is a model. Only its number means nothing.
# - `averaged_kl` divides the KL by the number of latents. Change `LATENT_DIM`, and $\beta$ changes.
# - `clamped` has a KL that never changes: $\min(\mathrm{KL}, 0) = 0$. It is an autoencoder with noise that it can turn off.
# - `squared_log_var` has $(\log \sigma^2)^2$ where $\sigma^2$ belongs: its best variance isn't 1.
# - `wide_draws` takes the variance for the standard deviation.
#
# A finding says what follows, and the line to write:

# %%
#| output
print(audits["squared_log_var"].findings[0])

# %% [markdown]
# ## 3. What each does to samples
#
# We train a small VAE with each, by hand as a user would, and one with the right loss and the right draws. All have the same
# networks, start and data.

# %%
#| quick: EPOCHS = 2
EPOCHS = 20
data = kvae.data.load("drawn_digits", 6_000, examples=6_000, shuffle=0)
train, test = (next(iter(data[part])).numpy() / np.float32(255) for part in (0, 2))
test = test[:300]


class ByHand(keras.Model):
    def __init__(self, loss, sampling):
        super().__init__()
        self.function, self.sampling, sizes = loss, sampling, (SHAPE, LATENT_DIM, (256,))
        self.encoder, self.decoder = kvae.networks.dense_encoder(*sizes), kvae.networks.dense_decoder(*sizes)

    def call(self, x):
        z_mean, z_log_var = self.encoder(x)
        return self.function(x, self.decoder(self.sampling([z_mean, z_log_var])), z_mean, z_log_var)


# %%
def trained(loss, sampling):
    keras.utils.set_random_seed(0)
    model = ByHand(loss, sampling)
    model.compile(kvae.optimizers.Adam(2e-3), loss=lambda _, values: ops.mean(values))
    model.fit(train, np.zeros(len(train)), epochs=EPOCHS, batch_size=100, verbose=0)
    return model


pairs = {**losses, "right": (by_the_book, kvae.Sampling(seed=0))}
models = {name: trained(*pair) for name, pair in pairs.items()}

# %%
#| alt: Seven panels, each with test digits, their reconstructions and new images. The averaged error gives one grey blur for all. All others rebuild the digits; their new images are digits or shreds of them, most faint for the squared log-variance.
figure, panels = plt.subplots(2, 4, figsize=(10, 3.1))
z = np.random.default_rng(0).normal(size=(6, LATENT_DIM)).astype("float32")
for ax, (name, model) in zip(panels.flat, models.items()):
    images = [np.array(model.decoder(code)) for code in (model.encoder(test[:6])[0], z)]
    images = [1 / (1 + np.exp(-each)) for each in images] if name == "averaged_kl" else images
    show_tiles(ax, np.concatenate([test[:6], *images]), 6).set_title(name, fontsize=9)
for ax in panels[:, 0]:
    ax.set_yticks(range(3), ["test", "rebuilt", "new"])
panels[1, 3].set_axis_off()
#| check
rebuilt = {name: np.array(model.decoder(model.encoder(test)[0])) for name, model in models.items()}
error = {name: np.mean((each - test) ** 2) for name, each in rebuilt.items()}
assert np.std(rebuilt["keras_mse"], axis=0).max() < 0.1 < np.std(rebuilt["right"], axis=0).max()
assert max(error[name] for name in ("small_weight", "clamped", "right")) < 0.6 * error["keras_mse"]

# %% [markdown]
# In each panel: test digits, their reconstructions, and new images from $z \sim \mathcal N(0, I)$. `keras_mse` has one grey
# blur for everything, and those of `squared_log_var` are faint. The others rebuild their digits alike, and after so short a
# training their new images differ less than one would think. That is why such losses stay in print: a picture doesn't
# always tell. A number does.
#
# ## 4. The printed number beside log p(x)
#
# `kvae.audit_model` takes the two networks, the loss and unseen data. It puts the networks into a `kvae.VAE` with the
# likelihood that the loss *is*, brings the printed number to nats (without factors, with the constants), and estimates
# $\log p(x)$.

# %%
measured = {}
for name, model in models.items():
    loss, sampling = pairs[name]
    options = {"data": test, "sampling": sampling, "samples": 200}
    measured[name] = found = kvae.audit_model(model.encoder, model.decoder, loss, **options)
    numbers = -found.printed, -found.printed_in_nats, found.log_likelihood.elbo, found.log_likelihood.mean
    print("{:<16} printed {:9.2f}   in nats {:9.1f}   ELBO {:9.1f}   log p(x) {:9.1f}".format(name, *numbers))
    print(f"{'':<16} {', '.join(found.names) or 'nothing stands out'}")
#| check
assert not measured["right"].findings and "grey" in measured["averaged_kl"].names
assert "above-log-p" in measured["clamped"].names
wide = measured["wide_draws"]
assert -wide.printed_in_nats > wide.log_likelihood.elbo + 10
best = measured["right"].log_likelihood.mean
assert best > max(measured[name].log_likelihood.mean for name in ("clamped", "keras_mse")) + 10

# %%
#| alt: For four models with the same variance, the loss's claim in nats beside log p(x): equal or below for the right one, far above for the clamped one.
same = "right", "wide_draws", "squared_log_var", "clamped"
figure, ax = plt.subplots(figsize=(7, 2.4))
for height, name in enumerate(same):
    found = measured[name]
    ax.plot([-found.printed_in_nats, found.log_likelihood.mean], [height] * 2, color="0.8", zorder=0)
    ax.plot(-found.printed_in_nats, height, "o", color="C1", ms=9, label="claimed by the loss" if not height else None)
    ax.plot(found.log_likelihood.mean, height, "o", color="C0", ms=9, label="log p(x)" if not height else None)
ax.set_yticks(range(len(same)), same)
ax.set(xlabel="nats per unseen image", ylim=(-0.5, len(same) - 0.5))
ax.legend(loc="lower left");

# %% [markdown]
# A bound lies below $\log p(x)$: blue right of orange. Where orange is on the right, the loss claims more than the model has.
# That is a test which needs no formula: *no honest lower bound exceeds what it bounds*. The reverse doesn't hold: `wide_draws`
# claims less than $\log p(x)$ here, but far more than the ELBO of its own networks in the list above, whose draws it
# should be about.
#
# ## 5. Your own loss
#
# Paste it here, in Keras, TensorFlow or numpy. `beta=`, `free_bits=` and `capacity=` say what you mean; a fifth argument `z`
# and `samples=k` are for losses of several draws. A whole `kvae.VAE`, with a prior, likelihood or objective of your own, goes
# into `kvae.audit_model(vae, data=test)`: each of its parts is computed in a second way.


# %%
#| output
def my_loss(x, reconstruction, z_mean, z_log_var):  # TODO: yours
    errors = keras.losses.binary_crossentropy(x, reconstruction)
    return ops.sum(errors, axis=(1, 2)) + kl(z_mean, z_log_var)


print(kvae.audit(my_loss, event_shape=(32, 32, 3), latent_dim=16).findings[0])

# %% [markdown]
# ## Summary
#
# 1. A loss is a choice of $\sigma^2$ and $\beta$. Sums over pixels and latents, means over examples alone; any other mean is
#    a weight.
# 2. For squared errors only $w / 2c$ counts for the optimum, and $\sigma^2 = w / 2c$ says if it is sensible. A cross-entropy
#    has no such freedom.
# 3. A number in nats can be held against $\log p(x)$. A loss that claims more is no bound.
#
# ## Exercises
#
# 1. The loss of section 5 is Keras' own cross-entropy, summed over rows and columns. Why is $\beta = 3$, and what would it be
#    for grey images (28, 28, 1)?
# 2. Give `small_weight` a KL weight for which `sigma2_at_beta_1` is the squared error of a pixel that the model of `right`
#    ends with. Which weight is it?
# 3. Write a loss with free bits of 0.5 nats a latent. What does the audit say without, and what with `free_bits=0.5`?
#
# <details><summary>Answers</summary>
#
# To 1: the function averages over the last axis, the three channels. One channel is averaged over itself: $\beta = 1$.
#
# To 2: $\sigma^2 = w / 2c = 392\, w$, so $w = \sigma^2 / 392$. For $\sigma^2 = 0.03$ that is $w = 0.00008$.
#
# To 3: `ops.sum(ops.maximum(kl_terms(z_mean, z_log_var), 0.5), axis=1)` in place of `kl`. Without, `free-bits` is a finding;
# with it, nothing stands out.
# </details>
#
# ## References
#
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - I. Higgins and others. [*beta-VAE.*](https://openreview.net/forum?id=Sy2fzU9gl) 2017.
# - O. Rybkin, K. Daniilidis, S. Levine. [*Simple and effective VAE training with calibrated
#   decoders.*](https://arxiv.org/abs/2006.13202) 2021.
