"""How fast a VAE trains: kvae against Keras' own example, the same by hand in three frameworks, and Pythae.

python tests/benchmarks/training_speed.py [--cases mlp-128 mlp-512 conv] [--variants keras kvae ...] [--repeats 3]
    [--epochs 3] [--threads 1] [--peers-python PATH] [--data-dir DIR] [--output FILE]

Each variant trains in a process of its own that is held to as many cores as threads, one by default; a repeat runs
them one after the other (A B C A B C ...), so that a machine that is busy for a while slows all alike. Counted are the
epochs after the first, in seconds of the CPU (user and system, the whole process) and of the wall.

jax, torch and pythae need a Python with `pip install jax optax torch==2.13.0 pythae`; name it with --peers-python, or
one variant's with --python VARIANT=PATH. What can't be imported is left out, with the reason.

Images: Fashion-MNIST where tensorflow-datasets has prepared it, else noise of the same shape: the speed is the same.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from statistics import median

FOLDER = pathlib.Path(__file__).parent / "training_loops"
sys.path.insert(0, str(FOLDER))
from cases import CASES, SHAPE  # noqa: E402
from worker import MODULES, PEERS  # noqa: E402

VARIANTS = [variant for variant in MODULES if variant != "peak"]
BASELINE = "keras"
# PyTorch otherwise gives its large tensors back to the system at each step; the others don't notice.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        images = pathlib.Path(folder) / "images.npy"
        source = subprocess.run(
            [sys.executable, "-c", _PREPARE, str(images), options.data_dir or ""], check=True, capture_output=True
        )
        source = source.stdout.decode().splitlines()[-1]
        runs = measure(options, images)
    report = {"header": header(options, source, runs), "results": results(options, runs), "runs": runs}
    print(report["header"], "", table(report["results"]), "", *notes(options, runs), sep="\n")
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(report, indent=1))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="measured, after --warm-up others")
    parser.add_argument("--warm-up", type=int, default=1, help="epochs before the clock starts, at least 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers-python", default=sys.executable, help=f"of {', '.join(PEERS)}")
    parser.add_argument("--python", nargs="+", default=[], metavar="VARIANT=PATH", help="of single variants")
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    parser.add_argument("--output", help="a JSON file of every number")
    options = parser.parse_args()
    if min(options.warm_up, options.epochs, options.repeats) < 1:
        parser.error("--warm-up, --epochs and --repeats are at least 1")
    options.pythons = {variant: options.peers_python if variant in PEERS else sys.executable for variant in MODULES}
    options.pythons |= dict(item.split("=", 1) for item in options.python)
    return options


# In a process of its own, so that this one needn't import TensorFlow.
_PREPARE = f"""
import sys, numpy as np
try:
    import tensorflow_datasets as tfds
    images = tfds.load("fashion_mnist", split="train", data_dir=sys.argv[2] or None, download=False, batch_size=-1)
    images, source = np.asarray(images["image"]), "Fashion-MNIST"
except Exception as error:
    images = np.random.default_rng(0).integers(0, 256, (60_000, *{SHAPE}), "uint8")
    source = f"noise in place of Fashion-MNIST ({{type(error).__name__}})"
np.save(sys.argv[1], images)
print(source)
"""


def measure(options, images):
    """[{"case", "variant", "repeat", ...}] of every run."""
    runs = []
    for repeat in range(options.repeats):
        for case in options.cases:
            for variant in ["peak", *options.variants]:
                skipped = [run for run in runs if (run["case"], run["variant"]) == (case, variant) and "skipped" in run]
                if skipped:
                    continue
                run = {"case": case, "variant": variant, "repeat": repeat, **one(options, images, case, variant)}
                print(json.dumps(run), file=sys.stderr, flush=True)
                runs.append(run)
    return runs


def one(options, images, case, variant):
    command = [options.pythons[variant], str(FOLDER / "worker.py"), variant, case, "--images", str(images)]
    command += ["--epochs", options.epochs, "--warm-up", options.warm_up, "--threads", options.threads]
    paths = filter(None, [str(FOLDER.parents[2]), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, **_MALLOC, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"skipped": "failed: " + (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def results(options, runs):
    """A row a case and variant: rates, ratios to the baseline of the same repeat, shares of the peak, the loss."""
    rows = []
    for case in options.cases:
        by_variant = {name: [r for r in runs if (r["case"], r["variant"]) == (case, name)] for name in MODULES}
        peaks = {key: median(run[key] for run in by_variant["peak"]) for key in ("float32", "bfloat16", "layers")}
        base = {run["repeat"]: rate(run) for run in by_variant[BASELINE] if "skipped" not in run}
        for variant in options.variants:
            row = {"case": case, "variant": variant}
            rows.append(row)
            done = [run for run in by_variant[variant] if "skipped" not in run]
            if len(done) < len(by_variant[variant]):
                row["skipped"] = by_variant[variant][-1]["skipped"]
                continue
            rates, flops = [rate(run) for run in done], CASES[case].flops
            row["images_per_cpu_second"] = spread(rates)
            row["ratio"] = spread([rate(run) / base[run["repeat"]] for run in done]) if base else None
            row["images_per_second"] = median(run["images"] / run["wall_seconds"] for run in done)
            row["share_of_peak"] = median(rates) * flops / peaks["bfloat16" if "bf16" in variant else "float32"]
            row["share_of_layers_peak"] = median(rates) * flops / peaks["layers"]
            row["loss"] = median(run["loss"] for run in done)
    return rows


def rate(run):
    return run["images"] / run["cpu_seconds"]


def spread(values):
    return [median(values), min(values), max(values)]


def header(options, source, runs):
    versions = {}
    for run in runs:
        versions |= run.get("versions", {})
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    return (
        f"{cpu}, {os.cpu_count()} cores, {options.threads} thread(s) used; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + f"; {datetime.date.today()}. {source}; {options.repeats} repeats of {options.epochs} epochs after "
        f"{options.warm_up} of warm-up."
    )


def table(rows):
    lines = [
        "| case | variant | images per CPU s, median [min, max] | ratio to keras | images/s | share of peak "
        "| of the layers' own peak | loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "skipped" in row:
            lines.append(f"| {row['case']} | {row['variant']} | {row['skipped'].replace('|', '/')} | | | | | |")
            continue
        rates = "{:,.0f} [{:,.0f}, {:,.0f}]".format(*row["images_per_cpu_second"])
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"]) if row["ratio"] else ""
        lines.append(
            f"| {row['case']} | {row['variant']} | {rates} | {ratio} | {row['images_per_second']:,.0f} "
            f"| {row['share_of_peak']:.0%} | {row['share_of_layers_peak']:.0%} | {row['loss']:.2f} |"
        )
    return "\n".join(lines)


def notes(options, runs):
    for case in options.cases:
        peaks = [run for run in runs if run["variant"] == "peak" and run["case"] == case]
        rates = {key: median(run[key] for run in peaks) / 1e9 for key in ("float32", "bfloat16", "layers")}
        yield (
            f"{case}: matrix products reach {rates['float32']:,.0f} GFLOP/s in float32 and {rates['bfloat16']:,.0f} in "
            f"bfloat16 on large matrices, {rates['layers']:,.0f} in float32 on this model's own; an image takes "
            f"{CASES[case].flops / 1e6:.2f} MFLOP."
        )
    yield (
        "Ratios are medians over the repeats of the ratio to keras in the same repeat. Losses, nats per image, are the "
        "last epoch's mean; all variants start from the same weights and differ by noise and order of images, so they "
        "agree to about 1 %; conv leaves a plateau in its first epochs at a moment that the noise decides, by "
        "which its losses then differ by up to 15 %."
    )


if __name__ == "__main__":
    main()
