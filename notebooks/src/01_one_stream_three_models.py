# %% [markdown]
# # Can one stream train PCA, an autoencoder and a variational autoencoder?
#
# **After this notebook you can**
# - read images from disk as a `tf.data` stream;
# - train three models on it, PCA, an autoencoder and a variational autoencoder (VAE), and compare them;
# - draw new images, move an image's code, save a model, and show that memory doesn't grow with the data.
#
# This is a tour, without formulas. Notebooks 02 to 05 explain what you see here.
#
# **Time:** three to four minutes on two cores. **Data:** `sprites`, small colour pictures of one shape each,
# drawn on your machine the first time, so nothing is downloaded.

# %%
#| setup
import json
import os
import subprocess
import sys
import tempfile

import keras
import numpy as np

from kvae.data.sprites.render import draw_factors, render

# %%
#| quick: EPOCHS = 4
#| quick: MOST = 40_000
EXAMPLES, SIZE = 10_000, 32  # training images; pixels a side
BATCH, LATENT_DIM = 64, 10  # images in a batch; numbers in a code
EPOCHS = 10  # passes over the stream
MOST = 200_000  # images in section 6

# %% [markdown]
# ## 1. A stream in place of an array
#
# An array holds every image at once. A stream holds the files on disk and hands out one batch after another.
# `kvae.data.load` gives three of them: for training, for validation while training, for the test at the end.

# %%
#| output
sprites = {"size": SIZE, "examples": EXAMPLES, "config_seed": 1}
train, validation, test = kvae.data.load("sprites", BATCH, **sprites)
spec = train.element_spec
print("an element:", spec.shape, spec.dtype.name, "- elements:", *map(len, (train, validation, test)))
#| check
assert kvae.data.image_shape(train) == (SIZE, SIZE, 3) and spec.dtype.name == "uint8"

# %% [markdown]
# An element is a batch: `None` images of 32 x 32 pixels and 3 colours. They stay `uint8`, one byte a value, until
# they are in the model, which scales them to numbers from 0 to 1.
#
# What is in the images? Each sprite is made of numbers, its *factors*, drawn independently. The models see only the
# pixels. The factors are there for us, to look at what the models found.

# %%
#| alt: Seven sprites, a shape of one colour each on a dark ground, with their hue, scale, orientation and place as text.
names = ("hue", "scale", "orientation", "x", "y")
labelled = kvae.data.load("sprites", BATCH, labels=names, **sprites)[2]
x_test, factors = next(labelled.rebatch(1_000).as_numpy_iterator())  # all test images as one batch
axes = plt.subplots(1, 7, figsize=(9.5, 2.4))[1]
for i, ax in enumerate(axes):
    ax.imshow(x_test[i])
    ax.set_title("\n".join(f"{name} {factors[name][i]:.2f}" for name in names), fontsize=8)
    ax.axis("off")

# %% [markdown]
# Hue 0 is red and 0.75 violet, scale and place are shares of the image's side, orientation is in radians. An image has
# 3,072 values, and six numbers made it: these five, and one for the shape. So short codes should do. We give every
# model ten numbers.
#
# ## 2. Three models
#
# **PCA** finds the ten directions along which the images vary most, and describes each image by its place on them. The
# **autoencoder** has two networks: an encoder that squeezes an image into ten numbers, and a decoder that makes an
# image of them again. The **VAE** has the same two networks, but its code is not a point. It is a small cloud of points, and
# all clouds together should fill a given one, so that new codes can be drawn. All three read the same stream.

# %%
shape = kvae.data.image_shape(train)


def networks():
    sizes = (shape, LATENT_DIM, (16, 32, 64))  # the last: channels of the convolutions
    return kvae.networks.conv_encoder(*sizes), kvae.networks.conv_decoder(*sizes)


keras.utils.set_random_seed(0)
models = {"PCA": kvae.PCA(LATENT_DIM, seed=0)}
models["autoencoder"] = kvae.Autoencoder(*networks())
models["VAE"] = kvae.VAE(*networks(), likelihood=kvae.GaussianLikelihood(), seed=0)

# %%
models["PCA"].fit(train, verbose=0)  # one pass
for name in ("autoencoder", "VAE"):
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train))
    models[name].compile(kvae.optimizers.Adam(schedule))
    models[name].fit(train, validation_data=validation, epochs=EPOCHS, verbose=0)  # verbose=1: a progress bar

# %% [markdown]
# ## 3. First picture: what comes back
#
# Six images that no model has seen, and what each model makes of its ten numbers.

# %%
#| alt: Six sprites and three reconstructions of each: PCA gives coloured clouds, autoencoder and VAE blobs of the right colour, place and size.
kvae.plots.reconstructions(models, test, count=6).set_title("");

# %%
results = kvae.evaluation.compare(models, test)
for name, numbers in results.items():
    nats = f"{numbers['log_likelihood']:.0f}" if name == "PCA" else "none"
    nats = f"at least {numbers['elbo']:.0f}" if name == "VAE" else nats
    print(f"{name:<12} squared error {numbers['squared_error']:6.2f}   log p(x) in nats: {nats}")
#| check
errors = {name: numbers["squared_error"] for name, numbers in results.items()}
assert max(errors["autoencoder"], errors["VAE"]) < 0.9 * errors["PCA"]
assert errors["VAE"] < errors["autoencoder"]
assert results["VAE"]["elbo"] > results["PCA"]["log_likelihood"]

# %% [markdown]
# PCA gives back a coloured cloud. The networks give back a blob of the right colour, place and size, and here and there
# its form. The table says the same in numbers: their squared error on the test images is a fraction of PCA's. The VAE
# comes out ahead of the autoencoder here. With other settings it is the other way round: in the README's table, after a
# longer training, the autoencoder is ahead.
#
# The last column is about something else. PCA and the VAE don't only code images, they also say how *probable* each
# image is: $\log p(x)$, in nats, higher is better. PCA's is exact, the VAE's number is a lower bound, and even the
# bound is ahead. The autoencoder has no such number.
#
# ## 4. Second picture: new images
#
# A model that knows how probable images are can also draw new ones. Here are 25 from PCA and 25 from the VAE.

# %%
#| alt: Left, PCA's samples: waves of several colours. Right, the VAE's: torn shapes of one colour on the dark ground.
left, right = plt.subplots(1, 2, figsize=(8, 4.2))[1]
kvae.plots.samples(models["PCA"], 25, ax=left).set_title("PCA")
kvae.plots.samples(models["VAE"], 25, ax=right).set_title("VAE");

# %% [markdown]
# PCA's samples are waves of several colours at once, and no sprite is like that. The VAE's have one colour on the dark
# ground, most of them. But they are wisps and torn shapes, some are empty, and all are far worse than its
# reconstructions: the cloud that new codes are drawn from is not quite the one that the codes of images fill. Notebook
# 06 shows that this is the reason, and [notebook 10](10_back_to_the_sprites.ipynb) mends it for these sprites.
#
# ## 5. Third picture: what the numbers mean
#
# Take one image's code, change a single number of it, decode.

# %%
#| alt: Five rows of seven images. Along each row one number of the code changes, and with it the sprite's place, colour or size.
kvae.plots.traversals(models["VAE"], x_test, count=5).set_title("The five numbers used most");

# %% [markdown]
# Each row changes one attribute or a mix of a few: where the sprite is, which colour, how large. Nobody told the model
# about them. The framed images are the closest to the original. Far from the frame some images break: no sprite has
# such a code. Move the numbers yourself, or click on a point of the plane. (This needs a running kernel. Without one
# you see a picture of it. [This page](pages/sprites.html) moves without a kernel: a model like ours, trained for longer.)

# %%
#| alt: The plane of the two latents used most, with the codes of 512 test images spread beyond the prior's dashed ring, and beside it the decoded image of the marked code.
kvae.widgets.explore(models["VAE"], x_test)

# %% [markdown]
# The points are the codes of 512 test images, in the plane of the two numbers used most. The dashed ring holds 95 % of the
# cloud that new codes are drawn from. The codes of images spread beyond it: here you see the reason for the torn samples.
#
# <iframe src="pages/sprites.html" title="Explore the latents of a VAE of sprites" loading="lazy" width="100%" height="940"></iframe>
#
# A model is one file: networks, optimizer, schedule and the state of the noise.

# %%
#| output
path = os.path.join(tempfile.mkdtemp(), "vae.keras")
models["VAE"].save(path)
same = np.array_equal(kvae.load(path).transform(x_test), models["VAE"].transform(x_test))
print("equal codes after saving and loading:", same)

# %% [markdown]
# ## 6. What did it cost? The memory
#
# A stream holds a batch, a few that are read ahead, and a shuffle buffer. It doesn't matter how many images there are.
# That is the claim. Let us test it, with 2,000, with 20,000 and with 200,000 *different* sprites. First we draw them, at 16 x 16
# pixels, into one file.

# %%
path = os.path.join(tempfile.mkdtemp(), "mine.npy")
file = np.lib.format.open_memmap(path, "w+", np.uint8, (MOST, 16, 16, 3))
for start in range(0, MOST, 10_000):
    file[start : start + 10_000] = render(draw_factors(2, 0, start, start + 10_000), size=16)
file.flush()
print(f"{MOST:,} images, {os.path.getsize(path) / 1e6:.0f} MB")

# %% [markdown]
# Two new Python processes then fit the same three models to more and more of them. One reads the file as a stream. The
# other loads the images as an array of numbers from 0 to 1, as one would without a stream. After each round each tells
# how much memory it has, TensorFlow included.

# %%
CHILD = """
import json, sys
import keras, kvae, numpy as np, psutil
kind, path, *counts = sys.argv[1:]
for count in map(int, counts):
    keras.utils.set_random_seed(0)
    x = kvae.data.from_npy(path, 100).take(count // 100)
    if kind == "array":
        x = np.load(path, mmap_mode="r")[:count] / np.float32(255)
    networks = kvae.networks.dense_encoder((16, 16, 3), 10, (64,)), kvae.networks.dense_decoder((16, 16, 3), 10, (64,))
    for model in kvae.PCA(10), kvae.Autoencoder(*networks), kvae.VAE(*networks, kvae.GaussianLikelihood()):
        if not isinstance(model, kvae.PCA):
            model.compile()
        model.fit(x, verbose=0)
    print(json.dumps(psutil.Process().memory_info().rss / 1e6), flush=True)
"""

# %%
#| quick: COUNTS = (1_000, 2_000, MOST)
COUNTS = (1_000, 2_000, 20_000, MOST)  # the first: everything compiled once
memory = {}
for kind in ("stream", "array"):
    command = [sys.executable, "-c", CHILD, kind, path, *map(str, COUNTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    memory[kind] = [json.loads(line) for line in done.stdout.splitlines() if line[:1].isdigit()]
    print(kind, [f"{count:,} images: {size:.0f} MB" for count, size in zip(COUNTS[1:], memory[kind][1:])])
#| check
assert len(memory["stream"]) == len(memory["array"]) == len(COUNTS), done.stderr[-500:]
stream, array = (memory[kind][-1] - memory[kind][1] for kind in ("stream", "array"))
assert stream < 100 < array or MOST < 200_000

# %%
#| alt: Memory over the number of images, on a logarithmic axis: the stream's line is flat, the array's turns up steeply.
ax = plt.subplots(figsize=(6, 3.4))[1]
for kind, colour in ("array", "C1"), ("stream", "C0"):
    ax.semilogx(COUNTS[1:], memory[kind][1:], "o-", color=colour, label=f"the {kind}'s process")
ax.set(
    xlabel="different images", ylabel="memory, MB", ylim=(0, None), title="Three models, fitted to more and more images"
)
ax.set_xticks(COUNTS[1:], [f"{count:,}" for count in COUNTS[1:]])
ax.minorticks_off()
ax.legend();

# %% [markdown]
# The stream's process has the memory of TensorFlow, and a hundred times the images add less than a tenth to it. The
# array's grows with every image, and these are tiny: 768 values each. On your own file it is the same line,
#
# ```python
# vae.fit(kvae.data.from_npy("mine.npy", batch_size=128))
# ```
#
# and there are `from_hdf5`, `from_parquet` and `from_folder` (see the [guide on data](guides/data.md)). Notebook 02 is
# stricter: it puts a cap on the memory, below a tenth of the file.
#
# ## Summary
#
# 1. One `tf.data` stream trains PCA, an autoencoder and a VAE, and the memory stays what it was.
# 2. With ten numbers an image, the networks' squared error is well below PCA's: sprites aren't a sum of a few images.
# 3. A VAE is more than a code. It scores images, draws new ones, and moving its numbers moves what images are made of.
#
# ## Exercises
#
# 1. Give all models a code of 2 numbers. What do they keep, and what do they give up? Then look at
#    `kvae.plots.manifold(models["VAE"])`.
# 2. Pass `callbacks=[kvae.callbacks.Live(validation)]` to the VAE's `fit`, and watch it train.
# 3. Run the same job from a terminal, `python -m kvae --epochs 3`, and read what it writes to `kvae-run/`.
#
# ## References
#
# - K. Pearson. [*On lines and planes of closest fit to systems of points in
#   space.*](https://doi.org/10.1080/14786440109462720) 1901.
# - G. Hinton, R. Salakhutdinov. [*Reducing the dimensionality of data with neural
#   networks.*](https://doi.org/10.1126/science.1127647) 2006.
# - D. Kingma, M. Welling. [*Auto-encoding variational Bayes.*](https://arxiv.org/abs/1312.6114) 2014.
# - D. Rezende, S. Mohamed, D. Wierstra. [*Stochastic backpropagation and approximate inference in deep generative
#   models.*](https://arxiv.org/abs/1401.4082) 2014.
