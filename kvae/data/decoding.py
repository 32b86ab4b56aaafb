"""Image files decoded by the batch, and what is wrong with those that can't be."""

import tensorflow as tf

UNROLLED = 8  # images decoded in one turn of a loop, which costs half as much as decoding a small PNG


class Decoder:
    """Decodes files to images of uint8, all of the shape that the first one has.

    Args:
        first: a file, as the stream has them: scalar string tensor or bytes.
        content: function of a file to its bytes, a tensor.
        name: function of a file, bytes, to what errors call it.
        size: (height, width) to which all are resized, or None. channels: to which all are converted, or None.

    Raises:
        OSError: where the first file can't be decoded.
    """

    def __init__(self, first, content, name, size=None, channels=None):
        self.content, self.name, self.size, self.channels = content, name, size, channels or 0
        shape = self._found(first).shape
        self.spec = tf.TensorSpec((*(size or shape[:2]), shape[2]), tf.uint8)

    def __call__(self, batches):
        """The dataset of (images, *labels), or of images alone, of one of (files, *labels).

        A file that can't be decoded fails an assertion that names it, which `clear_errors` makes one sentence.
        """

        def attempt(*batch):
            one = tf.data.Dataset.from_tensors(batch)
            return one.map(self._batch).ignore_errors().concatenate(one.map(self._refused)).take(1)

        return batches.interleave(attempt, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _batch(self, files, *labels):
        images = decoded(files, self._image, self.spec)
        return (images, *labels) if labels else images

    def _refused(self, files, *labels):
        """What `_batch` gives, after each file was tried on its own."""
        words = tf.numpy_function(self._fault, [files], tf.string)
        with tf.control_dependencies([tf.debugging.Assert(words == "", [words])]):
            return self._batch(tf.identity(files), *labels)

    def _image(self, file):
        image = self._decode(file)
        if self.size:
            image = tf.image.resize(image, self.size, antialias=True)
            image = tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)
        return tf.ensure_shape(image, self.spec.shape)

    def _decode(self, file):
        return tf.io.decode_image(self.content(file), channels=self.channels, expand_animations=False)

    def _found(self, file):
        try:
            return self._decode(file)
        except tf.errors.OpError:
            name = self.name(file if isinstance(file, bytes) else file.numpy())
            raise OSError(
                f"{name} can't be decoded: it is missing, cut or altered; restore it or leave it out"
            ) from None

    def _fault(self, files):
        for file in files:
            try:
                found = tuple(self._found(file).shape)
            except OSError as error:
                return f"OSError: {error}"
            expected = (*found[:2], self.spec.shape[2]) if self.size else tuple(self.spec.shape)
            if found != expected:
                advice = "as the first has: give size=(height, width) or channels"
                return f"ValueError: {self.name(file)} has the shape {found}, expected {expected} {advice}"
        return ""


def decoded(files, decode, spec, unrolled=UNROLLED):
    """The images (n, height, width, channels) of files (n,), by `decode`, from one to an image as `spec` says."""
    n = tf.size(files)
    padded = tf.concat([files, tf.repeat(files[:1], -n % unrolled)], 0)

    def several(files):
        return tf.stack([decode(file) for file in tf.unstack(files, unrolled)])

    signature = tf.TensorSpec((unrolled, *spec.shape), spec.dtype)
    images = tf.map_fn(several, tf.reshape(padded, (-1, unrolled)), fn_output_signature=signature)
    return tf.reshape(images, (-1, *spec.shape))[:n]
