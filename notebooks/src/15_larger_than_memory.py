# %% [markdown]
# # Can a VAE learn from a table that is ten times larger than memory?
#
# **After this notebook you can**
# - make a stream of a CSV file with numbers, counts, categories and holes, and pack it once;
# - train under a cap on memory, be killed in the middle, and go on;
# - write codes to disk, and train a classifier on them with a handful of labels.
#
# **Time:** three to six minutes on two cores. **Data:** a CSV file of 670 MB that we write, which is deleted at the end.

# %%
#| setup
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
from pyarrow import csv
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

# %%
#| quick: ROWS, CAP = 60_000, 1_000
#| quick: SAVE_EVERY = 20
ROWS, CAP = 2_200_000, 64  # of the table; the cap on memory in MB
SAVE_EVERY = 500  # steps from one checkpoint to the next
LATENT_DIM, CLASSES = 6, 6

# %% [markdown]
# ## 1. A table
#
# Think of a log of machines. A row has 30 readings, 5 counts of events and 5 texts, and one cell in ten is empty. Below it
# are three numbers that nobody has written down, around one of six points: the machine's condition. We know it, because we
# make the rows; in the log it is the column `state`, a label for the end.

# %%
rng = np.random.default_rng(1)
centers, bends = 1.2 * rng.normal(size=(CLASSES, 3)), 1.5 * rng.normal(size=(3, 40))
shifts = rng.uniform(0, 2 * np.pi, 40)


def draw(count, rng):
    state = rng.integers(0, CLASSES, count)
    hidden = centers[state] + 0.35 * rng.normal(size=(count, 3))
    signal = np.sin(hidden @ bends + shifts)  # bent: no column is linear in the hidden numbers
    noisy = signal + 0.8 * rng.normal(size=signal.shape)
    events = rng.poisson(np.exp(1 + 0.8 * signal[:, 30:35]))
    return noisy[:, :30].round(6), events, np.clip(np.floor(noisy[:, 35:] / 0.75 + 2), 0, 3).astype(int), state


# %%
def as_table(count, rng):
    readings, events, texts, state = draw(count, rng)
    columns = {f"reading {k}": readings[:, k] for k in range(30)} | {f"events {k}": events[:, k] for k in range(5)}
    columns |= {f"mode {k}": np.array(["off", "low", "high", "max"])[texts[:, k]] for k in range(5)}
    arrays = {name: pa.array(values, mask=rng.random(count) < 0.1) for name, values in columns.items()}
    return pa.table(arrays | {"state": [f"state {number}" for number in state]})


# %%
folder = pathlib.Path(tempfile.mkdtemp())
for name, rows in (("small", 60_000), ("large", ROWS)):
    (folder / name).mkdir()
    rng = np.random.default_rng(2)
    with csv.CSVWriter(folder / name / "log.csv", as_table(1, rng).schema) as file:
        for _ in range(0, rows, 20_000):
            file.write(as_table(20_000, rng))
size = os.path.getsize(folder / "large" / "log.csv") / 1e6
print(f"{ROWS:,} rows, {size:.0f} MB, {size / CAP:.0f} times the cap")
#| check
assert size > 10 * CAP or CAP == 1_000

# %% [markdown]
# ## 2. From the file to a stream
#
# `from_table` reads a block of the file at a time. One pass finds the categories, the means and the standard deviations,
# and checks each cell. An empty cell becomes NaN.

# %%
#| output
kinds = {f"reading {k}": "number" for k in range(30)} | {f"events {k}": "count" for k in range(5)}
kinds |= {f"mode {k}": "category" for k in range(5)}
stream = kvae.data.from_table(folder / "small" / "log.csv", kinds, labels="state", batch_size=512)
x, y = next(iter(stream))
print("x:", x.shape, x.dtype.name, "- empty:", f"{np.isnan(x).mean():.2f}", "- states:", len(stream.class_names))
for column in stream.columns[0], stream.columns[30], stream.columns[35]:
    print(f"{column.name:<10} {column.kind:<9} mean {column.mean:5.2f}  {', '.join(column.categories)}")

# %% [markdown]
# x has the table's own units. A text is the number of its category. `stream.columns` says what is what, and everything
# else follows from it: a likelihood that is a product over the columns,
#
# $$ \log p(x \mid z) = \sum_{j \text{ observed}} \log p(x_j \mid z), $$
#
# a normal distribution for a reading, a negative binomial one for a count, a categorical one for a text. What isn't
# observed is left out of the sum, which is exact. `columns_encoder` and `columns_decoder` make networks that fit.
#
# ## 3. Under a cap, and killed
#
# The work is a program of its own, `table_job.py` beside this notebook: `from_table`, `pack`, `load`, a VAE with
# `missing=True`, `fit` for an epoch with a `Checkpoint`, `save`. It does everything with the small table first, so that
# TensorFlow has its threads and buffers. From then on its memory is capped: at what it has, and 64 MB.
#
# `pack` writes the rows once to a folder, in blocks with checksums, for reading them costs less than a tenth of
# reading the text. And in the middle of the epoch we kill the program, without a warning.

# %%
#| output
command = [sys.executable, "table_job.py", str(folder), str(CAP), str(SAVE_EVERY)]
program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while program.poll() is None and not list((folder / "large" / "run").glob("*")):
    time.sleep(0.1)  # until there is a checkpoint
program.send_signal(signal.SIGKILL)
print("ended by", signal.Signals(-program.wait()).name, "- saved a model:", (folder / "large" / "model.keras").exists())
#| check
assert program.returncode == -signal.SIGKILL and not (folder / "large" / "model.keras").exists()

# %% [markdown]
# The same command again. The table is packed, so it goes on behind the last checkpoint, with the batch that came next.

# %%
done = subprocess.run(command, capture_output=True, text=True)
result = json.loads(done.stdout.splitlines()[-1])
train, validation, test = kvae.data.load(folder / "large" / "packed", 512, labels="state", validation=0.02)
print(f"{result['steps']:,} steps for {len(train):,} batches; {result['growth']:.0f} MB beyond the warm-up's peak")
#| check
assert result["steps"] == len(train), done.stderr[-500:]
assert result["growth"] is None or result["growth"] < 64

# %% [markdown]
# Each batch was taken once, and the file of 670 MB needed less than 64 MB. As an array of numbers it has 700 MB: the
# program would have ended at the cap, before the first step.
#
# ## 4. What has it learned?
#
# Which columns does the model describe, and how well? `column_scores` compares its reconstruction of each column with the
# mean of the column, and with its most frequent text.

# %%
#| alt: Bars for the columns, their error with the model as a share of that without it: most are between a half and nine tenths.
model = kvae.load(folder / "large" / "model.keras")
scores = kvae.evaluation.column_scores(model, test)
ax = plt.subplots(figsize=(8, 2.8))[1]
colors = {"number": "C0", "count": "C1", "category": "C2"}
for kind, color in colors.items():
    places = [number for number, column in enumerate(scores.columns) if column.kind == kind]
    ax.bar(places, (scores.error / scores.baseline)[places], color=color, label=kind)
ax.axhline(1, color="black", lw=1)
ax.set(xlabel="column", ylabel="error, of that without the model", ylim=(0, 1.3), title="Six numbers for forty columns")
ax.legend(ncols=3);
#| check
assert np.median(scores.error / scores.baseline) < 0.95 or CAP == 1_000

# %% [markdown]
# The noise in a reading can't be coded. It is more than half of its variance, so that no model gets far below 0.75, and
# for many columns ours is near it.
#
# A row of the model is a row of a table: drawn, and with texts in place of their numbers.

# %%
rows = model.likelihood.columns.decode(model.sample(3, noise=True, seed=0))
for name in ("reading 0", "reading 1", "events 0", "mode 0", "mode 1"):
    print(f"{name:<10}", *(f"{value:>8.2f}" if "reading" in name else f"{value!s:>8}" for value in rows[name]))
#| check
assert set(rows["mode 0"]) <= {"off", "low", "high", "max"} and rows["events 0"].dtype == int

# %% [markdown]
# ## 5. Codes to disk, and a few labels
#
# Codes are six numbers a row. `transform(directory=...)` writes them, with their labels, a batch at a time.

# %%
model.transform(test, directory=folder / "codes")
codes, _, _ = kvae.data.load(folder / "codes", 512, labels="label", validation=0, shuffle=0)
z, state = (np.concatenate(part) for part in zip(*codes.as_numpy_iterator()))
features = kvae.layers.ColumnFeatures(test.columns)  # standardized, one-hot, zeros in gaps
raw = np.concatenate([features(x).numpy() for x, _ in test])
pca = kvae.PCA(LATENT_DIM).fit(test.map(lambda x, y: features(x)), verbose=0)
inputs = {"the row itself": raw, "6 axes of PCA": pca.transform(raw), "6 numbers of the VAE": z}
print({name: values.shape for name, values in inputs.items()})

# %% [markdown]
# Someone now looks at a few machines and writes down their state. How many have to be looked at? A logistic regression is
# fitted to 12, 30, 100, 300 labels, ten times each, and asked about other rows.

# %%
COUNTS = (12, 30, 100, 300)


def accuracy(values, count, seed):
    values = StandardScaler().fit_transform(values)
    order = np.random.default_rng(seed).permutation(len(values))
    known, asked = order[:count], order[-5_000:]
    classifier = LogisticRegression(max_iter=1_000).fit(values[known], state[known])
    return classifier.score(values[asked], state[asked])


found = {name: [[accuracy(v, count, seed) for seed in range(10)] for count in COUNTS] for name, v in inputs.items()}
#| check
means = {name: np.mean(values, axis=1) for name, values in found.items()}
assert CAP == 1_000 or (means["6 numbers of the VAE"] > means["the row itself"]).all(), means

# %%
#| alt: Accuracy over the number of labels, for the row itself, PCA and the VAE's codes; the codes' line is the highest.
ax = plt.subplots(figsize=(6, 3.4))[1]
for name, values in found.items():
    ax.errorbar(COUNTS, np.mean(values, 1), np.std(values, 1) / 10**0.5, fmt="o-", label=name, capsize=3)
ax.set(xscale="log", xlabel="labels", ylabel="accuracy", title="Few labels, and 40 columns, or 6 numbers")
ax.set_xticks(COUNTS, COUNTS)
ax.minorticks_off()
ax.legend();

# %% [markdown]
# With few labels, 56 features are too many: most of what a classifier sees in them is noise. Six numbers are enough, and
# the VAE's are better than PCA's, since the columns are bent. The model read two million rows without a label to find
# them; the labels only name what it has found.

# %%
shutil.rmtree(folder)

# %% [markdown]
# ## Summary
#
# 1. `from_table` makes a stream of a table: kinds, categories, means and scales in one pass, bad cells by file and row.
# 2. The likelihood is a product over the columns, so that a hole is left out exactly, and each column keeps its unit.
# 3. Packed once, read in blocks, saved as it goes: a VAE learns from a table of ten times the memory, and a kill loses
#    the steps since the last checkpoint.
#
# ## Exercises
#
# 1. Break a cell of the file, say with the text `broken` in a reading of row 1,000. What does `from_table` say, and when?
# 2. Fill the holes: `model.impute(x, draws=20)` for rows of which you hide some cells. How far are the means from them?
# 3. Which rows are odd? Put the events of a hundred rows of `test` in another order, and look for them with
#    `model.score_samples`.
#
# ## References
#
# - A. Nazábal, P. Olmos, Z. Ghahramani, I. Valera. [*Handling incomplete heterogeneous data using
#   VAEs.*](https://doi.org/10.1016/j.patcog.2020.107501) 2020.
# - P.-A. Mattei, J. Frellsen. [*MIWAE: deep generative modelling and imputation of incomplete data
#   sets.*](https://proceedings.mlr.press/v97/mattei19a.html) 2019.
