"""Several workers write one folder of packed data: each packs its share beside the others, the first one joins them."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kvae import files, replicas
from kvae.data import arrays
from kvae.data.packed import format, shards, writer
from kvae.data.shares import Share, num_batches

PARTS = ".part-*-of-*"


def write_shares(
    columns: Callable[[Any], Iterable[shards.Rows]], data: Any, directory: pathlib.Path, share: Share, batch_size: int
) -> None:
    """Writes columns made from the data as the split "train", the rows in the order of one process.

    A run that is killed goes on, with as many workers, as that of `write_columns` does.

    Args:
        columns: function from batches to the batches {column: array (n, ...)} to write.
        data: a dataset of batches or arrays.
        directory: a new or empty folder, of several workers one that all of them can write to.
        share: this worker's.
        batch_size: int, of arrays.

    Raises:
        FileExistsError: if the folder holds packed data or other files.
        OSError: if another worker fails.
        ValueError: of several workers, if batches before the last one differ in length.
    """
    if share.workers == 1:
        return writer.write_columns({"train": columns(data)}, directory, progress=0)
    if not hasattr(data, "element_spec"):
        data = arrays.in_order(data, batch_size)
    part, failed = directory / f".part-{share.number}-of-{share.workers}", 1
    try:
        files.make_folder(directory)
        if (directory / format.MANIFEST).exists():
            raise FileExistsError(f"{directory} holds packed data already: give another folder")
        if not any(directory.glob(PARTS)):  # else a run was killed here, and this one goes on
            writer.new_manifest(directory, ["train"])
        count, first = num_batches(data), next(iter(columns(arrays.batches_from(data, 0).take(1))))
        layout: Any = _layout(first, count, share.workers)
        together = layout["shard_bytes"] // layout.pop("batch_bytes")
        start, stop = share.stretch(count, together)
        if start < stop:
            _reopen(part)
            own = columns(share.batches(data, together=together))
            own = _of_equal_length(own, len(next(iter(first.values()))), range(start, stop), count)
            writer.write_columns({"train": own}, part, progress=0, **layout)
        elif part.exists():
            shutil.rmtree(part)
        failed = 0
    finally:
        failures = share.sum(failed)[0]
    if failures:
        raise OSError(f"another worker couldn't write its share of {directory}: see its error")
    with replicas.first_alone(share.strategy, f"join the shares in {directory}") as is_first:
        if is_first:
            _join(directory, share.workers)


def _layout(first, count, workers):
    """The arguments of `write_columns`: blocks and shards of whole batches, at least a shard for each worker."""
    batch_bytes = max(np.asarray(rows).nbytes for rows in first.values())
    block = max(1, min(writer.BLOCK_BYTES // batch_bytes, count // workers))  # batches
    shard = block * max(1, min(writer.SHARD_BYTES // (block * batch_bytes), -(-count // (block * workers))))
    return {"batch_bytes": batch_bytes, "block_bytes": block * batch_bytes, "shard_bytes": shard * batch_bytes}


def _of_equal_length(batches, length, numbers, count) -> Iterator[shards.Rows]:
    for number, batch in zip(numbers, batches, strict=True):
        rows = len(next(iter(batch.values())))
        if rows != length and (rows > length or number < count - 1):
            raise ValueError(
                f"batch {number} of x has {rows} rows and the first one {length}: several workers can share batches of "
                "one length alone, with a smaller one at the end; rebatch the stream"
            )
        yield batch


def _reopen(part):
    """Lets `write_columns` compare a finished share with the data, as it does with an unfinished one."""
    if (part / format.MANIFEST).exists():
        format.save_manifest(part, {**format.read_manifest(part), "complete": False})


def _join(directory, workers):
    """Makes one pack of the shares. The shards get second names first, so that a killed run can go on at any time."""
    parts = [directory / f".part-{number}-of-{workers}" for number in range(workers)]
    parts = [part for part in parts if part.exists()]  # of more workers than shards some have none
    manifests = [format.read_manifest(part) for part in parts]
    layouts = [manifest["splits"]["train"] for manifest in manifests]
    expected, paths = shards.describe_layout(layouts[0]), {name: [] for name in layouts[0]["columns"]}
    for part, layout in zip(parts, layouts, strict=True):
        if (found := shards.describe_layout(layout)) != expected:
            raise shards.other_data_error(directory, f"{found} in a share", f"{expected} as in the first")
        for name, column in layout["columns"].items():
            paths[name] += [format.shard_path(part, "train", name, number) for number in range(len(column["shards"]))]
    joined = {**layouts[0], "rows": sum(layout["rows"] for layout in layouts)}
    joined["columns"] = {
        name: {**column, "shards": [shard for layout in layouts for shard in layout["columns"][name]["shards"]]}
        for name, column in layouts[0]["columns"].items()
    }
    for name, of_column in paths.items():
        for number, path in enumerate(of_column):
            _name_again(path, format.shard_path(directory, "train", name, number))
    format.save_manifest(directory, {**manifests[0], "splits": {"train": joined}})
    for part in directory.glob(PARTS):
        shutil.rmtree(part)


def _name_again(path, new):
    """Gives a file a second name, or a copy on a file system without such names."""
    new.unlink(missing_ok=True)
    with files.atomic_path(new) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
