"""Image files decoded by the batch, and the errors of unreadable ones."""

import concurrent.futures
import io
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat, arguments

UNROLLED = 8  # images decoded in one turn of a loop; a turn costs half as much as decoding a small PNG
NAMED = 3  # files in an error or a warning
_SEARCH_SECONDS, _THREADS, _AT_ONCE = 60, 8, 256  # of the search for all damaged files
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def validate_size(size: tuple[int, int] | None, channels: int | None) -> None:
    """Raise ValueError unless `size` is (height, width) or None, and `channels` 1, 3, 4 or None."""
    if size is not None and len(arguments.sizes("size", size)) != 2:
        raise ValueError(f"size is {size!r}; expected (height, width).")
    if channels is not None and not (arguments.is_integer(channels) and channels in _MODES):
        raise ValueError(f"channels is {channels!r}; expected 1, 3, 4 or None.")


class Decoder:
    """Decodes files to images of uint8. All have the shape of the first one.

    Args:
        first: a file in the form of the stream, a scalar string tensor or bytes.
        content: function from a file to its bytes, a tensor.
        name: function from a file, as bytes, to its name in errors.
        size: (height, width) for resizing all images, or None.
        channels: number of channels for converting all images, or None.
        files: function to all files of the stream, in the same form, so that an error names every damaged one.
        advice: what an error advises besides, such as " or do this".

    Raises:
        OSError: if the first file can't be decoded.
    """

    def __init__(
        self,
        first: tf.Tensor | bytes,
        content: Callable[[tf.Tensor], tf.Tensor],
        name: Callable[[bytes], str],
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        files: Callable[[], Any] = lambda: None,
        advice: str = "",
    ):
        self.content, self.name, self.size, self.channels = content, name, size, channels or 0
        self.files, self.advice = files, advice
        self.spec: Any = None
        shape = self.shape(first)
        if shape is None:
            raise OSError(self._describe([first]))
        self._first_needs_pillow = bool(self._needs_pillow(self.content(tf.constant(first))))
        self.spec = tf.TensorSpec((*(size or shape[:2]), shape[2]), tf.uint8)

    def __call__(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset of (images, *labels), or of images alone, from one of (files, *labels).

        An unreadable file fails an assertion with its name. `clear_errors` makes it one sentence.
        """

        def attempt(*batch):
            one = tf.data.Dataset.from_tensors(batch)
            return one.map(self._batch).ignore_errors().concatenate(one.map(self._checked_batch)).take(1)

        return batches.interleave(attempt, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _batch(self, files, *labels):
        decode, unrolled = (self._with_either, 1) if self._first_needs_pillow else (self._with_tensorflow, UNROLLED)
        images = decode_images(files, lambda file: self._image(decode(self.content(file))), self.spec, unrolled)
        return (images, *labels) if labels else images

    def _checked_batch(self, files, *labels):
        """Batches that TensorFlow can't decode: `_batch` with Pillow, after a try of each file alone."""
        fault = _compat.numpy_function(self._fault, [files], tf.string)
        with tf.control_dependencies([tf.debugging.Assert(fault == "", [fault])]):
            files = tf.identity(files)
            images = decode_images(files, lambda file: self._image(self._with_either(self.content(file))), self.spec, 1)
        return (images, *labels) if labels else images

    def _image(self, image):
        if self.size:
            image = tf.image.resize(image, self.size, antialias=True)
            image = tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)
        return tf.ensure_shape(image, self.spec.shape)

    # TensorFlow decodes PNG, and JPEG but for some colors. It takes the numbers of a BMP's palette for gray, and has no
    # conversion of BMP and GIF to gray: Pillow decodes these.

    def _with_tensorflow(self, content):
        return tf.io.decode_png(content, channels=self.channels)  # JPEG too; it refuses BMP

    def _with_either(self, content):
        def with_pillow():
            image = _compat.numpy_function(self._with_pillow, [content], tf.uint8)
            image.set_shape((None, None, None))
            return image

        return tf.cond(self._needs_pillow(content), with_pillow, lambda: self._with_tensorflow(content))

    def _needs_pillow(self, content):
        first = tf.strings.substr(content, 0, 1)
        is_jpeg = first == b"\xff"
        by_pillow = (first != b"\x89") & ~is_jpeg
        if self.channels == 4:
            return by_pillow | is_jpeg
        if self.channels == 1:  # JPEG of cyan, magenta, yellow and black
            return by_pillow | tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(content)[2] == 4, lambda: False)
        return by_pillow

    def _with_pillow(self, content):
        import PIL.Image  # of matplotlib, and slow to import

        with PIL.Image.open(io.BytesIO(content), formats=("BMP", "GIF", "JPEG")) as image:
            bands = image.getbands()
            mode = _MODES.get(self.channels) or ("L" if image.mode in ("1", "L") else "RGBA" if "A" in bands else "RGB")
            image = image.convert("RGB") if image.mode == "CMYK" else image
            pixels = np.asarray(image.convert(mode))
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def shape(self, file: tf.Tensor | bytes) -> tuple[int, ...] | None:
        """The shape of a file's image, or None for a damaged file."""
        try:
            content = self.content(tf.constant(file))
            if self._needs_pillow(content):
                return self._with_pillow(content.numpy()).shape
            return tuple(self._with_tensorflow(content).shape)
        except (tf.errors.OpError, OSError, ValueError, SyntaxError):  # the last three are Pillow's
            return None

    def faults(self, files: Iterable, seconds: float | None = None) -> tuple[list, list, int]:
        """(damaged files, (file, shape) of images of another shape than the first, number of files that were read).

        Args:
            files: in the form of the stream.
            seconds: the search ends after this time; None for all files.
        """
        damaged, unlike, number, start = [], [], 0, time.monotonic()
        files = list(files)
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            while number < len(files) and (seconds is None or time.monotonic() - start < seconds):
                some = files[number : number + _AT_ONCE]
                for file, shape in zip(some, threads.map(self.shape, some), strict=True):
                    if shape is None:
                        damaged.append(file)
                    elif self.spec is not None and shape != self._expected(shape):
                        unlike.append((file, shape))
                number += len(some)
        return damaged, unlike, number

    def _expected(self, shape):
        return (*shape[:2], self.spec.shape[2]) if self.size else tuple(self.spec.shape)

    def _fault(self, files):
        """The error message of the bad files, or an empty one."""
        damaged, unlike, _ = self.faults(files)
        if damaged:
            return f"OSError: {self._describe(damaged)}"
        return f"ValueError: {self.describe_unlike(unlike)}" if unlike else ""

    def _describe(self, damaged):
        """What is said of damaged files, after a search for all of them."""
        searched, files = "", self.files()
        if files is not None:
            first, (damaged, _, number) = damaged, self.faults(files, _SEARCH_SECONDS)
            searched = f", among the first {number:,} files" if number < len(files) else ""
            damaged = damaged or first
        names = listed([self.name(_bytes(file)) for file in damaged])
        if len(damaged) == 1:
            return (
                f"{names} can't be decoded{searched}: it is missing, cut or altered; restore it or leave it out"
                f"{self.advice}"
            )
        return (
            f"{len(damaged):,} files can't be decoded{searched}, {names}: they are missing, cut or altered; restore "
            f"them or leave them out{self.advice}"
        )

    def describe_unlike(self, unlike: list) -> str:
        """What is said of images of another shape than the first, pairs of a file and its shape."""
        (file, shape), more = unlike[0], f" (and {len(unlike) - 1:,} more have others)" if len(unlike) > 1 else ""
        advice = "as the first has: give size=(height, width) or channels"
        return f"{self.name(_bytes(file))} has the shape {shape}{more}, expected {self._expected(shape)} {advice}"


def listed(names: list[str]) -> str:
    """The first names and the number of the others."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _bytes(file):
    return file if isinstance(file, bytes) else np.asarray(file).item()


def decode_images(
    files: tf.Tensor, decode: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec, unrolled: int = UNROLLED
) -> tf.Tensor:
    """The images (n, height, width, channels) of encoded files (n,).

    Args:
        files: string tensor (n,).
        decode: function from one file to its image.
        spec: shape and dtype of one image.
        unrolled: int, images decoded in one turn of the loop.
    """
    n = tf.size(files)
    padded = tf.concat([files, tf.repeat(files[:1], -n % unrolled)], 0)

    def several(files):
        return tf.stack([decode(file) for file in tf.unstack(files, unrolled)])

    signature = tf.TensorSpec((unrolled, *spec.shape), spec.dtype)
    images = tf.map_fn(several, tf.reshape(padded, (-1, unrolled)), fn_output_signature=signature)
    return tf.reshape(images, (-1, *spec.shape))[:n]
