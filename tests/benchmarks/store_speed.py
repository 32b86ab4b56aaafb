"""How fast packed data come from a server over a link of limited speed: python tests/benchmarks/store_speed.py

A web server in a process of its own sends at most --speed megabytes a second. Read is an epoch of uint8 images of
28x28 pixels, in shuffled batches of 128 as for training, and then in the order of the pack, by one process. Prints the
rows' bytes a second as a share of the link's, and the CPU seconds of the reader.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

import kvae

SERVER = pathlib.Path(__file__).parents[1] / "helpers" / "range_server.py"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=50, help="of the link, megabytes a second")
    parser.add_argument("--megabytes", type=int, default=400, help="of images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = options.megabytes * 10**6 // 784
    with tempfile.TemporaryDirectory() as folder:
        images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), "uint8")
        kvae.data.pack(images, f"{folder}/set", progress=False)
        command = [sys.executable, str(SERVER), folder, str(options.speed * 1e6)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = f"http://localhost:{server.stdout.readline().strip()}/set"
                for name, shuffle in (("shuffled", 10_000), ("in order", 0)):
                    stream = kvae.data.load(address, validation=0, shuffle=shuffle)[0]
                    for number in range(options.rounds):
                        start, start_cpu = time.perf_counter(), time.process_time()
                        stream.epoch(number).reduce(0, lambda count, _: count + 1).numpy()
                        share = images.nbytes / (time.perf_counter() - start) / (options.speed * 1e6)
                        print(
                            f"{name}: {share:.3f} of the link, {time.process_time() - start_cpu:.1f} CPU s", flush=True
                        )
            finally:
                server.kill()


if __name__ == "__main__":
    main()
