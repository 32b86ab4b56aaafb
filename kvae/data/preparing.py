"""One process at a time that prepares a set of tensorflow-datasets, and no leftovers of one that was killed."""

import contextlib
import os
import pathlib
import shutil
import warnings

UNFINISHED = "incomplete."  # with which the names of tfds' temporary folders begin


@contextlib.contextmanager
def alone(builder):
    """Within it no other process is, of this set and version; it waits for that. Gives whether the set is there then.

    The file of the lock holds the name of the folder that tfds prepares the set in: what a process that was killed has
    left is removed, and no folder of anyone else.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none
        yield builder.data_path.exists()
        return
    final = pathlib.Path(os.fspath(builder.data_path))
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = final.with_name(f".{final.name}.lock")
    with open(lock, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warnings.warn(f"another process is preparing {final}: waiting for its end", stacklevel=2)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        leftover = final.parent / file.read().strip()
        if leftover.parent == final.parent and leftover.name.startswith(UNFINISHED):
            shutil.rmtree(leftover, ignore_errors=True)
        _note_folder(builder, file)
        there = final.exists()
        yield there
        if there:
            builder.info.read_from_directory(builder.data_path)
        lock.unlink(missing_ok=True)


def _note_folder(builder, file):
    """Let the builder write into the file in which folder it prepares the set, once it is made."""
    prepare = builder._download_and_prepare

    def noted(*args, **kwargs):
        file.seek(0)
        file.truncate()
        file.write(pathlib.Path(os.fspath(builder.data_path)).name)
        file.flush()
        return prepare(*args, **kwargs)

    builder._download_and_prepare = noted
