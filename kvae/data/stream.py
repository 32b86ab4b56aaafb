"""A stream whose order is a function of the epoch, so that a run can go on in the middle of one."""

import tensorflow as tf


class Stream(tf.data.Dataset):
    """A `tf.data.Dataset` of batches, of which `epoch(n)` gives epoch n's: the same ones whenever it is asked.

    Iterated, it gives epoch 0, then 1, 2, ...: `next_epoch` says and sets which comes next. A model's `fit` reads on
    from there; `evaluate`, `transform` and the like read that epoch and leave it the next. `map` gives another
    Stream. Any other transformation of `tf.data` gives a plain dataset, of an epoch drawn from `seed`, another each
    time that it is iterated.

    Args:
        order: function (epoch, skip, share) to a `tf.data.Dataset` of batches: epoch an int64 scalar tensor; skip an
            int, the batches left out at the start; share (i, n), the i-th of n shares that are read apart and make
            up the whole together, batch by batch.
        steps: int, the batches of an epoch.
        seed: int, of the epochs that plain datasets start at.
    """

    def __init__(self, order, steps, seed=0):
        self.order = order
        self.steps = int(steps)
        self.seed = seed
        self.next_epoch = 0
        self._traced = {}
        epochs = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        self._plain = self._batches(epochs, skip=0, share=(0, 1))
        super().__init__(self._plain._variant_tensor)

    def epoch(self, number, *, skip=0, share=(0, 1)):
        """The batches of epoch `number`, a plain dataset of known length, without the first `skip`.

        share: (i, n) for the i-th of n workers' share of each batch.
        """
        return self._batches(tf.data.Dataset.from_tensors(tf.constant(number, "int64")), skip, share)

    def _batches(self, epochs, skip, share):
        """The batches of the one epoch in `epochs`. The order is traced once, which takes a tenth of a second or so."""
        if (skip, share) not in self._traced:
            signature = [tf.TensorSpec((), tf.int64)]
            self._traced[skip, share] = tf.function(
                lambda epoch: self.order(epoch, skip=skip, share=share), input_signature=signature
            )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # half of what it takes to start an epoch
        batches = epochs.flat_map(self._traced[skip, share]).with_options(options)
        return batches.apply(tf.data.experimental.assert_cardinality(max(self.steps - skip, 0)))

    def through(self, function):
        """The Stream whose epochs are this one's through `function`, from a dataset to one of as many batches."""

        def order(epoch, skip, share):
            return function(self.order(epoch, skip=skip, share=share))

        return Stream(order, self.steps, self.seed)

    def map(self, *args, **kwargs):
        """As `tf.data.Dataset.map`, over the batches."""
        return self.through(lambda batches: batches.map(*args, **kwargs))

    def __iter__(self):
        batches = self.epoch(self.next_epoch)
        self.next_epoch += 1
        return iter(batches)

    @property
    def element_spec(self):
        return self._plain.element_spec

    def _inputs(self):
        return [self._plain]
