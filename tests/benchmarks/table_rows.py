"""Rows of 40 mixed columns from Parquet with holes: opened, read, packed, fitted, scored. CPU seconds and memory.

python tests/benchmarks/table_rows.py [--rows 500000] [--folder DIR]
python tests/benchmarks/table_rows.py --rows 5000000 --folder DIR

The rows are 24 numbers, 8 categories of 3 to 10 values and 8 counts, all of three latents, and each cell is empty with
probability 0.1. A warm-up of all stages on 20,000 rows comes first; growth is the peak memory beyond the peak of that.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

COLUMNS, HOLES, BATCH = 40, 0.1, 512
WARM_UP = 20_000


def kinds():
    return {
        **{f"number {column}": "number" for column in range(24)},
        **{f"category {column}": "category" for column in range(8)},
        **{f"count {column}": "count" for column in range(8)},
    }


def write(path, rows):
    """A Parquet file with row groups of 50,000 rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import scipy.special

    weights = np.random.default_rng(0).normal(size=(3, COLUMNS))
    writer = None
    for start in range(0, rows, 50_000):
        rng, count = np.random.default_rng(start), min(50_000, rows - start)
        signal = rng.normal(size=(count, 3)) @ weights
        noise = rng.normal(size=(count, COLUMNS))
        columns = {}
        for number, (name, kind) in enumerate(kinds().items()):
            values = signal[:, number] + 0.5 * noise[:, number]
            if kind == "number":
                values = 50 + 10 * values
            elif kind == "category":
                levels = 3 + int(name.split()[1]) % 8
                share = scipy.special.ndtr(values / np.sqrt(np.square(weights[:, number]).sum() + 0.25))
                values = np.array([f"level {level}" for level in range(levels)])[(share * levels).astype(int)]
            else:
                values = rng.poisson(np.exp(1 + 0.3 * signal[:, number]))
            columns[name] = pa.array(values, mask=rng.random(count) < HOLES)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stages(path, folder, model=None):
    """{stage: (CPU seconds, seconds, peak memory so far, MB)}, and the model."""
    import kvae

    seconds = {}

    def timed(stage, function):
        start = cpu(), time.perf_counter()
        result = function()
        seconds[stage] = (cpu() - start[0], time.perf_counter() - start[1], peak())
        return result

    def read(stream):
        for _ in stream.epoch(0):
            pass

    rows = timed("opened: one pass fits the columns", lambda: kvae.data.from_table(path, kinds(), batch_size=BATCH))
    timed("read from Parquet", lambda: read(rows))
    timed("read and packed", lambda: kvae.data.pack(rows, folder / "packed", progress=False))
    train, _, _ = kvae.data.load(folder / "packed", BATCH, validation=0)
    timed("read from the packed rows, shuffled", lambda: read(train))
    if model is None:
        likelihood = kvae.ColumnsLikelihood(train.columns)
        encoder = kvae.networks.columns_encoder(likelihood, 3, missing=True)
        model = kvae.VAE(encoder, kvae.networks.columns_decoder(likelihood, 3), likelihood, seed=0, missing=True)
        model.compile(kvae.optimizers.Adam(1e-3))
    history = timed("fitted, an epoch", lambda: model.fit(train, epochs=1, verbose=0)).history
    timed("scored, a draw a row", lambda: model.score_samples(train, 1, directory=folder / "scores of one"))
    timed("scored, 10 draws a row", lambda: model.score_samples(train, 10, directory=folder / "scores"))
    return seconds, model, history


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--folder", help="for the file, the packed rows and the scores; default a temporary one")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.rows)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        for part, rows in (("warm-up", WARM_UP), ("table", options.rows)):
            (folder / part).mkdir()
            command = [sys.executable, __file__, "--rows", str(rows), "--write", str(folder / part / "x.parquet")]
            subprocess.run(command, check=True)  # a process of its own: its memory doesn't count
        _, model, _ = stages(folder / "warm-up" / "x.parquet", folder / "warm-up")
        before = peak()
        found, _, history = stages(folder / "table" / "x.parquet", folder / "table", model)
    epoch = found["fitted, an epoch"][0]
    print(f"{options.rows:,} rows of {COLUMNS} columns, {HOLES:.0%} of the cells empty; ELBO {history['elbo'][-1]:.2f}")
    print(f"{'':36} {'rows / CPU s':>12} {'CPU s':>8} {'s':>8} {'of an epoch':>12} {'growth, MB':>11}")
    for stage, (cpu_seconds, wall, memory) in found.items():
        share = f"{cpu_seconds / epoch:.0%}"
        speed = f"{options.rows / cpu_seconds:,.0f}"
        print(f"{stage:36} {speed:>12} {cpu_seconds:8.1f} {wall:8.1f} {share:>12} {memory - before:11.0f}")


if __name__ == "__main__":
    main()
