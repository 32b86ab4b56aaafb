"""What one of several workers reads of packed data, and its CPU seconds: python tests/benchmarks/worker_reading.py

Each worker takes its rows of every batch. Small rows share a block with other workers' rows, so it reads all blocks.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

import kvae
from kvae.data.packed import writer
from kvae.data.packed.blocks import BlockReader


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    read, counted = BlockReader._read, []

    def counting(self, numbers):
        content = read(self, numbers)
        counted.append(len(content))
        return content

    BlockReader._read = counting
    print("bytes a row, workers: share of the bytes read, CPU seconds of a million rows (least of the rounds)")
    for size in (784, 12_288, 270_000):
        rows = options.megabytes * 2**20 // size // 128 * 128
        with tempfile.TemporaryDirectory() as folder:
            path, generator = pathlib.Path(folder) / "packed", np.random.default_rng(0)
            batches = ({"image": generator.integers(0, 256, (128, size), np.uint8)} for _ in range(rows // 128))
            writer.write_columns({"train": batches}, path)
            stream = kvae.data.load(path, 128, validation=0, shuffle=min(10_000, rows // 4))[0]
            seconds = {workers: [] for workers in (1, 2, 4)}
            for _ in range(options.rounds):
                for workers, found in seconds.items():
                    counted.clear()
                    epoch, start = stream.epoch(1, shard_index=workers - 1, num_shards=workers), time.process_time()
                    for _ in epoch:
                        pass
                    found.append((time.process_time() - start) / rows * 1e6)
                    share = sum(counted) / (rows * size)
                    if len(found) == options.rounds:
                        print(f"{size:7}, {workers}: {share:5.2f} {min(found):8.2f}", flush=True)


if __name__ == "__main__":
    main()
