"""A stream whose order is a function of the epoch, so that a run can go on in the middle of one."""

import os
import secrets

import numpy as np
import tensorflow as tf

from kvae import html


def drawn(seed, shuffle=True):
    """The seed of an order, drawn where it is None. Raises ValueError where several workers would draw theirs.

    shuffle: whether there is an order to draw; without one the seed is of no account, and None is 0.
    """
    if seed is not None or not shuffle:
        return seed or 0
    if "TF_CONFIG" in os.environ:
        raise ValueError("seed is None, of which each worker would draw its own order: give all of them the same int")
    return secrets.randbits(62)


def share_size(batch_size, share):
    """The rows of a batch in one of the shares (i, n). Raises ValueError unless n divides batch_size."""
    if batch_size % share[1]:
        raise ValueError(f"batch_size is {batch_size}, expected a multiple of {share[1]}, the shares of each batch")
    return batch_size // share[1]


class Stream(tf.data.Dataset):
    """A `tf.data.Dataset` of batches, of which `epoch(n)` gives epoch n's: the same ones whenever it is asked.

    Iterated, it gives epoch 0, then 1, 2, ...: `next_epoch` says and sets which comes next; a model's `evaluate`,
    `transform` and the like read that epoch and leave it the next. `fit` counts epochs of its own, see
    `TrainedModel.fit`. `map` gives another Stream. Any other transformation of `tf.data` gives a plain dataset, of
    an epoch drawn from `seed`, another each time that it is iterated.

    Args:
        order: function (epoch, skip, share) to a `tf.data.Dataset` of batches: epoch an int64 scalar tensor; skip an
            int, the batches left out at the start; share (i, n), the i-th of n shares that are read apart and make
            up the whole together, batch by batch.
        steps: int, the batches of an epoch.
        seed: int, of the epochs that plain datasets start at.

    Attributes:
        source: the `kvae.data.contents.Source` of its examples, where that is known.
    """

    def __init__(self, order, steps, seed=0):
        self.order = order
        self.steps = int(steps)
        self.seed = seed
        self.next_epoch = 0
        self.source = None
        self._traced = {}
        epochs = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        batches = self._batches(epochs, skip=0, share=(0, 1))
        self._plain = batches.apply(tf.data.experimental.assert_cardinality(self.steps))
        super().__init__(self._plain._variant_tensor)

    def epoch(self, number, *, skip=0, share=(0, 1)):
        """The batches of epoch `number`, a plain dataset of known length, without the first `skip`.

        share: (i, n) for the i-th of n workers' share of each batch.
        """
        epochs = tf.data.Dataset.from_tensors(tf.constant(number, "int64"))
        batches = self._batches(epochs, skip, share)
        return batches.apply(tf.data.experimental.assert_cardinality(max(self.steps - skip, 0)))

    def endless(self, start, *, share=(0, 1)):
        """All batches from number `start` on, counted through the epochs, as one plain dataset without end."""
        epoch, skip = divmod(start, self.steps)
        batches = self._batches(tf.data.Dataset.counter(epoch + bool(skip)), 0, share)
        if skip:
            batches = self.epoch(epoch, skip=skip, share=share).concatenate(batches)
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _batches(self, epochs, skip, share):
        """The batches of all the `epochs`. The order is traced once, which takes a tenth of a second or so."""
        if (skip, share) not in self._traced:
            whole, order = tf.data.experimental.assert_cardinality(max(self.steps - skip, 0)), self.order
            self._traced[skip, share] = tf.function(
                lambda epoch: order(epoch, skip=skip, share=share).apply(whole),
                input_signature=[tf.TensorSpec((), tf.int64)],
            )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # half of what it takes to start an epoch
        # Its thread may sleep through the end of an iterator, which waits for it: 20 s were seen.
        options.autotune.enabled = False
        return epochs.flat_map(self._traced[skip, share]).with_options(options)

    def through(self, function):
        """The Stream whose epochs are this one's through `function`, from a dataset to one of as many batches."""

        def order(epoch, skip, share):
            return function(self.order(epoch, skip=skip, share=share))

        stream = Stream(order, self.steps, self.seed)
        stream.next_epoch, stream.source = self.next_epoch, self.source
        return stream

    def map(self, *args, **kwargs):
        """As `tf.data.Dataset.map`, over the batches."""
        return self.through(lambda batches: batches.map(*args, **kwargs))

    def __iter__(self):
        batches = self.epoch(self.next_epoch)
        self.next_epoch += 1
        return iter(batches)

    def _repr_html_(self):
        from kvae.data import streams
        from kvae.data.render import encode_png

        def first_x():
            with streams.clear_errors():
                for batch in self.epoch(self.next_epoch).take(1):
                    return np.asarray(streams.unpack(batch)[0])

        return html.stream(self, first_x, encode_png)

    @property
    def element_spec(self):
        return self._plain.element_spec

    def _inputs(self):
        return [self._plain]


class Run(tf.data.Dataset):
    """A `Stream` as `fit` reads it: epoch after epoch from `next_epoch` on, behind `skip` batches.

    Args:
        stream: the `Stream`.
        steps: int, the batches of an epoch of `fit`; None takes the stream's.

    Attributes:
        endless: whether one iterator reads all epochs, without an end to be found, as where `fit`'s are other than the
            stream's; else each has an iterator, which takes some hundredths of a second to start.
    """

    def __init__(self, stream, steps=None):
        self.stream, self.next_epoch, self.skip = stream, 0, 0
        self.steps = steps or stream.steps
        self.endless = self.steps != stream.steps
        super().__init__(stream._variant_tensor)

    def batches(self, share=(0, 1)):
        """What the next iterator reads, a plain dataset."""
        if self.endless:
            return self.stream.endless(self.next_epoch * self.steps + self.skip, share=share)
        return self.stream.epoch(self.next_epoch, skip=self.skip, share=share)

    def __iter__(self):
        iterator = iter(self.batches())
        self.advance()
        return iterator

    def advance(self):
        """Let the next iterator read the epoch behind this one, from its start."""
        self.next_epoch, self.skip = self.next_epoch + 1, 0

    def cardinality(self):
        return tf.constant(tf.data.INFINITE_CARDINALITY if self.endless else self.steps, tf.int64)

    @property
    def element_spec(self):
        return self.stream.element_spec

    def _inputs(self):
        return [self.stream]
