"""Grey images as draws of black and white ones."""

import tensorflow as tf

from kvae.data.stream import Stream
from kvae.data.streams import unpack


def binarize(stream, seed=0, *, anew=True):
    """The Stream of x ~ Bernoulli(image / 255), bool: "dynamic binarization" (Salakhutdinov and Murray 2008).

    Args:
        stream: a `Stream` of uint8 images, with labels or without.
        seed: int.
        anew: whether each epoch has draws of its own, as training wants them. Without, every epoch has the same, a
            function of the batch's place, as validation and test want them, whose order stays.

    Raises:
        TypeError: for anything but a Stream of uint8 images.
    """
    found = unpack(stream.element_spec)[0].dtype if isinstance(stream, Stream) else type(stream).__name__
    if found != tf.uint8:
        raise TypeError(f"binarize was given {found}; expected a kvae.data.Stream of uint8 images, as load gives")

    def order(epoch, skip, share):
        own = tf.stack([tf.constant(seed, tf.int64), epoch if anew else tf.constant(-1, tf.int64)])
        own = tf.random.experimental.stateless_fold_in(own, share[0])

        def drawn(step, element):
            x, y, sample_weight = unpack(element)
            key = tf.random.experimental.stateless_fold_in(own, step)
            x = tf.random.stateless_uniform(tf.shape(x), key, 0, 255, tf.int32) < tf.cast(x, tf.int32)
            parts = [part for part in (y, sample_weight) if part is not None]
            return (x, *parts) if parts else x

        return stream.order(epoch, skip=skip, share=share).enumerate(skip).map(drawn)

    drawn_from = Stream(order, stream.steps, stream.seed)
    drawn_from.source = stream.source
    return drawn_from
