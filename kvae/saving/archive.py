"""The archive that a saved model is: what it says of itself is checked before what it holds."""

import collections
import contextlib
import json
import os
import pathlib
import re
import stat
import struct
import zipfile

import keras

from kvae import files
from kvae.saving import model_card
from kvae.saving.configs import check_config
from kvae.saving.refusal import CONFIG, WEIGHTS, Refusal, damage, harm
from kvae.saving.weights import check_weights, variables_within

_ASSET = re.compile(r"assets/([\w-]+/)*vocabulary\.txt")  # of Keras' lookup layers
_MOST_NAMES = 2**20  # bytes of the archive's directory
_MOST_CONFIG = 2**24  # bytes
_SPARE = 2**26  # bytes of variables that needn't be in the file


def save(model, path, overwrite, write):
    """Write the model's file, which has the name `path` once it is whole and on the disk, and its card beside it.

    model: has a `record`. write: function that writes the file to the path it is given. Raises ValueError unless path
    ends in .keras, FileExistsError where there is a file already and overwrite is False, and OSError, which leaves
    what there was and no other file.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"path is {str(path)!r}, expected one that ends in .keras")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be saved: there is no folder {path.parent}")
    paths = path, *model_card.card_paths(path)
    there = [each for each in paths if os.path.lexists(each)]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} exists: give another name, or overwrite=True to replace what is there")
    temporary = path.with_name(f".{path.stem}.partial.keras")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
            card = {
                "format": "kvae card",
                "version": 1,
                "file": model_card.file_entry(file, path),
                **model_card.described(model),
            }
        with contextlib.ExitStack() as stack:
            for each, text in zip(paths[1:], (json.dumps(card, indent=1), model_card.markdown(card)), strict=True):
                file = stack.enter_context(files.atomic_write(each))
                file.write(text.encode())
                file.flush()
            for old in paths[1:]:
                old.unlink(missing_ok=True)  # a card of another file would have this one refused
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path):
    """The model that `save` wrote to `path`, also where it comes from a stranger: only a model is made, no code is run.

    Before anything is made of the file: its checksum, where its card is beside it; the names and sizes in the archive;
    of its configuration that it names only classes and functions of keras and kvae, none of which runs code or reads
    files; of its weights that they are numbers within the file. The rest is `keras.saving.load_model`'s.

    Raises:
        ValueError: for a file that isn't as it was saved, isn't a model, or holds what could do harm; with the reason.
            A model with layers of your own is refused too: `keras.saving.load_model` loads it.
        FileNotFoundError: where there is no file.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path} is refused: only .keras files are read, other kinds can hold code that is run")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is damaged or not a .keras file: it isn't a file")
    model_card.verify_checksum(path)
    try:
        config, weights = _members(path)
        check_config(config)
        size = check_weights(weights)
        del weights
        with variables_within(4 * size + _SPARE):
            return keras.saving.load_model(path, safe_mode=True)
    except Refusal as refusal:
        raise ValueError(f"{path} is {refusal}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        refusal = damage(f"Keras makes no model of it, {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        raise ValueError(f"{path} is {refusal}") from error


def _members(path):
    """The configuration, parsed, and the bytes of the weights, after all that the archive says of itself."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_end(file, size)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_names(archive.infolist(), size)
                content = {info.filename: archive.read(info) for info in archive.infolist()}  # and its checksums
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError) as error:
            raise damage(error) from None
    try:
        return json.loads(content[CONFIG]), content[WEIGHTS]
    except RecursionError:
        raise harm(f"its {CONFIG} is nested too deep") from None
    except ValueError:
        raise damage(f"its {CONFIG} isn't JSON") from None


def _check_end(file, size):
    """What ends an archive says how large its list of names is, which zipfile reads as a whole."""
    file.seek(max(size - 98, 0))
    end = file.read()
    if end[-22:-18] != b"PK\5\6" or end[-2:] != b"\0\0":
        raise damage(f"{size} bytes that don't end as one does" if size else "it is empty")
    names = struct.unpack("<I", end[-10:-6])[0]
    if end[-42:-38] == b"PK\6\7" and end[-98:-94] == b"PK\6\6":
        names = struct.unpack("<Q", end[-58:-50])[0]
    if names > _MOST_NAMES:
        raise harm(f"its list of names has {names} bytes")


def _check_names(members, size):
    names = collections.Counter(member.filename for member in members)
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            raise damage(f"it has no {name}")
    for member in members:
        name, mode = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if name not in (CONFIG, WEIGHTS, "metadata.json") and not _ASSET.fullmatch(name):
            raise harm(f"it holds {name!r}, which a saved model has no use for")
        if names[name] > 1:
            raise harm(f"it holds {name!r} more than once")
        if mode not in (0, stat.S_IFREG):
            raise harm(f"{name!r} in it is a link")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise harm(f"{name!r} in it is compressed, to {member.file_size} bytes, and Keras doesn't compress")
        if name != WEIGHTS and member.file_size > _MOST_CONFIG:
            raise harm(f"{name!r} in it has {member.file_size} bytes, expected {_MOST_CONFIG} at most")
    declared = sum(member.file_size for member in members)
    if declared > size:
        raise harm(f"it declares {declared} bytes and has {size}")
