"""Peak memory of training PCA, an autoencoder and a VAE on a stream, for two numbers of images.

python tests/benchmarks/memory.py [--size 32] [--examples 20000 200000] [--data-dir DIR]

Each case runs in a process of its own, on sprites prepared beforehand, for one epoch.
"""

import argparse
import json
import resource
import subprocess
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--examples", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--data-dir")
    parser.add_argument("--case", choices=["prepare", "train"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(case(options)))
        return
    print(f"{'images':>9} {'PCA':>8} {'autoencoder':>12} {'VAE':>8}   peak memory so far, MB (seconds)")
    for examples in options.examples:
        for name in "prepare", "train":
            arguments = ["--case", name, "--examples", examples, "--size", options.size]
            arguments += ["--batch-size", options.batch_size]
            arguments += ["--data-dir", options.data_dir] if options.data_dir else []
            command = [sys.executable, __file__, *map(str, arguments)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peaks = json.loads(printed.splitlines()[-1])
        print(f"{examples:>9}", *(f"{peak:.0f} ({seconds:.0f} s)" for peak, seconds in peaks.values()), flush=True)


def case(options):
    import keras

    import kvae

    train, validation, _ = kvae.data.load(
        "sprites", options.batch_size, size=options.size, examples=options.examples[0], data_dir=options.data_dir
    )
    if options.case == "prepare":
        return None
    shape = kvae.data.image_shape(train)

    def networks():
        return kvae.networks.conv_encoder(shape, 10), kvae.networks.conv_decoder(shape, 10)

    peaks = {}
    for name in "PCA", "autoencoder", "VAE":
        started = time.perf_counter()
        if name == "PCA":
            kvae.PCA(10).fit(train, verbose=0)
        else:
            model = (kvae.VAE if name == "VAE" else kvae.Autoencoder)(*networks())
            model.compile(keras.optimizers.Adam(1e-3))
            model.fit(train, validation_data=validation, verbose=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        peaks[name] = peak, time.perf_counter() - started
    return peaks


if __name__ == "__main__":
    main()
