"""The .keras archive of a model: saved whole with its card, and validated before it is loaded."""

import collections
import contextlib
import errno
import json
import os
import pathlib
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from io import BufferedReader
from typing import Any

from keras import ops

from kvae import _compat, arguments, files, replicas
from kvae.saving import model_card
from kvae.saving.safety import (
    CONFIG,
    WEIGHTS,
    Refusal,
    damage,
    harm,
    limit_variables,
    validate_config,
    validate_weights,
)

_ASSET = re.compile(r"assets/([\w-]+/)*vocabulary\.txt")  # of Keras' lookup layers
_MAX_NAMES = 2**20  # bytes of the archive's directory
_MAX_CONFIG = 2**22  # bytes
_SPARE = 2**26  # bytes of variables that needn't be in the file
_SPARE_VARIABLES = 1_000
_MAX_MEMBERS = 1_000
_MAX_NAME = 200  # bytes
_TRIES = 20  # while another process saves


def save(model: Any, path: str | os.PathLike[str], overwrite: bool, write: Callable[[pathlib.Path], Any]) -> None:
    """Writes a model's file and its cards (`path` with .card.json and .card.md), each whole or not at all.

    Args:
        model: has a `record`.
        path: ends in .keras.
        overwrite: whether existing files are replaced.
        write: function that writes the model's file to a path.

    Raises:
        ValueError: if the path doesn't end in .keras.
        FileExistsError: if there is a file already and overwrite is False.
        OSError: if a file can't be written. The existing files stay as they were.
    """
    overwrite = arguments.boolean("overwrite", overwrite)
    path = files.absolute(path)
    if path.suffix != ".keras":
        raise ValueError(f"path is {str(path)!r}, expected one that ends in .keras")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be saved: there is no folder {path.parent}")
    if replicas.is_first(model.distribute_strategy):  # the others don't wait: a script may save on the first alone
        _save(model, path, overwrite, write)


def _save(model, path, overwrite, write):
    cards = model_card.card_paths(path)
    for each in cards:
        _validate_length(each)
    target = pathlib.Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be saved: it is a link to {target}, and there is no folder for that")
    more = [card for card in model_card.card_paths(target) if os.path.lexists(card)]  # of a link's target
    every_card = {os.path.realpath(card): card.suffix for card in (*cards, *more)}
    advice = "make room, or give another folder; an older file is as it was"
    with (
        files.explain_errors(path, lambda: _bytes(model), advice),
        files.lock_file(path),
        contextlib.ExitStack() as stack,
    ):
        existing = [each for each in (path, *cards) if os.path.lexists(each)]
        if existing and not overwrite:
            raise FileExistsError(
                f"{existing[0]} exists: give another name, or overwrite=True to replace what is there"
            )
        opened = [(stack.enter_context(files.atomic_write(card)), suffix) for card, suffix in every_card.items()]
        temporary = stack.enter_context(files.atomic_path(path, ".keras"))
        write(temporary)
        files.sync(temporary)
        card = model_card.make_card(model, temporary, path.name)
        content = {".json": json.dumps(card, indent=1), ".md": model_card.markdown(card)}
        for file, suffix in opened:
            file.write(content[suffix].encode())
            file.flush()
        for old in every_card:  # of the old file: with it the new one would be refused
            pathlib.Path(old).unlink(missing_ok=True)


def _bytes(model):
    optimizers = [optimizer for optimizer, _ in model._optimized() if optimizer]
    variables = [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
    return sum(ops.convert_to_numpy(variable).nbytes for variable in variables)


def _validate_length(path):
    """Raises OSError for a name longer than the file system takes. The names of the cards are the longest."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            message = f"name too long: its card {path.name} would have {len(os.fsencode(path.name))} bytes"
            raise OSError(error.errno, f"{message}; give a shorter one") from None


def load(path: str | os.PathLike[str]) -> Any:
    """Loads a model that `model.save(path)` wrote. It is safe for files from strangers: it runs no code of theirs.

    Before it makes anything from the file, it validates the checksum (if the card is beside the file), the names and
    sizes in the archive, the configuration (which may name only classes and functions of Keras and kvae that neither
    run code nor read files), and the weights (numbers within the file). Then it calls `keras.saving.load_model`.

    Args:
        path: a .keras file in a local folder: download a model that is elsewhere first.

    Returns:
        The model, compiled as it was saved.

    Raises:
        ValueError: if the file is damaged, isn't a model, or could do harm. Says why. A model with layers of your own
            is refused too: `keras.saving.load_model` loads it.
        FileNotFoundError: if there is no such file.

    Example:

    >>> import tempfile, numpy as np, kvae
    >>> model = kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(20, 5)), verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/pca.keras")
    ...     loaded = kvae.load(f"{folder}/pca.keras")
    >>> type(loaded).__name__, loaded.latent_dim
    ('PCA', 2)
    """
    path = pathlib.Path(arguments.path("path", path))
    if path.suffix != ".keras":
        raise ValueError(f"{path} is refused: only .keras files are read, other kinds can hold code that is run")
    for tries_left in reversed(range(_TRIES)):
        before = model_card.versions(path)
        try:
            with files.open_regular(path) as file:
                return _load(path, file)
        except files.NotAFile:
            raise ValueError(f"{path} is damaged or not a .keras file: it isn't a file") from None
        except ValueError:
            if not tries_left or model_card.versions(path) == before:
                raise  # else another process has saved, and this was half of each
    return None


def _load(path: pathlib.Path, file: BufferedReader) -> Any:
    """The model in an open file: what is loaded is what was validated, also if another process replaces the file."""
    model_card.verify_checksum(path, file)
    try:
        config, weights = _read_members(file)
        size, count = validate_weights(weights)
        validate_config(config, size)
        del weights
        file.seek(0)
        with limit_variables(4 * size + _SPARE, 4 * count + _SPARE_VARIABLES):
            model = _compat.load_model(file)
    except Refusal as refusal:
        raise ValueError(f"{path} is {refusal}") from None
    except Exception as error:  # of a configuration that Keras can't follow, in any way
        refusal = damage(f"Keras makes no model of it, {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise ValueError(f"{path} is {refusal}") from error
    _warn_of_nonfinite(model, path)
    return model


def _warn_of_nonfinite(model, path):
    for variable in model.weights:
        if "float" in variable.dtype and not bool(ops.all(ops.isfinite(variable))):
            message = f"{path} has NaN or infinite numbers in its weights, such as {variable.path}"
            warnings.warn(f"{message}: the model was saved so, and computes nothing of use", stacklevel=4)
            return


def _read_members(file: BufferedReader) -> tuple[Any, bytes]:
    """(configuration, bytes of the weights), after the validation of the archive's directory."""
    size = os.fstat(file.fileno()).st_size
    _validate_end(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            _validate_directory(archive.infolist(), size)
            content = {info.filename: archive.read(info) for info in archive.infolist()}  # compares checksums too
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError) as error:
        raise damage(error) from None
    try:
        return json.loads(content[CONFIG]), content[WEIGHTS]
    except RecursionError:
        raise harm(f"its {CONFIG} is nested too deep") from None
    except ValueError:
        raise damage(f"its {CONFIG} isn't JSON") from None


def _validate_end(file: BufferedReader, size: int) -> None:
    """The end of an archive gives the size of its directory. zipfile reads a directory of any size into memory."""
    file.seek(max(size - 98, 0))
    end = file.read()
    if end[-22:-18] != b"PK\5\6" or end[-2:] != b"\0\0":
        raise damage(f"{size} bytes that don't end as one does" if size else "it is empty")
    names = struct.unpack("<I", end[-10:-6])[0]
    if end[-42:-38] == b"PK\6\7" and end[-98:-94] == b"PK\6\6":
        names = struct.unpack("<Q", end[-58:-50])[0]
    if names > _MAX_NAMES:
        raise harm(f"its list of names has {names} bytes")


def _validate_directory(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > _MAX_MEMBERS:
        raise harm(f"it holds {len(members)} files, expected {_MAX_MEMBERS} at most")
    counts = collections.Counter(member.filename for member in members)
    for name in (CONFIG, WEIGHTS):
        if name not in counts:
            raise damage(f"it has no {name}")
    for member in members:
        name, mode = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if name not in (CONFIG, WEIGHTS, "metadata.json") and not _ASSET.fullmatch(name):
            raise harm(f"it holds {name!r}, which a saved model has no use for")
        if len(os.fsencode(name)) > _MAX_NAME:
            raise harm(f"it holds a name of {len(name)} characters")
        if counts[name] > 1:
            raise harm(f"it holds {name!r} more than once")
        if mode not in (0, stat.S_IFREG):
            raise harm(f"{name!r} in it is a link")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise harm(f"{name!r} in it is compressed, to {member.file_size} bytes, and Keras doesn't compress")
        if name != WEIGHTS and member.file_size > _MAX_CONFIG:
            raise harm(f"{name!r} in it has {member.file_size} bytes, expected {_MAX_CONFIG} at most")
    declared = sum(member.file_size for member in members)
    if declared > size:
        raise harm(f"it declares {declared} bytes and has {size}")
