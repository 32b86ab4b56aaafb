"""`Stream`: batches in an order given by seed and epoch, so a run can go on in the middle of an epoch.

Each source makes the order of an epoch in its own function `batches`: `from_arrays` in `arrays.py` for arrays,
`packed/reader.py` for packed folders, `tfds_records.py` for sets of tensorflow-datasets, `files.py` for folders of
images and .npy, HDF5 and Parquet files.
"""

import inspect
import os
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat, arguments, html
from kvae.columns import Columns
from kvae.data.elements import unpack
from kvae.data.errors import clear_errors
from kvae.data.factors import Factor
from kvae.data.sprites.render import encode_png


def resolve_seed(seed: int | None, shuffle: int | bool = True) -> int:
    """The seed of an order: drawn at random if it is None, 0 if nothing is shuffled.

    Raises ValueError if the seed is None and several workers would each draw their own.
    """
    if seed is not None:
        return arguments.integer_at_least("seed", seed, 0)
    if not shuffle:
        return 0
    if "TF_CONFIG" in os.environ:
        raise ValueError("seed is None, of which each worker would draw its own order: give all of them the same int")
    return secrets.randbits(62)


class Stream(_compat.WrappedDataset):
    """A `tf.data.Dataset` of batches whose epochs can be read again: `epoch(n)` gives the same batches every time.

    Each iteration of a Stream reads one epoch: epoch 0 first, then 1, 2, and so on. `next_epoch` holds and sets the
    number of the next one. `evaluate`, `transform` and the like read the next epoch without moving on. `fit` counts
    the epochs itself.

    `map`, `apply`, `prefetch`, `take`, `skip` and `with_options` act on the batches of every epoch and return a
    Stream. Every other transformation of `tf.data` (`batch`, `filter`, `cache`, `shuffle`, ...) returns a plain dataset
    of one epoch. It draws this epoch from `seed`, anew for each iteration.

    Args:
        batches: function (epoch, skip, shard_index, num_shards) that returns a `tf.data.Dataset` of batches. epoch is
            a scalar int64 tensor. skip is an int, the number of batches to leave out at the start. Shard
            `shard_index` of `num_shards` holds its part of the rows of each batch, a stretch, in the shards' order;
            all shards have the same number of batches.
        num_batches: int, the batches of an epoch.
        seed: int, decides on the epochs of plain datasets. Default 0.
        order, steps: old names of batches and num_batches.

    Attributes:
        batches, num_batches, seed: the arguments.
        next_epoch: int, the epoch of the next iteration.
        class_names: the names of the classes that y numbers, as `from_folder` knows them, or None.
        factors: {label: `kvae.data.Factor`}, the kinds of the labels' values, as `load("sprites")` knows them, or None.
        columns: a `kvae.data.Columns`, the names and kinds of x's columns, as `from_table` knows them, or None.
        provenance: a `kvae.data.provenance.Provenance`, the origin of the examples, or None.

    Example:

    >>> import numpy as np, tensorflow as tf, kvae
    >>> x = np.arange(6, dtype="float32")
    >>> def batches(epoch, skip, shard_index, num_shards):
    ...     order = tf.random.experimental.stateless_shuffle(tf.range(6), seed=[0, epoch])
    ...     return tf.data.Dataset.from_tensor_slices(tf.gather(x, order)).batch(2).skip(skip)
    >>> stream = kvae.data.Stream(batches, num_batches=3)
    >>> first, again = (np.concatenate(list(stream.epoch(0).as_numpy_iterator())) for _ in range(2))
    >>> bool((first == again).all()), len(list(stream.epoch(0, skip=1)))
    (True, 2)
    """

    _chosen_options: Any = None
    _unshuffled: Any = None  # a function that gives the Stream in the data's own order, if this one is shuffled
    _is_part_of_shuffled = False  # whether it is made of a shuffled one, and its own order isn't known

    def __init__(
        self,
        batches: Callable[..., tf.data.Dataset] | None = None,
        num_batches: int | None = None,
        seed: int = 0,
        *,
        order: Callable[..., tf.data.Dataset] | None = None,
        steps: int | None = None,
    ):
        if order is not None:
            batches = arguments.renamed("order", order, "batches", batches)
        if steps is not None:
            num_batches = arguments.renamed("steps", steps, "num_batches", num_batches)
        if batches is None or num_batches is None:
            raise TypeError(
                f"batches is {batches!r} and num_batches {num_batches!r}; a Stream needs a function and an integer."
            )
        if not callable(batches):
            raise TypeError(f"batches is {batches!r}; expected a function (epoch, skip, shard_index, num_shards).")
        self.batches: Any = _sharded(batches)
        self.num_batches = arguments.integer_at_least("num_batches", num_batches, 0)
        self.seed = arguments.integer_at_least("seed", seed, 0)
        self.next_epoch = 0
        self.class_names: tuple[str, ...] | None = None
        self.factors: dict[str, Factor] | None = None
        self.columns: Columns | None = None
        self.provenance: Any = None
        self._traced = {}
        epochs = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        drawn = self._read(epochs, skip=0, shard=(0, 1))
        self._plain = drawn.apply(tf.data.experimental.assert_cardinality(self.num_batches))
        super().__init__(self._plain)

    def epoch(
        self,
        number: int,
        *,
        skip: int = 0,
        shard_index: int = 0,
        num_shards: int = 1,
        share: tuple[int, int] | None = None,
    ) -> tf.data.Dataset:
        """The batches of one epoch, a plain dataset of known length.

        Args:
            number: int, the epoch, counted from 0.
            skip: int, the number of batches to leave out at the start.
            shard_index, num_shards: ints, the part of each batch for one of several workers.
            share: old name of (shard_index, num_shards).
        """
        if share is not None:
            arguments.warn_renamed("share=", "shard_index= and num_shards=")
            shard_index, num_shards = _pair(share)
        arguments.integer_at_least("number", number, 0)
        arguments.integer_at_least("skip", skip, 0)
        _validate_shard(shard_index, num_shards)
        return self._epoch(number, skip, (shard_index, num_shards))

    def _epoch(self, number, skip=0, shard=(0, 1)):
        batches = self._read(tf.data.Dataset.from_tensors(tf.constant(number, "int64")), skip, shard)
        return batches.apply(tf.data.experimental.assert_cardinality(max(self.num_batches - skip, 0)))

    def from_batch(self, number: int, *, shard_index: int = 0, num_shards: int = 1) -> tf.data.Dataset:
        """All batches from `number` on, as one plain dataset without end.

        Args:
            number: int, the first batch, counted from 0 through all epochs.
            shard_index, num_shards: as for `epoch`.
        """
        _validate_shard(shard_index, num_shards)
        epoch, skip = divmod(arguments.integer_at_least("number", number, 0), self.num_batches)
        batches = self._read(tf.data.Dataset.counter(epoch + bool(skip)), 0, (shard_index, num_shards))
        if skip:
            rest = self._epoch(epoch, skip, (shard_index, num_shards))
            batches = rest.concatenate(batches)
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _read(self, epochs, skip, shard):
        """The batches of all the `epochs`. Tracing `batches` takes a tenth of a second or so and happens once."""
        if (skip, shard) not in self._traced:
            if skip:  # a trace takes 0.75 MB: of those with a skip the last one is kept
                self._traced = {key: function for key, function in self._traced.items() if not key[0]}
            length = tf.data.experimental.assert_cardinality(max(self.num_batches - skip, 0))
            batches, (shard_index, num_shards) = self.batches, shard
            self._traced[skip, shard] = tf.function(
                lambda epoch: batches(epoch, skip=skip, shard_index=shard_index, num_shards=num_shards).apply(length),
                input_signature=[tf.TensorSpec((), tf.int64)],
            )
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # half the time to start an epoch
        # The tuning thread may sleep through the end of an iterator, and the iterator waits for it: 20 s were seen.
        options.autotune.enabled = False
        dataset = epochs.flat_map(self._traced[skip, shard]).with_options(options)
        return dataset if self._chosen_options is None else dataset.with_options(self._chosen_options)

    def apply(self, transformation_func: Callable[[tf.data.Dataset], tf.data.Dataset]) -> tf.data.Dataset:
        """`tf.data.Dataset.apply` for every epoch.

        Args:
            transformation_func: function from a dataset to a dataset, such as those of `tf.data.experimental`. It is
                called with the batches of an epoch.

        Returns:
            A Stream. It is a plain dataset of a drawn epoch if the function is known to change the number of batches.
            A result of unknown length counts as one of as many batches, and reading it fails if it isn't.
        """
        # Skipped batches are left out before the function, unless it sets the length of an epoch by itself.
        length, shorter = (int(self.epoch(0, skip=skip).apply(transformation_func).cardinality()) for skip in (0, 1))
        if length not in (self.num_batches, tf.data.UNKNOWN_CARDINALITY):
            plain: Any = self._plain
            plain._is_part_of_shuffled = self._is_shuffled()
            return plain.apply(transformation_func)
        if shorter in (max(self.num_batches - 1, 0), tf.data.UNKNOWN_CARDINALITY):
            return self._each_epoch(transformation_func)

        def batches(epoch, skip, shard_index, num_shards):
            whole = self.batches(epoch, skip=0, shard_index=shard_index, num_shards=num_shards)
            return transformation_func(whole).skip(skip)

        return self._like(batches)

    through = arguments.renamed_attribute("through", "apply")
    steps = arguments.renamed_attribute("steps", "num_batches")
    source = arguments.renamed_attribute("source", "provenance")

    def map(self, *args, **kwargs) -> "Stream":
        """`tf.data.Dataset.map` over the batches of every epoch, with the same arguments."""
        return self._each_epoch(lambda batches: batches.map(*args, **kwargs))

    def prefetch(self, buffer_size: Any, name: str | None = None) -> "Stream":
        """`tf.data.Dataset.prefetch` in every epoch. The streams of kvae prefetch two batches already.

        Args:
            buffer_size: int, the batches to read ahead, or `tf.data.AUTOTUNE`.
            name: name for the operation.
        """
        return self._each_epoch(lambda batches: batches.prefetch(buffer_size, name))

    def with_options(self, options: tf.data.Options, name: str | None = None) -> "Stream":
        """`tf.data.Dataset.with_options` for every epoch.

        Args:
            options: `tf.data.Options`. Those of an earlier call stay unless these set them anew.
            name: unused, for the signature of `tf.data.Dataset.with_options`.
        """
        arguments.instance("options", options, tf.data.Options, "tf.data.Options()")
        options = options if self._chosen_options is None else self._chosen_options.merge(options)
        stream, unshuffled = self._like(self.batches, options=options), self._unshuffled
        if unshuffled is not None:
            stream._unshuffled = lambda: unshuffled().with_options(options)
        return stream

    def take(self, count: Any, name: str | None = None) -> "Stream":
        """The first batches of every epoch.

        Args:
            count: int, the number of batches; -1 for all.
            name: name for the operation.
        """
        count = min(int(count) if count >= 0 else self.num_batches, self.num_batches)

        def batches(epoch, skip, shard_index, num_shards):
            epoch = self.batches(epoch, skip=skip, shard_index=shard_index, num_shards=num_shards)
            return epoch.take(max(count - skip, 0), name)

        return self._like(batches, count, None)

    def skip(self, count: Any, name: str | None = None) -> "Stream":
        """All but the first batches of every epoch.

        Args:
            count: int, the number of batches to leave out; -1 for all.
            name: unused, for the signature of `tf.data.Dataset.skip`.
        """
        count = min(int(count) if count >= 0 else self.num_batches, self.num_batches)

        def batches(epoch, skip, shard_index, num_shards):
            return self.batches(epoch, skip=count + skip, shard_index=shard_index, num_shards=num_shards)

        return self._like(batches, self.num_batches - count, None)

    def _each_epoch(self, function):
        """The Stream whose epochs are function(this one's epochs), of as many batches."""

        def batches(epoch, skip, shard_index, num_shards):
            return function(self.batches(epoch, skip=skip, shard_index=shard_index, num_shards=num_shards))

        stream, unshuffled = self._like(batches), self._unshuffled
        if unshuffled is not None:
            stream._unshuffled = lambda: unshuffled()._each_epoch(function)
        return stream

    def _is_shuffled(self):
        return self._is_part_of_shuffled or self._unshuffled is not None

    def _like(self, batches, num_batches=None, provenance: Any = ..., options: Any = None):
        stream = Stream.__new__(Stream)
        stream._chosen_options = self._chosen_options if options is None else options  # before the constructor reads it
        stream.__init__(batches, self.num_batches if num_batches is None else num_batches, self.seed)
        stream.next_epoch, stream._is_part_of_shuffled = self.next_epoch, self._is_shuffled()
        stream.provenance = self.provenance if provenance is ... else provenance
        stream.class_names, stream.factors = self.class_names, self.factors
        stream.columns = self.columns if self.columns and _last_axis(stream) == len(self.columns) else None
        return stream

    def __iter__(self) -> Any:
        batches = self._epoch(self.next_epoch)
        self.next_epoch += 1
        return _compat.iterate_within(clear_errors, batches)

    def _repr_html_(self):
        return html.stream(self, self._first_x, encode_png)

    @clear_errors()
    def _first_x(self):
        for element in self._epoch(self.next_epoch).take(1):
            return np.asarray(unpack(element)[0])


def _last_axis(stream):
    """The size of the last axis of x, or None if there is no such x."""
    x: Any = stream.element_spec[0] if isinstance(stream.element_spec, tuple) else stream.element_spec
    return x.shape[-1] if isinstance(x, tf.TensorSpec) and x.shape.rank else None


def _pair(share):
    """(shard_index, num_shards) of the old argument `share`."""
    if not isinstance(share, tuple | list) or len(share) != 2:
        raise ValueError(f"share is {share!r}; expected (shard_index, num_shards).")
    return share


def _validate_shard(shard_index, num_shards):
    """Raise ValueError unless shard_index is one of num_shards shards."""
    arguments.integer_at_least("num_shards", num_shards, 1)
    if not arguments.is_integer(shard_index, 0) or shard_index >= num_shards:
        raise ValueError(
            f"shard_index is {shard_index!r} and num_shards {num_shards!r}; expected an integer from 0 to "
            f"{num_shards - 1}."
        )


def _sharded(batches):
    """The function that gives an epoch, also if it is of the old form (epoch, skip, share)."""
    if "share" not in inspect.signature(batches).parameters:
        return batches
    arguments.warn_renamed("A Stream's (epoch, skip, share)", "(epoch, skip, shard_index, num_shards)", stacklevel=4)
    return lambda epoch, skip, shard_index, num_shards: batches(epoch, skip=skip, share=(shard_index, num_shards))


def rows_of_shard(batch: Any, shard_index: int, num_shards: int) -> Any:
    """A shard's rows of a batch (a tensor, or a structure of such): one of `num_shards` stretches, in order."""
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    start, stop = (count * number // num_shards for number in (shard_index, shard_index + 1))
    return tf.nest.map_structure(lambda array: array[start:stop], batch)


def next_epoch(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A plain dataset as it is; of a Stream the next epoch, without moving on."""
    return dataset._epoch(dataset.next_epoch) if isinstance(dataset, Stream) else dataset


def in_order(dataset: Any) -> Any:
    """A Stream in the order of its data instead of a shuffled one. Warns of a dataset whose own order isn't known."""
    if isinstance(dataset, Stream) and dataset._unshuffled is not None:
        return dataset._unshuffled()
    if isinstance(dataset, tf.data.Dataset) and any(map(_has_lost_its_order, _compat.sources(dataset))):
        arguments.warn(
            "x is shuffled by tf.data, or is a part of a shuffled stream, so the rows of the answer are in an order of "
            "their own: give x without shuffle, or a whole stream of kvae, whose own order is known."
        )
    return dataset


def _has_lost_its_order(dataset):
    is_part = getattr(dataset, "_is_part_of_shuffled", False) or getattr(dataset, "_unshuffled", None) is not None
    return is_part or _compat.shuffles(dataset)


def binarize(stream: Stream, seed: int = 0, *, anew: bool = True) -> Stream:
    """Black and white images drawn from gray ones: x ~ Bernoulli(image / 255), bool, "dynamic binarization".

    Args:
        stream: a `Stream` of uint8 images, with labels or without.
        seed: int, decides on the draws. Default 0.
        anew: whether each epoch has its own draws, as for training. False draws the same in every epoch, as for
            validation and test. These draws depend on the batch's number, so the stream must keep its order.

    Returns:
        A `Stream` of as many batches, the same for any number of workers: each draws for the whole batch and takes its
        rows.

    Raises:
        TypeError: unless it is a Stream of uint8 images.

    Example:

    >>> import numpy as np, kvae
    >>> from kvae.data.arrays import from_arrays
    >>> gray = from_arrays((np.array([[0, 255]] * 4, "uint8"),), batch_size=4, shuffle=False)
    >>> next(iter(kvae.data.binarize(gray).epoch(0))).numpy()[0].tolist()
    [False, True]

    Reference:
        Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008.
    """
    given: Any = unpack(stream.element_spec)[0].dtype if isinstance(stream, Stream) else None
    if given != tf.uint8:
        found = f"a Stream of {given.name}" if isinstance(stream, Stream) else repr(stream)
        raise TypeError(f"stream is {found}; expected a kvae.data.Stream of uint8 images, as load gives")
    arguments.integer_at_least("seed", seed, 0)
    arguments.boolean("anew", anew)

    def batches(epoch, skip, shard_index, num_shards):
        epoch_key = tf.stack([tf.constant(seed, tf.int64), epoch if anew else tf.constant(-1, tf.int64)])
        epoch_key = _compat.fold_in(epoch_key, 0)

        def draw(number, element):
            x, y, sample_weight = unpack(element)
            key = _compat.fold_in(epoch_key, number)
            x = tf.random.stateless_uniform(tf.shape(x), key, 0, 255, tf.int32) < tf.cast(x, tf.int32)
            others = [array for array in (y, sample_weight) if array is not None]
            element = (x, *others) if others else x
            return element if num_shards == 1 else rows_of_shard(element, shard_index, num_shards)

        # A row's draws depend on its place in the batch of all shards, so a shard reads the whole batch.
        gray = stream.batches(epoch, skip=skip, shard_index=0, num_shards=1)
        return gray.enumerate(skip).map(draw)

    binary = Stream(batches, stream.num_batches, stream.seed)
    binary.provenance, binary.factors = stream.provenance, stream.factors
    return binary
