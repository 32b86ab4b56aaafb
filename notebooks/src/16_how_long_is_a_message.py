# %% [markdown]
# # The bound as a file: how long is a message?
#
# **After this notebook you can**
# - read $-\log p(x)$ as the length of a message, and the evidence lower bound (ELBO) as the length of a real one;
# - say why sending $z$ costs only $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$: the rest of its bits come back;
# - compress images with a variational autoencoder (VAE), below gzip and PNG, and restore them bit by bit.
#
# **Time:** two minutes on two cores. **Data:** `drawn_digits`, drawn on your machine, in black and white.
#
# In the plots **blue** is the truth, a length that is possible or was reached, and **orange** what the model says.

# %%
#| setup
import bz2
import gzip
import io
import lzma
import tempfile

import keras
import numpy as np
from PIL import Image
from scipy.special import ndtr, ndtri

from kvae import exercises
from kvae.plots.canvas import show_tiles

# %% [markdown]
# ## 1. A probability is a length
#
# Suppose that sender and receiver know how probable each message is. Then the best code gives a message of probability $p$
# a length of $-\log_2 p$ bits, and no code is shorter on average (Shannon 1948). An image that the model calls probable
# becomes a short file, and one that it calls impossible has no file at all. So **a good density is a good compressor**,
# and $-\log p(x)$ is not an abstract score: it is a file size, in nats. One nat is 1.44 bits.
#
# For a VAE $p(x)$ is an integral that nobody can compute. What we do have are three densities that are easy:
# $p(z)$, $p(x \mid z)$ and $q(z \mid x)$. How long is a message that uses only these?
#
# We train a VAE on digits in black and white, 784 pixels of one bit each.

# %%
#| output
EXAMPLES, LATENT_DIM = 15_000, 20
EPOCHS = 20
gray, _, gray_test = kvae.data.load("drawn_digits", 128, examples=EXAMPLES)
train, test = kvae.data.binarize(gray), kvae.data.binarize(gray_test, anew=False)
x_test = np.concatenate(list(test.as_numpy_iterator()))
shape = kvae.data.image_shape(train)
print(f"{EXAMPLES:,} digits of {shape}, {len(x_test):,} to send")

# %%
keras.utils.set_random_seed(0)
pair = kvae.networks.dense_encoder, kvae.networks.dense_decoder
vae = kvae.VAE(*(network(shape, LATENT_DIM, (256, 256)) for network in pair), likelihood="bernoulli", seed=0)
vae.compile(kvae.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * len(train))))
vae.fit(train, epochs=EPOCHS, verbose=0)
numbers = vae.evaluate(x_test, verbose=0, return_dict=True)
bits = {name: numbers[name] / np.log(2) for name in ("reconstruction_loss", "kl_loss", "elbo")}
print(f"-ELBO: {-bits['elbo']:.0f} bits an image, of 784 without a model")
print(f"{bits['reconstruction_loss']:.0f} for the pixels given z, {bits['kl_loss']:.0f} for z")

# %% [markdown]
# ## 2. The plain way: send z, then x
#
# Send a code $z$ first, then the pixels with $p(x \mid z)$, which the receiver knows once they have $z$. A number $z_j$ has
# to be rounded to be sent. Divide its axis into $2^b$ buckets that are equally probable under $p(z)$. Then a bucket costs
# $b$ bits, whatever $z_j$ is, and the pixels cost $-\log_2 p(x \mid z)$ at the bucket's middle.
#
# How fine should the buckets be? Coarse ones make $z$ cheap and the pixels dear, fine ones the reverse.

# %%
#| alt: Bits an image against bits a latent. The plain message falls, has its least at a few bits a latent, and rises; the dashed line of minus ELBO is below the least.
some = x_test[:500]
mean = vae.transform(some)
choices, plain, pixels = np.arange(1, 12), [], []
for b in choices:
    bucket = np.floor(ndtr(mean) * 2**b)
    middle = ndtri((bucket + 0.5) / 2**b).astype("float32")
    pixels.append(-np.mean(vae.log_likelihood(some, middle)) / np.log(2))
    plain.append(pixels[-1] + LATENT_DIM * b)
bound = -np.mean([vae.draw(some).elbo for _ in range(20)]) / np.log(2)
ax = plt.subplots(figsize=(6.4, 3.4))[1]
ax.plot(choices, plain, "o-", label="z, then x")
ax.plot(choices, pixels, ":", color="C0", label="of it, the pixels")
ax.axhline(bound, color="C1", ls="--", label="-ELBO")
ax.set(xlabel="bits for each number of z", ylabel="bits an image", ylim=0)
ax.legend()
print(f"the best of the plain messages: {min(plain):.0f} bits an image; -ELBO: {bound:.0f}")
#| check
assert min(plain) > 1.1 * bound and 0 < np.argmin(plain) < len(choices) - 1

# %% [markdown]
# Even the best plain message is longer than the negative ELBO, by a tenth and more. The reason: many codes would do. All $z$ that
# $q(z \mid x)$ finds probable lead to nearly the same pixels, yet the message singles one of them out, and pays for that.
#
# ## 3. The bits that come back
#
# Turn the waste into a gain (Hinton and van Camp 1993). If it doesn't matter which $z$ of $q(z \mid x)$ we send, let it be
# decided by **other bits that we have to send anyway**, such as the files of the images before. Read them as if they
# were a message in the code of $q(z \mid x)$: a draw $z$ comes out, and $-\log_2 q(z \mid x)$ bits are used up. The receiver
# decodes $z$, then $x$. Now they know $q(z \mid x)$ too, encode $z$ with it, and **the bits are back**. So an image costs
#
# $$ \underbrace{-\log_2 p(x \mid z)}_{\text{pixels}} \; \underbrace{-\log_2 p(z)}_{\text{the code}} \;
# \underbrace{+ \log_2 q(z \mid x)}_{\text{come back}} , $$
#
# and on average over $q$ this is the negative ELBO: reconstruction plus $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$. **The KL is
# what $z$ costs after the bits came back.** In numbers, with $z$ in buckets of 16 bits:

# %%
#| alt: A stack of bars above zero, pixels and the code with 16 bits a number, and one below zero, the bits that come back. What is left is marked at minus ELBO.
fine, draw = LATENT_DIM * 16, vae.draw(x_test)
parts = draw.log_likelihood, draw.log_prior, draw.log_posterior
log_p_x, log_p_z, log_q = (np.mean(part) / np.log(2) for part in parts)
back = fine - (log_q - log_p_z)
ax = plt.subplots(figsize=(6.4, 3.2))[1]
bars = [(0, 0, -log_p_x, "C0", "pixels, given z"), (0, -log_p_x, fine, "C2", "z, 16 bits a number")]
bars += [(1, -log_p_x + fine - back, back, "0.75", "come back")]
for row, start, length, color, name in bars:
    ax.barh(row, length, left=start, color=color)
    ax.text(start + length / 2, row, name, ha="center", va="center", color="black" if row else "white")
ax.axvline(-bits["elbo"], color="C1", ls="--")
ax.text(-bits["elbo"] - 4, 1, "left: -ELBO", ha="right", va="center")
ax.set(yticks=[0, 1], yticklabels=["sent", "returned"], xlabel="bits an image", xlim=0)
ax.invert_yaxis()
total = -log_p_x + fine - back
print(f"pixels {-log_p_x:.1f} + z {fine} - back {back:.1f} = {total:.1f} bits; -ELBO {-bits['elbo']:.1f}")
#| check
assert abs(total + bits["elbo"]) < 1.5

# %% [markdown]
# It takes a store of bits that is last in, first out: what was put there last comes out first, by its probability.
# *Asymmetric numeral systems* (Duda 2009) are such a stack. Pushing a symbol of probability $p$ adds $-\log_2 p$ bits, and
# popping one removes as many. With a VAE on top this is *BB-ANS* (Townsend, Bird and Barber 2019), and in kvae it is two
# functions.
#
# ## 4. A real file

# %%
path = f"{tempfile.mkdtemp()}/digits.kvae"
compressed = kvae.compression.compress(vae, x_test, path)
restored = kvae.compression.decompress(path, vae)
print(compressed)
print(f"-ELBO is {-numbers['elbo']:.3f} nats. All bits the same: {np.array_equal(restored, x_test)}")
#| check
assert restored.tobytes() == x_test.tobytes()
assert 0.99 * -numbers["elbo"] < compressed.nats < 1.04 * -numbers["elbo"]

# %% [markdown]
# The file is as long as the ELBO said, within a per cent or two. What is on top is the start: the first image finds no
# bits to draw its $z$ with, and a header names the model. With more images both count for less.
#
# Is that short? The other programs below get the same images, packed to one bit a pixel where that helps them.

# %%
#| alt: Bars of bits per pixel. gzip, bz2, xz, PNG and WebP in blue are all longer than the VAE's file in orange.
white = (x_test > 0.5).astype("uint8")
lengths = {
    name: min(len(function(form)) for form in (white.tobytes(), np.packbits(white).tobytes()))
    for name, function in {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items()
}
rows = white[: len(white) // 40 * 40].reshape(-1, 40, 28, 28).transpose(0, 2, 1, 3).reshape(-1, 40 * 28)
for name, options in {"PNG": {"optimize": True}, "WebP": {"lossless": True, "quality": 100}}.items():
    file = io.BytesIO()
    Image.fromarray(rows * 255).convert("1" if name == "PNG" else "L").save(file, name, **options)
    lengths[name] = file.tell() * len(white) / (rows.size // 784)
lengths["VAE"] = compressed.size
per_pixel = {name: 8 * length / white.size for name, length in lengths.items()}
ax = plt.subplots(figsize=(6.4, 3))[1]
ax.bar(per_pixel.keys(), per_pixel.values(), color=["C1" if name == "VAE" else "C0" for name in per_pixel])
ax.set(ylabel="bits a pixel")
print(", ".join(f"{name} {length:.3f}" for name, length in per_pixel.items()))
#| check
assert per_pixel["VAE"] < 0.95 * min(length for name, length in per_pixel.items() if name != "VAE")

# %% [markdown]
# The VAE has seen digits before and the other programs haven't. The comparison is not quite fair: whoever wants to read the
# file needs the model, which is larger than the file here. It pays for many images, or where the model is there anyway.
#
# ## 5. What a message says of its image
#
# An image's length is $-\mathrm{ELBO}(x)$. Which are the shortest and the longest of the test images?

# %%
#| alt: Two rows of twelve digits. The shortest messages are thin ones and simple strokes; the longest are bold or unusual digits.
lengths_of_images = -np.mean([vae.draw(x_test).elbo for _ in range(5)], axis=0) / np.log(2)
order = np.argsort(lengths_of_images)
ax = show_tiles(None, np.concatenate([x_test[order[:12]], x_test[order[-12:]]]), 12)
means = [lengths_of_images[rows].mean() for rows in (order[:12], order[-12:])]
ax.set_yticks([0, 1], [f"shortest\n{means[0]:.0f} bits", f"longest\n{means[1]:.0f} bits"]);
#| check
assert means[1] > 2 * means[0]

# %% [markdown]
# Simple, common strokes are short. Long messages are what the model didn't expect, or what has many edges, where pixels are
# uncertain. For finding *odd* images a length is thus a mixed blessing: it counts how complicated an image is, too.
#
# ## 6. Shorter still
#
# $-\mathrm{ELBO} = -\log p(x) + \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$. The second term is what the message wastes
# because $q$ isn't the true posterior. `log_likelihood` estimates $\log p(x)$ with many draws:

# %%
#| quick: DRAWS = 50
DRAWS = 500
estimate = kvae.evaluation.log_likelihood(vae, x_test[:200], samples=DRAWS, verbose=0)
waste = (estimate.mean - estimate.elbo) / np.log(2)
print(f"of {-estimate.elbo / np.log(2):.0f} bits, at least {waste:.1f} are lost on q")
#| check
assert 0 < waste < 0.3 * -estimate.elbo / np.log(2)

# %% [markdown]
# A better posterior could save them. So there are two ways to shorter files: a better model, which makes $-\log p(x)$ smaller, and a better posterior. The ELBO
# counts both, and it counts them in the same unit.
#
# ## Summary
#
# 1. A density is a compressor: $-\log_2 p(x)$ bits for $x$.
# 2. Sending a chosen $z$ is wasteful. If other bits choose it, they come back, and $z$ costs
#    $\mathrm{KL}(q(z \mid x) \,\|\, p(z))$.
# 3. The negative ELBO is the length of a file that you can write, send and restore bit by bit.
#
# ## Exercises
#
# 1. Write `message_bits`: the net length of a message, from the three log densities of its $z$ in nats.

# %%
#| output
def message_bits(log_likelihood, log_prior, log_posterior):  # arrays (n,), in nats
    ...  # TODO: n numbers, in bits


exercises.message_bits(message_bits)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def message_bits(log_likelihood, log_prior, log_posterior):
#     return (log_posterior - log_likelihood - log_prior) / np.log(2)
# ```
# </details>
#
# 2. Compress the digits that `vae.sample` makes (with `noise=True`, the pixels drawn). Are they longer or shorter than
#    test images? Compress noise.
# 3. Train the VAE for twice as many epochs. How many bytes does the file lose?
#
# <details><summary>Answer to 2</summary>
#
# Noise takes more than the 784 bits that it would take without a model: the model is sure of the dark border, and wrong
# there. Samples of the model have on average the length that the model expects.
# </details>
#
# ## References
#
# - C. E. Shannon. *A mathematical theory of communication.* 1948.
# - G. Hinton, D. van Camp. *Keeping the neural networks simple by minimizing the description length of the weights.* 1993.
# - J. Duda. [*Asymmetric numeral systems.*](https://arxiv.org/abs/0902.0271) 2009.
# - J. Townsend, T. Bird, D. Barber. [*Practical lossless compression with latent variables using bits back
#   coding.*](https://arxiv.org/abs/1901.04866) 2019.
