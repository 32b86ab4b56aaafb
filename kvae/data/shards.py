"""Columns of arrays written as `.npy` shards, bit by bit, atomically, so that what was killed goes on."""

import contextlib
import importlib.metadata
import itertools
import math
import operator
import os
import pathlib
import re
import time

import numpy as np

from kvae.data import columns, manifest
from kvae.data.progress import bar

SHARD_BYTES = 2**28
BLOCK_BYTES = 2**18
PAUSE = 10  # times what a save took, until the next


def write(
    splits, directory, *, source=None, licence=None, progress=None, shard_bytes=SHARD_BYTES, block_bytes=BLOCK_BYTES
):
    """Write columns of any names as `pack` does; the first column is what `load` gives as x.

    splits: {split: iterable of batches {column: array (n, ...)}}, n as it comes.
    shard_bytes, block_bytes: of the column with the largest rows.

    Raises FileExistsError where the folder holds a finished pack, or files and no pack, and ValueError where it holds
    an unfinished one of other data.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        content = _begun(directory, splits)
        content.update(source=source, licence=licence)
        with _Saved(directory, content) as saved:
            for name, batches in splits.items():
                _write_split(name, _shown(name, batches, progress), saved, shard_bytes, block_bytes)
            content["complete"] = True
            saved.save()


class _Saved:
    """The manifest, which is saved so seldom that its saves take a tenth of the time, and where an exception ends it.

    A killed pack writes anew what it wrote since the last save. One that an exception ends before its first shard
    leaves nothing.
    """

    def __init__(self, directory, content):
        self.directory, self.content = directory, content
        self.changed, self.next = False, -math.inf
        self.begun = (directory / manifest.MANIFEST).exists()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        if kind and not self.begun and not any(manifest.shards(self.directory, self.content)):
            (self.directory / manifest.MANIFEST).unlink(missing_ok=True)
        elif self.changed:
            self.save()

    def change(self):
        """Save, unless that was just done."""
        self.changed = True
        if time.monotonic() >= self.next:
            self.save()

    def save(self):
        start = time.monotonic()
        manifest.save(self.directory, self.content)
        end = time.monotonic()
        self.changed, self.next = False, end + PAUSE * (end - start)


def _shown(name, batches, progress):
    """The batches, as numpy arrays, while a bar shows how many there were."""
    shown, number = bar(operator.length_hint(batches) or None, f"batch of {name}", progress), 0
    for number, batch in enumerate(batches, start=1):
        yield {column: np.asarray(values) for column, values in batch.items()}
        shown.update(number, finalize=False)
    shown.update(number, finalize=True)


@contextlib.contextmanager
def _alone(directory):
    """The only one that packs into the folder, however others end."""
    import fcntl  # Windows has none, and kvae's other parts need none

    folder = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise FileExistsError(f"another process is packing into {directory}: wait for its end") from None
    finally:
        os.close(folder)


def _begun(directory, splits):
    """The manifest of an unfinished pack of the same splits, or a new one."""
    for name in splits:
        columns.check_name("split", name)
    if not (directory / manifest.MANIFEST).exists():
        _check_empty(directory)
        version = importlib.metadata.version("keras-vae")
        return {
            "format": manifest.FORMAT,
            "version": manifest.VERSION,
            "kvae": version,
            "complete": False,
            "splits": {},
        }
    content = manifest.read(directory)
    if content["complete"]:
        raise FileExistsError(f"{directory} holds packed data already: load them, or give another folder")
    manifest.check(directory, content)
    if set(content["splits"]) - set(splits):
        raise columns.other(directory, f"the splits {list(content['splits'])}", list(splits))
    shard = rf"({'|'.join(splits)})-\w+-\d{{5,}}\.npy"
    for leftover in directory.glob(f"*{manifest.UNFINISHED}"):
        if re.fullmatch(f"{shard}|{manifest.MANIFEST}", leftover.name.removesuffix(manifest.UNFINISHED)):
            leftover.unlink()
    return content


def _check_empty(directory):
    """Raise FileExistsError for files that no pack has left: its first is the manifest."""
    leftover = manifest.MANIFEST + manifest.UNFINISHED
    names = sorted(path.name for path in directory.iterdir() if path.name != leftover and path.name[0] != ".")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise FileExistsError(f"{directory} holds {names[0]}{more}, and no pack: give a new or an empty folder")


def _write_split(name, batches, saved, shard_bytes, block_bytes):
    """Write one split, or compare it where it is there."""
    directory, first = saved.directory, next(batches, None)
    if first is None:
        raise ValueError(f"{name} is empty: its stream ended before the first batch")
    layout = columns.layout(first, shard_bytes, block_bytes)
    split = saved.content["splits"].setdefault(name, layout)
    if split is layout:
        saved.change()  # ahead of the first shard, so that files in a folder without a manifest aren't a pack's
    if columns.described(split) != columns.described(layout):
        raise columns.other(directory, f"{columns.described(split)} in {name}", columns.described(layout))
    with contextlib.ExitStack() as stack:
        writers = {
            column: stack.enter_context(columns.Column(directory, name, column, split)) for column in split["columns"]
        }
        for block in columns.blocks(itertools.chain([first], batches), split):
            finished = [writers[column].add(values) for column, values in block.items()]
            if any(finished):
                saved.change()
        for writer in writers.values():
            writer.end()
    if not split["complete"]:
        rows = sum(shard["rows"] for shard in next(iter(split["columns"].values()))["shards"])
        split.update(rows=rows, complete=True)
        saved.change()
