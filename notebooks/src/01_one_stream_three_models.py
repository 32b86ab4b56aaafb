# %% [markdown]
# # Can one stream train PCA, an autoencoder and a variational autoencoder?
#
# **After this notebook you can**
# - read images from disk as a `tf.data` stream, and say what it holds in memory;
# - train three models on that stream: PCA, an autoencoder, a variational autoencoder (VAE);
# - compare them on images that none of them has seen, move their codes, draw new images, and save the models.
#
# **Time:** two minutes on two cores. **Data:** `sprites`, small colour pictures of one shape each,
# drawn on your machine the first time, so nothing is downloaded.

# %%
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is imported: errors only

import tempfile
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import psutil

import kvae

QUICK = "KVAE_QUICK" in os.environ  # set by the tests: smaller runs

# %%
EXAMPLES, SIZE = 10_000, 32  # training images; pixels a side
BATCH, BUFFER = 64, 2_000  # images in a batch; images in the shuffle buffer
LATENT_DIM, FILTERS = 10, (16, 32, 64)  # numbers in a code; channels of the networks
EPOCHS, LEARNING_RATE = (4 if QUICK else 10), 2e-3  # passes over the stream; Adam's first step size
FIRST_BETA = 1.0 if QUICK else 20.0  # the KL's weight at the start; a short run has no time to be frugal
FACTORS = ("hue", "scale", "orientation", "x", "y")
plt.style.use("petroff10")  # colours for colour-blind readers
plt.rcParams.update({"figure.dpi": 66, "image.interpolation": "nearest"})

# %% [markdown]
# ## 1. A stream in place of an array
#
# An array holds every image at once. A stream holds the files on disk and hands out one batch after another.
# `kvae.data.load` gives three of them: for training, for validation while training, for the test at the end.

# %%
# NBVAL_CHECK_OUTPUT
train, validation, test = kvae.data.load("sprites", BATCH, size=SIZE, examples=EXAMPLES, config_seed=1, shuffle=BUFFER)
shape, spec = kvae.data.image_shape(train), train.element_spec
print("an element:", spec.shape, spec.dtype.name, "- elements:", *map(len, (train, validation, test)))
assert shape == (SIZE, SIZE, 3) and spec.dtype.name == "uint8"

# %% [markdown]
# An element is a batch: `None` images of 32 x 32 pixels and 3 colours. They stay `uint8`, one byte a value, until
# they are in the model, which scales them to $[0, 1]$. The stream knows its length, so every epoch has an end.
#
# What would the same images cost as an array of `float64`, the type in which most PCA code works?

# %%
# NBVAL_CHECK_OUTPUT
features = int(np.prod(shape))
image_bytes, batch_bytes, covariance_bytes = 8 * features, BATCH * features, 8 * features**2
print(f"an image has {features:,} values; {EXAMPLES:,} of them as float64 are {EXAMPLES * image_bytes / 1e6:.1f} MB")
print(f"a uint8 batch is {batch_bytes / 1e6:.1f} MB, however many images there are")

# %% [markdown]
# At 25 kB an image a laptop of 16 GB is full after 650,000 of these small pictures. What a stream holds does not
# grow: a batch, a few that are read ahead, and the shuffle buffer of compressed files. We shall not take that on
# trust. From here on we note, after every pass, how many images were read so far and how much memory this whole
# Python process has, TensorFlow included.

# %%
notes = []  # (stage, images read so far, MB, seconds)


def note(stage, images):
    before = notes[-1][1] if notes else 0
    notes.append((stage, before + images, psutil.Process().memory_info().rss / 1e6, time.perf_counter()))


note("reading", 0)
for _ in range(EPOCHS):
    note("reading", sum(len(batch) for batch in train))
growth, as_array = notes[-1][2] - notes[0][2], EPOCHS * EXAMPLES * image_bytes / 1e6
print(f"{notes[-1][1]:,} images read: memory grew by {growth:.0f} MB; an array of as many has {as_array:,.0f} MB")
assert notes[-1][1] == EPOCHS * EXAMPLES and growth < 0.3 * as_array

# %% [markdown]
# Each sprite is made of numbers, its *factors*, drawn independently. The models see only pixels. The factors are
# there for us, to look at what the models found. A thousand test images fit in memory, so here we take them all.

# %%
labelled = kvae.data.load("sprites", BATCH, labels=FACTORS, size=SIZE, examples=EXAMPLES, config_seed=1)[2]
x_test, factors = next(labelled.rebatch(EXAMPLES).as_numpy_iterator())  # all of them as one batch
x_test = x_test / np.float32(255)


def strip(images, titles):
    axes = plt.subplots(1, len(images), figsize=(1.3 * len(images), 2), layout="constrained")[1]
    for ax, image, title in zip(axes, images, titles, strict=True):
        ax.imshow(np.clip(image, 0, 1))
        ax.set_title(title, fontsize=8)
        ax.axis("off")


strip(x_test[:7], ["\n".join(f"{name} {factors[name][i]:.2f}" for name in FACTORS) for i in range(7)])

# %% [markdown]
# The strip shows seven images and what they were drawn from. Hue 0 is red and 0.75 violet, scale and position are
# shares of the image's side, orientation is in radians. A good code of such an image needs about six numbers,
# these five and one for the shape.
#
# ## 2. PCA: the best linear code
#
# Principal component analysis (PCA) keeps a mean and a few orthogonal axes, the rows of $W$. The code of an image is
#
# $$ z = W (x - \mu), \qquad \hat x = \mu + W^\top z . $$
#
# Among all linear codes of this size, none has a smaller squared error $\lVert x - \hat x \rVert^2$.
#
# | symbol | in kvae |
# | --- | --- |
# | $\mu$, $W$ | `pca.mean`, `pca.components` |
# | $z$, $\hat x$ | `pca.transform(x)`, `pca.reconstruct(x)` |
#
# PCA is usually computed from the whole array, and so it ends where memory ends. It need not. $W$ is made of the
# leading eigenvectors of the covariance matrix, and a covariance is a sum over images: one pass over the stream
# adds it up, exactly. What it does hold is that matrix, and the matrix grows with the *square* of the features:
# large images end this PCA too.

# %%
# NBVAL_CHECK_OUTPUT
note("PCA", 0)
pca = kvae.PCA(LATENT_DIM, seed=0).fit(train, verbose=0)
note("PCA", EXAMPLES)
axes = pca.components.numpy()
print("components:", axes.shape, "from", int(pca.examples), "images in one pass")
print(f"covariance: {features} x {features}, {covariance_bytes / 1e6:.1f} MB")
assert np.allclose(axes @ axes.T, np.eye(LATENT_DIM), atol=1e-6)

# %%
looks = [0.5 + axis.reshape(shape) / (2 * abs(axis).max()) for axis in axes[:6]]
strip([pca.mean.numpy().reshape(shape), *looks], ["mean", *(f"axis {i}" for i in range(len(looks)))])


# %% [markdown]
# The mean is a blur, since sprites are everywhere. The axes (grey is zero) are broad waves of colour. Adding such
# waves is all that a linear code can do, and a moving edge is not a sum of a few of them.
#
# ## 3. The autoencoder: the same aim, without straight lines
#
# An autoencoder replaces both matrices by neural networks, `encoder` and `decoder`, and keeps the aim:
#
# $$ \min\; \lVert x - \mathrm{decoder}(\mathrm{encoder}(x)) \rVert^2, $$
#
# summed over the image, averaged over images. Backpropagation does it batch by batch, from the same stream.
# Training is silent here (`verbose=0`); with `verbose=1` you'd see Keras' progress bar. The picture shows the run.


# %%
def networks():
    sizes = (shape, LATENT_DIM, FILTERS)
    return kvae.networks.conv_encoder(*sizes), kvae.networks.conv_decoder(*sizes)


def noting(stage):
    note(stage, 0)
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: note(stage, EXAMPLES))


keras.utils.set_random_seed(0)
steps = EPOCHS * int(train.cardinality())
learning_rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
autoencoder = kvae.Autoencoder(*networks())
autoencoder.compile(keras.optimizers.Adam(learning_rate))

# %%
run = autoencoder.fit(train, validation_data=validation, epochs=EPOCHS, verbose=0, callbacks=[noting("autoencoder")])
pca_error = pca.evaluate(validation, return_dict=True, verbose=0)["squared_error"]
ax = kvae.plots.history(run)
ax.axhline(pca_error, color="grey", ls="--", label=f"PCA, validation: {pca_error:.1f}")
ax.legend(frameon=False)
assert run.history["val_loss"][-1] < 0.9 * pca_error

# %% [markdown]
# The autoencoder starts above PCA's line, crosses it within a few epochs and ends far below. The dashed blue line
# (images not trained on) stays close to the solid one, so it has not merely learned its training images by heart.
#
# ## 4. The variational autoencoder: a model of where images come from
#
# A code is not yet a model of images. A VAE tells a story of how an image comes about:
#
# 1. An unobserved $z$ is drawn from the **prior** $p(z) = \mathcal N(0, I)$.
# 2. The **decoder** turns it into a distribution of images, $p(x \mid z) = \mathcal N(\text{mean}(z), \sigma_x^2 I)$,
#    with a mean from a network and a variance that is learned as well.
#
# How probable is an image? $\;p(x) = \int p(x \mid z)\, p(z)\, dz\;$ runs over all $z$, through a neural network:
# nobody can compute it exactly. So the posterior $p(z \mid x) = p(x \mid z)\, p(z) / p(x)$ is out of reach as well.
# So a second network stands in for the posterior: $q(z \mid x) = \mathcal N(\mu(x), \Sigma(x))$, $\Sigma$ diagonal.
# For any such $q$
#
# $$ \log p(x) \;\ge\; \underbrace{\mathbb E_{q}[\log p(x \mid z)]}_{\text{reconstruction}}
#    \;-\; \underbrace{\mathrm{KL}\left(q(z \mid x) \,\Vert\, p(z)\right)}_{\text{distance from the prior}} . $$
#
# The right side is the evidence lower bound (ELBO). It is maximised over both networks at once.
#
# | symbol | in kvae |
# | --- | --- |
# | $p(z)$, $p(x \mid z)$ | `vae.prior`, `vae.likelihood` on the decoder's output |
# | $\mu$, $\log \operatorname{diag} \Sigma$ | `z_mean`, `z_log_var`, the encoder's two outputs |
# | the two terms | `-reconstruction_loss` and `kl_loss`, in nats per image |
# | the bound | `elbo`; its negative is what `kvae.ELBO()` minimises |
#
# The first term needs random draws of $z$, and a random draw has no gradient. The **reparameterization trick** moves
# the randomness aside: $z = \mu + \sigma \odot \varepsilon$ with $\varepsilon \sim \mathcal N(0, I)$, and $\sigma$
# the *square root* of the variance. `kvae.Sampling` is that line; `z` now has a gradient in $\mu$ and $\sigma$.
#
# One thing is added. With 3,072 pixels the first term is in the thousands, so early in training the KL hardly
# counts. We weigh it with 20 (`FIRST_BETA`) at first and let the weight, `beta`, fall to 1. In the second half of
# training what is minimised is the negative ELBO itself. So the encoder first has to be frugal, and later may say more.
#
# `kvae.callbacks.Live` draws while the model trains, in one picture that changes.

# %%
beta = keras.optimizers.schedules.PolynomialDecay(FIRST_BETA, int(0.5 * steps), end_learning_rate=1.0)
vae = kvae.VAE(*networks(), likelihood=kvae.GaussianLikelihood(), seed=0)
vae.compile(keras.optimizers.Adam(learning_rate), loss=kvae.ELBO(beta))
live = kvae.callbacks.Live(validation)
run = vae.fit(train, validation_data=validation, epochs=EPOCHS, verbose=0, callbacks=[noting("VAE"), live])
assert float(beta(vae.optimizer.iterations)) == 1 and run.history["val_elbo"][-1] > run.history["val_elbo"][0]

# %% [markdown]
# Left, the loss and the reconstruction term fall together, and in the second half they differ by the KL alone. Below
# them the KL grows as its weight falls: the encoder says more and more about each image. The top row is what it was
# given, the row below what the decoder makes of it; the samples on the right come from no image at all.

# %% [markdown]
# ## 5. Three models, one table
#
# All three have codes of ten numbers, and none was trained or chosen on the test images: their settings were found on
# other sprites, of another `config_seed`. The squared error is summed over an image. $\log p(x)$ is exact for PCA,
# where everything is Gaussian, at least this for the VAE, and the autoencoder has none.

# %%
models = {"PCA": pca, "autoencoder": autoencoder, "VAE": vae}
results = kvae.evaluation.compare(models, test)
errors = {name: numbers["squared_error"] for name, numbers in results.items()}
assert max(errors["autoencoder"], errors["VAE"]) < 0.9 * errors["PCA"]
assert results["VAE"]["elbo"] > results["PCA"]["log_likelihood"]
for name, numbers in results.items():
    nats = numbers.get("elbo", numbers.get("log_likelihood", "none"))
    print(f"{name:<12} squared error {numbers['squared_error']:6.2f}   log p(x) in nats {nats:>8.6}")
kvae.plots.comparison(results, LATENT_DIM);
# %%
kvae.plots.reconstructions(models, test, count=6);
# %% [markdown]
# From ten numbers PCA gives back a coloured cloud. The two networks give back a shape with an outline, in the right
# place and colour. Squared error is all that the autoencoder trains for, while the VAE was kept frugal for half of
# its training. What the VAE has beside its error is a density, by whose bound it is ahead in the table.
#
# ## 6. New images
#
# PCA has a density too. *Probabilistic PCA* is the same story with a linear decoder: $z \sim \mathcal N(0, I)$, then a
# linear map, then noise. So both can make images up: draw $z$ from the prior, decode it.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(5.4, 3), layout="constrained")
kvae.plots.samples(pca, 25, ax=left).set_title("PCA: samples (means)")
kvae.plots.samples(vae, 25, ax=right).set_title("VAE: samples (means)");
# %% [markdown]
# PCA's samples are waves of several colours at once, which no sprite is. Most of the VAE's are one spot of one
# colour on the dark ground, and some nearly a shape. They are blurred, and some are broken: this is a small
# model after a few short epochs, and the prior also covers codes that no image has.
#
# ## 7. What do the latents mean?
#
# Take one image's code, change a single number of it, decode.

# %%
kvae.plots.traversals(vae, x_test, count=5, ax=plt.subplots(figsize=(5, 3.7), layout="constrained")[1]);
# %% [markdown]
# Each row changes one attribute or a mix of a few: where the sprite is, which colour, how large. Far from the frame
# some images break: no sprite has such a code. Move the latents yourself, or click on a point of the plane. (This
# needs a running kernel; without one you see a picture of it. [This page](pages/sprites.html) moves without one: a model
# like ours, trained for longer.)

# %%
kvae.widgets.explore(vae, x_test)

# %% [markdown]
# The points are the codes of 512 test images, in the plane of the two latents used most. The ring is the code whose
# image is shown, at first that of the first test image. Far from all points the decoder has never been.
#
# <iframe src="pages/sprites.html" title="Explore the latents of a VAE of sprites" loading="lazy" width="100%" height="940"></iframe>
#
# ## 8. Keep it
#
# A model is one file: networks, optimizer, schedule and the state of the noise. Keras loads it as it is.

# %%
# NBVAL_CHECK_OUTPUT
path = os.path.join(tempfile.mkdtemp(), "vae.keras")
vae.save(path)
loaded, codes = keras.saving.load_model(path), vae.transform(x_test)
print("equal codes after loading:", np.array_equal(loaded.transform(x_test), codes))
way = np.linspace(0, 1, 7, dtype="float32")[:, None]
strip(loaded.inverse_transform((1 - way) * codes[0] + way * codes[1]), [f"{w:.2f}" for w in way[:, 0]])

# %% [markdown]
# The loaded model decodes codes on the straight line from the first test image's to the second's. Place, size
# and form change step by step.
#
# ## 9. What did it cost?
#
# Here are all the notes: the memory of the process against the images it has read, and how many a second.

# %%
stages, read, memory, seconds = (np.array(column) for column in zip(*notes, strict=True))
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(read / 1e3, read * image_bytes / 1e6, "--", color="black", lw=2, label="an array of as many images (computed)")
for stage in dict.fromkeys(stages.tolist()):
    at = stages == stage
    ax.plot(read[at] / 1e3, memory[at], "o-", lw=2.5, ms=4, label=f"this process: {stage}")
    print(f"{stage:<12} {np.ptp(read[at]) / np.ptp(seconds[at]):8,.0f} images a second")
ax.set(xlabel="images read so far, thousands", ylabel="memory, MB", title="Memory while three models read one stream")
ax.legend(frameon=False, fontsize=8)
assert np.ptp(memory) < 0.25 * read[-1] * image_bytes / 1e6

# %% [markdown]
# The dashed line is what as many images need as an array, and grows with every one. The solid line doesn't: it steps
# up a little where a model and its training are compiled, and stays there however many images go by. Reading is
# faster than training (whose time has its compilation and validation in it), so the disk isn't what the networks
# wait for.
#
# ## Summary
#
# 1. A stream holds a batch and a shuffle buffer, however many images there are. PCA adds one covariance matrix.
# 2. At equal code size the networks' squared error is well below PCA's: sprites aren't a sum of a few fixed images.
# 3. A VAE is a density and not only a code: it scores images by a bound on $\log p(x)$, draws new ones, and moving
#    its latents moves what the images are made of.
#
# ## Exercises
#
# 1. How many megabytes is PCA's covariance for images of 64 x 64 pixels and 3 colours? Set `answer` below.
# 2. Set `beta` to 1 from the start. Are the samples and the traversals better or worse? And the ELBO?
# 3. Set `LATENT_DIM = 2`, run all up to section 5, and look at `kvae.plots.manifold(vae)`.

# %%
# NBVAL_CHECK_OUTPUT
answer = None  # megabytes (10**6 bytes)
print("exercise 1:", "right" if answer and abs(answer / (16 * covariance_bytes / 1e6) - 1) < 0.01 else "not yet")

# %% [markdown]
# ## References
#
# - K. Pearson. *On lines and planes of closest fit to systems of points in space.* 1901.
# - M. Tipping, C. Bishop. *Probabilistic principal component analysis.* 1999.
# - G. Hinton, R. Salakhutdinov. *Reducing the dimensionality of data with neural networks.* 2006.
# - D. Kingma, M. Welling. *Auto-encoding variational Bayes.* 2014.
# - D. Rezende, S. Mohamed, D. Wierstra. *Stochastic backpropagation and approximate inference in deep generative
#   models.* 2014.
# - I. Higgins and others. *beta-VAE: learning basic visual concepts with a constrained variational framework.* 2017.
# - C. Burgess and others. *Understanding disentangling in beta-VAE.* 2018.
