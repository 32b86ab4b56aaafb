"""Packs a CSV table, fits a VAE to it, and saves the model, under a cap on memory. On Linux:

python table_job.py FOLDER MEGABYTES SAVE_EVERY

It does all of it with FOLDER/small/log.csv first, for TensorFlow's threads and buffers, and then with
FOLDER/large/log.csv: the cap is on what the process takes beyond that. Killed, it goes on when it is called again.
Prints a JSON line: MB of growth, and the model's steps.
"""

import json
import os
import pathlib
import shutil
import sys

LEAN = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
LEAN |= {"TF_CPP_MIN_LOG_LEVEL": "3"}

KINDS = {f"reading {k}": "number" for k in range(30)} | {f"events {k}": "count" for k in range(5)}
KINDS |= {f"mode {k}": "category" for k in range(5)}


def job(folder, save_every):
    """Pack, fit for an epoch, save."""
    import kvae

    if not (folder / "is_packed").exists():
        rows = kvae.data.from_table(folder / "log.csv", KINDS, labels="state", batch_size=512)
        kvae.data.pack(rows, folder / "packed", progress=False)
        (folder / "is_packed").touch()
    train = kvae.data.load(folder / "packed", 512, validation=0.02)[0]
    likelihood = kvae.ColumnsLikelihood(train.columns)
    encoder = kvae.networks.columns_encoder(likelihood, 6, missing=True)
    decoder = kvae.networks.columns_decoder(likelihood, 6)
    model = kvae.VAE(encoder, decoder, likelihood, seed=0, missing=True)
    model.compile(kvae.optimizers.Adam(2e-3))
    checkpoint = kvae.callbacks.Checkpoint(folder / "run", save_every=save_every)
    model.fit(train, epochs=1, callbacks=[checkpoint], verbose=0)
    model.save(folder / "model.keras", overwrite=True)
    return int(model.optimizer.iterations)


def main():
    if sys.platform == "linux" and not LEAN.items() <= os.environ.items():  # stacks and buffers count under the cap
        import resource

        resource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | LEAN)
    folder, megabytes, save_every = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    small = folder / "warm-up"
    shutil.rmtree(small, ignore_errors=True)
    shutil.copytree(folder / "small", small)
    job(small, save_every)
    if sys.platform == "linux":
        import resource

        import under_a_cap

        pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, starts anew
        before = under_a_cap.memory("VmRSS")
        limit = under_a_cap.memory("VmData") + megabytes * 10**6
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    steps = job(folder / "large", save_every)
    growth = (under_a_cap.memory("VmHWM") - before) / 1e6 if sys.platform == "linux" else None
    print(json.dumps({"growth": growth, "steps": steps}))


if __name__ == "__main__":
    main()
