"""Image files decoded by the batch, and the errors of unreadable ones."""

from collections.abc import Callable

import tensorflow as tf

from kvae import _compat

UNROLLED = 8  # images decoded in one turn of a loop; a turn costs half as much as decoding a small PNG


class Decoder:
    """Decodes files to images of uint8. All have the shape of the first one.

    Args:
        first: a file in the form of the stream, a scalar string tensor or bytes.
        content: function from a file to its bytes, a tensor.
        name: function from a file, as bytes, to its name in errors.
        size: (height, width) for resizing all images, or None.
        channels: number of channels for converting all images, or None.

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
    ):
        self.content, self.name, self.size, self.channels = content, name, size, channels or 0
        shape = self._decode_or_raise(first).shape
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
        images = decode_images(files, self._image, self.spec)
        return (images, *labels) if labels else images

    def _checked_batch(self, files, *labels):
        """`_batch` after a try of each file alone."""
        fault = _compat.numpy_function(self._fault, [files], tf.string)
        with tf.control_dependencies([tf.debugging.Assert(fault == "", [fault])]):
            return self._batch(tf.identity(files), *labels)

    def _image(self, file):
        image = self._decode(file)
        if self.size:
            image = tf.image.resize(image, self.size, antialias=True)
            image = tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)
        return tf.ensure_shape(image, self.spec.shape)

    def _decode(self, file):
        return tf.io.decode_image(self.content(file), channels=self.channels, expand_animations=False)

    def _decode_or_raise(self, file):
        try:
            return self._decode(file)
        except tf.errors.OpError:
            name = self.name(file if isinstance(file, bytes) else file.numpy())
            raise OSError(
                f"{name} can't be decoded: it is missing, cut or altered; restore it or leave it out"
            ) from None

    def _fault(self, files):
        """The error message of the first bad file, or an empty one."""
        for file in files:
            try:
                shape = tuple(self._decode_or_raise(file).shape)
            except OSError as error:
                return f"OSError: {error}"
            expected = (*shape[:2], self.spec.shape[2]) if self.size else tuple(self.spec.shape)
            if shape != expected:
                advice = "as the first has: give size=(height, width) or channels"
                return f"ValueError: {self.name(file)} has the shape {shape}, expected {expected} {advice}"
        return ""


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
