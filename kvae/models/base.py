"""What every model here is: a Keras model with codes that trains on streams and reports means over examples."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any, overload

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from kvae import _compat, arguments, files, html, optimizers, replicas
from kvae.data import arrays, elements, errors, packed, validation
from kvae.data.shares import Share
from kvae.data.stream import in_order
from kvae.models import imputation, scoring
from kvae.models.step import ExampleMeans, Step
from kvae.saving import archive, model_card
from kvae.training import plan
from kvae.training.nonfinite import SKIPPED_IN_A_ROW, NonFiniteGuard
from kvae.training.steps_per_execution import StepGroups

_SEED, _RECORD = "seed_generator_state_", "record"  # names in the weights' file


class LatentModel(keras.Model):
    """A Keras model that encodes x to a code z and decodes z to x.

    It reads x as a `tf.data.Dataset` of batches or an array: of x, (x, y), (x, y, sample_weight) or tfds dicts.
    uint8 images are scaled by 1/255 in the graph; floats are taken as they are. A subclass defines `encode`,
    `decode`, `losses_per_example`, `train_step` and `metric_names`.

    Attributes:
        event_shape: the shape of one example, or None before the model is built.
        latent_dim: the size of a code, or None before the model is built.
        metric_names: the names of what `fit` and `evaluate` report, "loss" first.
    """

    event_shape: Any = None
    latent_dim: Any = None
    likelihood: Any = None
    missing = False  # whether NaN means "not observed"
    fill_in: Any = None  # a layer that fills the gaps of x for the encoder
    metric_names: tuple[str, ...] = ("loss",)
    _reads_labels = False
    _has_exact_scores = False
    _parts = None  # how many layers the model has of itself

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.means = ExampleMeans(self.metric_names)
        self.record = model_card.Record()
        self._step_groups = StepGroups(self, is_automatic=False)

    # What a subclass defines

    def encode(self, x: Any) -> Any:
        """The code of x, a mean if codes are random: tensor (n, ...) to (n, latent_dim)."""
        raise NotImplementedError

    def decode(self, z: Any) -> Any:
        """The image of z, a mean if images are random: tensor (n, latent_dim) to (n, ...)."""
        raise NotImplementedError

    def losses_per_example(self, x: Any, training: bool = False, index: Any = None) -> tuple[Any, dict[str, Any]]:
        """(loss (n,), {name: (n,)} for the other `metric_names`) of x (n, ...), scaled.

        Override it to change the loss. `training` goes to the networks. `index` holds the examples' positions (n,) in
        their stream: noise is then a function of them. With None, noise is fresh.
        """
        raise NotImplementedError

    def _build_parts(self, event_shape):
        """Make all that depends on the examples' shape. Raises ValueError if the parts don't fit it."""
        raise NotImplementedError

    def call(self, x: Any, training: bool = False) -> Any:
        """`decode(encode(x))`: the reconstruction, a mean. A subclass may pass `training` to its networks."""
        return self.decode(self.encode(x))

    def _optimized(self):
        """[(optimizer, the weights that it moves)]. A `train_step` gives their gradients in this order."""
        return [(self.optimizer, self.trainable_weights)]

    # Building

    def build(self, input_shape: tuple) -> None:
        """Build for examples of `input_shape`, (None, ...)."""
        if self.built:
            return
        event_shape = tuple(input_shape[1:])
        self._build_parts(event_shape)
        self.event_shape = event_shape
        self.built = True
        self(self._symbol(event_shape, self.variable_dtype))  # as `export` wants it
        if self.compiled and hasattr(self.loss, "check_model"):
            self.loss.check_model(self)

    def check_built(self) -> None:
        """Raise ValueError if the examples' shape isn't known yet."""
        if not self.built:
            raise ValueError(
                "The model doesn't know its images' shape yet: call fit, or build((None, height, width, channels))."
            )

    def _symbol(self, shape, dtype=None):
        """A symbolic input of the networks: x or z (n, *shape)."""
        return keras.KerasTensor((None, *shape), dtype=dtype or self.compute_dtype)

    # Training

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        steps_per_execution: int | str = "auto",
        skip_nonfinite: int = SKIPPED_IN_A_ROW,
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with three defaults of its own.

        Args:
            optimizer: "adam" is `kvae.optimizers.Adam`; everything else is as in Keras.
            steps_per_execution: int, or "auto" for as many steps in one call as are fast.
            skip_nonfinite: int. `fit` skips steps with NaN or infinite values, and raises ValueError after this many
                in a row; 0 looks for none, as Keras does.
            **kwargs: further arguments of `keras.Model.compile`.
        """
        self._guard = NonFiniteGuard(skip_nonfinite)
        if "run_eagerly" in kwargs:
            arguments.boolean("run_eagerly", kwargs["run_eagerly"])
        is_automatic = steps_per_execution == "auto"
        if not is_automatic:
            arguments.integer_at_least("steps_per_execution", steps_per_execution, 1)
        self._step_groups = StepGroups(self, is_automatic)
        super().compile(
            optimizer=optimizers.Adam() if optimizer == "adam" else optimizer,
            steps_per_execution=1 if is_automatic else steps_per_execution,
            **kwargs,
        )
        _compat.drop_loss_tracker(self)  # `means` reports the loss
        self._has_metrics = bool(_compat.compiled_metrics(self))

    @property
    def compiled_loss(self) -> Any:
        """The `loss` that the model was compiled with. Raises ValueError if it wasn't compiled."""
        if not self.compiled:
            raise ValueError(f"The {type(self).__name__} has no objective yet: call compile() first.")
        return self.loss

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        steps_per_epoch: int | None = None,
        **options: Any,
    ) -> keras.callbacks.History:
        """Train: `keras.Model.fit`, after the data are checked.

        A step with a NaN or an infinite value in x, a loss or a gradient is skipped as if its batch weren't there.
        The logs then hold `skipped_steps`, and a warning names epoch, batch and row; see `compile`.

        Epoch k reads epoch k of a `kvae.data.Stream`, or with `steps_per_epoch` its batches from k * steps_per_epoch
        on. A second `fit` continues with the epoch after those already trained, unless it is given an `initial_epoch`.

        A model made under a `tf.distribute` strategy trains on all replicas, with the weights of a single one.
        Batches are divided among the replicas, and all workers must be given the same data.

        Args:
            x: a stream of batches, or an array (n, ...); its first batch is read once more than by Keras.
            y: labels of an array, read by a `ConditionalVAE` alone. An `Autoencoder` reconstructs a y of x's shape
                from x; other models warn of such a y.
            sample_weight: weights (n,) of an array's examples.
            validation_data: like x; reported as `val_...` after each epoch.
            steps_per_epoch: int, the batches of an epoch; None is one pass.
            **options: further arguments of `keras.Model.fit`, such as `epochs` and `callbacks`.

        Returns:
            Keras' `History`.

        Raises:
            TypeError, ValueError: if the data can't be used, before the first step; the model stays as it was.
            ValueError: if a strategy of several replicas meets an option that Keras can't do there.
        """
        given = x, y, sample_weight
        with plan.planned(self, given, validation_data, steps_per_epoch, options) as fit_arguments:
            return super().fit(**fit_arguments)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One batch `data` of `evaluate`. Its noise is a function of the examples' positions."""
        step = Step(self, data)
        losses, numbers = self.losses_per_example(step.x, index=step.positions, **step.target)
        step.report(losses, numbers)
        return step.logs()

    def predict_step(self, data: Any) -> Any:
        """Reconstructions of one batch `data`."""
        return self(self._scaled(self._read(data)), training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of `train_step`, a scalar, for x, y and sample_weight (n,) as a stream gives them.

        `training` goes to the networks; `y_pred` isn't read.
        """
        step = Step(self, x if y is None else (x, y))
        step.sample_weight = sample_weight
        return step.unscaled_loss(self.losses_per_example(step.x, training=training, **step.target)[0])

    def evaluate(
        self, x: Any = None, y: Any = None, *, sample_weight: Any = None, steps: int | None = None, **options: Any
    ) -> Any:
        """The means over the examples of all `metric_names`: `keras.Model.evaluate`, after the data are checked.

        The noise is a function of an example's position: on data of one order the numbers repeat exactly, whatever
        the batches.

        Args:
            x, y, sample_weight: as for `fit`.
            steps: int, the batches to read; None reads all.
            **options: further arguments of `keras.Model.evaluate`, such as `return_dict`.
        """
        if options.get("_use_cached_eval_dataset"):  # Keras calls it so after an epoch of `fit`: all is checked
            return super().evaluate(x, y, sample_weight=sample_weight, steps=steps, **options)
        replicas.validate_settings(self)
        plan.check_counts(steps=steps, **options)
        if "return_dict" in options:
            arguments.boolean("return_dict", options["return_dict"])
        x, y, sample_weight = elements.fit_arguments(x, y, sample_weight)
        data = self._checked(x if y is None else (x, y), "x", steps)
        data = data if isinstance(data, tuple) else (data, y)
        x, y, sample_weight = plan.once_through(self, (*data, sample_weight), options)
        with errors.clear_errors(), self._step_groups.that_divide(steps):
            return super().evaluate(x, y, sample_weight=sample_weight, steps=steps, **options)

    def predict(self, x: Any, *, steps: int | None = None, **options: Any) -> Any:
        """Reconstructions, as `reconstruct` gives them: `keras.Model.predict`, after x is checked.

        `steps` is the number of batches to read, None for all; **options are those of `keras.Model.predict`.
        """
        plan.check_counts(steps=steps, **options)
        x, y, _ = elements.fit_arguments(x, None, None)
        data = self._checked(x if y is None else (x, y), "x", steps)
        x, *_ = plan.once_through(self, data if isinstance(data, tuple) else (data,), options)
        with errors.clear_errors(), self._step_groups.that_divide(steps):
            return super().predict(x, steps=steps, **options)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `fit` has built all. Under a strategy Keras would read a batch, and fail if it doesn't divide."""

    # What is reported

    @property
    def metrics(self) -> list:
        """The means of `metric_names`, the metrics that the model was compiled with, and those of a subclass."""
        return [self.means, *(metric for metric in super().metrics if metric is not self.means)]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers in the lists of `evaluate` and `train_on_batch`, "loss" first."""
        compiled = _compat.compiled_metrics(self)
        others = [metric for metric in self.metrics if metric is not self.means]
        own = self.metric_names if any(metric is self.means for metric in self.metrics) else ()
        names = [[each.name for each in metric.metrics] if metric in compiled else [metric.name] for metric in others]
        return [*own, *(name for names_of_one in names for name in names_of_one)]

    def _flatten_metrics_in_order(self, logs):
        """Keras' hook: the list of `evaluate`. Keras itself would sort the names of the means."""
        names = self.metrics_names
        return [logs[name] for name in [*names, *sorted(logs.keys() - set(names))] if name in logs]

    def _update_own_metrics(self, numbers):
        """Update metrics of a subclass from the numbers of a batch, {name: (n, ...)}."""

    # Codes and images

    @overload
    def transform(self, x: Any, batch_size: int = ..., directory: None = None) -> np.ndarray: ...

    @overload
    def transform(self, x: Any, batch_size: int = ..., *, directory: str | os.PathLike) -> None: ...

    def transform(self, x: Any, batch_size: int = elements.BATCH_SIZE, directory: Any = None) -> np.ndarray | None:
        """The codes of x, means if codes are random: an array (n, latent_dim).

        Args:
            x: a stream of batches or an array.
            batch_size: int, of an array.
            directory: None, or a new folder for the codes and their labels: then a batch at a time is in memory, and
                `kvae.data.load(directory)` streams them.

        Of several workers each encodes its share of a stream. All must call this, and all get all codes. A `directory`
        is one folder that all workers can write to.

        Raises:
            ValueError: for labels named "code".
        """
        data = self._checked(x, "x")
        if directory is None:
            share = self._share(data)
            codes = self._over(share.batches(data), self._encode_batch, batch_size)
            return share.rows(np.concatenate([code for code, _ in codes]))

        def columns(batches):
            for code, element in self._over(batches, self._encode_batch, batch_size):
                yield {"code": code, **_labels(element, "code")}

        return self._write(columns, data, batch_size, directory)

    def inverse_transform(self, z: ArrayLike, batch_size: int = elements.BATCH_SIZE) -> np.ndarray:
        """The images of codes z (n, latent_dim), means if images are random: an array (n, ...).

        `batch_size` codes are decoded at once.
        """
        self.check_built()
        given: Any = z
        codes: Any = given[0] if isinstance(given, tuple) and given else given
        if getattr(codes, "dtype", None) == np.uint8:  # no pixels, which are scaled by 1/255
            codes = np.asarray(codes).astype(self.variable_dtype)
            given = (codes, *given[1:]) if isinstance(given, tuple) else codes
        with errors.clear_errors():
            validation.validate_first_batch(given, (self.latent_dim,), name="z")
        return np.concatenate([image for image, _ in self._over(given, self._decode_batch, batch_size)])

    def reconstruct(self, x: Any, batch_size: int = elements.BATCH_SIZE) -> np.ndarray:
        """decode(encode(x)), an array (n, ...): means all through, so it repeats exactly.

        `batch_size` is that of an array x.
        """
        images = self._over(self._checked(x, "x"), self._reconstruct_batch, batch_size)
        return np.concatenate([image for image, _ in images])

    def score_samples(
        self,
        x: Any,
        samples: int = 100,
        *,
        seed: int = 0,
        return_std: bool = False,
        batch_size: int = elements.BATCH_SIZE,
        directory: Any = None,
    ) -> Any:
        """A score for each row of x, (n,): high for rows like the training data, low for odd ones.

        It is log p(x) in nats, exact for a PCA, and for a VAE by `samples` importance-weighted draws of q(z|x). For an
        Autoencoder it is minus the squared error, and for a VQVAE the bound `elbo`. With `missing` it is log p of the
        observed values: compare rows with other gaps with care.

        The noise is the same for all rows: a score depends on its row and the seed, neither on batches nor on order.
        (So the errors of rows aren't independent; `kvae.evaluation.log_likelihood` gives means with their error.) The
        rows are in the order of the data, also for a shuffled stream of kvae. Several workers share a stream as in
        `transform`.

        Args:
            x: a stream of batches or an array.
            samples: int >= 1, the draws for each row of a VAE.
            seed: int, of the draws.
            return_std: bool, whether to return the scores' standard errors as well, as the draws tell them.
            batch_size: int, of an array.
            directory: None, or a new folder for the columns "score", "standard_error" and the labels: then a batch at a
                time is in memory, and `kvae.data.load(directory)` streams them.

        Returns:
            An array (n,), or a tuple of two, or None with a `directory`.

        Raises:
            ValueError: for labels named "score" or "standard_error".
        """
        arguments.integer_at_least("samples", samples, 1)
        seed, is_pair = arguments.seed(seed, random=False), arguments.boolean("return_std", return_std)
        elements.validate_batch_size(batch_size)
        data = in_order(elements.as_dataset(x))
        data = self._checked(data, "x")
        if directory is None:
            share = self._share(data)
            found = scoring.row_scores(self, share.batches(data), samples, seed, batch_size)
            scores, errors_of_scores, _ = zip(*found, strict=True)
            scores = share.rows(np.concatenate(scores))
            return (scores, share.rows(np.concatenate(errors_of_scores))) if is_pair else scores

        def columns(batches):
            for score, error, element in scoring.row_scores(self, batches, samples, seed, batch_size):
                yield {"score": score, "standard_error": error, **_labels(element, "score", "standard_error")}

        return self._write(columns, data, batch_size, directory)

    def impute(
        self,
        x: Any,
        draws: int = 1,
        *,
        samples: int = 1_000,
        seed: int = 0,
        batch_size: int = elements.BATCH_SIZE,
    ) -> imputation.Imputation:
        """Fill the gaps of x, the NaN, from p(x|x observed), for a model with `missing=True`.

        A PCA knows p(z|x observed). A VAE draws z ~ q(z|x observed), and weights them by p(x observed|z) p(z) / q(z|x
        observed), normalized to a sum of 1. A row without an observed value gets the model's mean.

        Intervals of the draws are those of the fitted parameters. After a fit to few rows they are too narrow: a PCA
        with `bootstraps=20` draws its parameters too. A VAE doesn't.

        Args:
            x: a stream of batches or an array.
            draws: int >= 0, the draws of x for each row: for multiple imputation take 20 or more.
            samples: int >= 1, the z for each row of a VAE.
            seed: int, of the draws and z. Mean and standard deviation don't depend on the batches.
            batch_size: int, of an array.

        Returns:
            A `kvae.models.imputation.Imputation`: mean, stddev, draws and effective_samples.

        Raises:
            TypeError: if the model has no p(x|z).
            ValueError: if the model takes no missing values.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(200, 1)) + np.zeros((200, 4))
            >>> x[::2, 0] = np.nan
            >>> pca = kvae.PCA(1, missing=True).fit(x + np.random.default_rng(1).normal(size=x.shape) / 9, verbose=0)
            >>> pca.impute(x, draws=5).draws.shape
            (5, 200, 4)

        Reference:
            Rubin (1987), "Multiple imputation for nonresponse in surveys"; Mattei and Frellsen (2019), "MIWAE: deep
            generative modelling and imputation of incomplete data sets", equation 12.
        """
        if not hasattr(self, "posterior"):
            raise TypeError(f"{type(self).__name__} has no p(z|x) to impute from: use a kvae.VAE or kvae.PCA.")
        if not self.missing:
            raise ValueError(f"This {type(self).__name__} takes no missing values: make it with missing=True.")
        arguments.integer_at_least("draws", draws, 0)
        arguments.integer_at_least("samples", samples, 1)
        seed = arguments.seed(seed, random=False)
        elements.validate_batch_size(batch_size)
        data = in_order(elements.as_dataset(x))
        return imputation.impute(self, self._checked(data, "x"), draws, samples, seed, batch_size)

    def _share(self, data):
        """This worker's share of a stream. Arrays, which all workers hold, and streams of few batches aren't shared."""
        share = Share(self.distribute_strategy)
        is_shared = isinstance(data, tf.data.Dataset) and int(data.cardinality()) >= share.workers
        return share if is_shared else Share()

    def _write(self, columns, data, batch_size, directory):
        directory = files.absolute(directory, "directory")
        packed.write_shares(columns, data, directory, Share(self.distribute_strategy), batch_size)

    def _over(self, data, function, batch_size) -> Iterator[tuple[np.ndarray, Any]]:
        """(function of x, element) of each batch."""
        with errors.clear_errors():
            for element in arrays.batches(data, batch_size):
                x = self._read(element)
                # One trace for all batch sizes, and none of TensorFlow's warnings about retracing.
                signature = tf.nest.map_structure(lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), x)
                yield function.get_concrete_function(signature)(x).numpy(), element

    @functools.cached_property
    def _encode_batch(self):
        return tf.function(lambda x: self.encode(self._scaled(x)), autograph=False)

    @functools.cached_property
    def _decode_batch(self):
        return tf.function(lambda z: self.decode(self._scaled(z)), autograph=False)

    @functools.cached_property
    def _reconstruct_batch(self):
        return tf.function(lambda x: self(self._scaled(x), training=False), autograph=False)

    @functools.cached_property
    def _score_batch(self):
        return tf.function(lambda x: self._exact_scores(self._scaled(x)), autograph=False)

    @functools.cached_property
    def _scorer(self):
        return scoring.scorer(self)

    def _exact_scores(self, x):
        """The scores (n,) of scaled x (n, ...), of a model with `_has_exact_scores`."""
        raise NotImplementedError

    def _count_and_generator(self, count, seed):
        """The arguments of `sample`, checked: the number of images and the generator of their noise."""
        self.check_built()
        seed = arguments.seed(seed)
        generator = self.sample_seed if seed is None else keras.random.SeedGenerator(seed)
        return arguments.integer_at_least("count", count, 1), generator

    def _sample(self, count, noise, seed):
        """z ~ p(z), then E[x|z], or with `noise` a draw of p(x|z): an array (count, ...)."""
        count, generator = self._count_and_generator(count, seed)
        arguments.boolean("noise", noise)
        distribution = self.decoder_distribution(self.prior_distribution(count).sample(generator))
        return ops.convert_to_numpy(distribution.sample(generator) if noise else distribution.mean)

    # What is read of the data

    def _read(self, element):
        """What the model takes of a stream's element: x (n, ...)."""
        return elements.unpack(element)[0]

    def _read_target(self, element):
        """{"target": images} if the model reconstructs others than x, as a denoising `Autoencoder` does, else {}."""
        return {}

    def _scaled(self, x):
        """x as the networks take it: uint8 scaled to [0, 1], all else cast. Scaled twice, it stays the same."""
        dtype = getattr(x, "dtype", None)
        return x if tf.is_tensor(x) and dtype == self.variable_dtype else elements.scale(x, self.variable_dtype)

    def _encoder_inputs(self, x, training=False):
        """x as the encoder takes it: scaled, and of a model with `missing` without NaN."""
        x = self._scaled(x)
        return x if self.fill_in is None else self.fill_in(x, training=training)

    def _log_prob(self, distribution, x):
        """log p(x) (n,) in nats, of a model with `missing` that of the observed values: the others are left out."""
        x = self._scaled(x)
        if not self.missing:
            return distribution.log_prob(x)
        observed = ops.logical_not(ops.isnan(x))
        return distribution.log_prob(ops.where(observed, x, 0.0), observed)

    def _outputs(self, network, inputs, training=False):
        """A network's outputs as a list, cast to the variables' dtype: here the probabilities begin."""
        outputs = network(inputs, training=training)
        return [ops.cast(output, self.variable_dtype) for output in keras.tree.flatten(outputs)]

    def _checked(self, data, name, steps=None):
        """The data as they should be read, or one clear error before any work. Builds the model."""
        return self._first_and_data(data, name, steps)[1]

    def _first_and_data(self, data, name, steps=None):
        """The first batch, and the data as `_checked` gives them."""
        data = elements.as_dataset(data)
        with errors.clear_errors():
            first = plan.first_batch(self, data, name, steps)
            plan.build_for(self, first.x)
        if isinstance(data, tf.data.Dataset):
            parts = plan.parts_read(self, first)
            data = validation.with_shapes(data, first.element, name, parts)
            data = validation.stop_at_negative_weights(data, name)
            for part in parts:
                data = validation.stop_at_nonfinite(data, name, self.missing, part)
            data = self._scorable(data, name)
        return first, data

    def _check_values(self, x, y):
        """Raise ValueError for an x (numpy, scaled), or a y as it is stored, that the model can't score."""
        if self.missing:  # the rows of the last axis without a gap: a class is one-hot along it
            x = x[~np.isnan(x).any(axis=-1)]
        for part in (self.likelihood, getattr(self, "prior", None)):
            check = getattr(part, "check_data", None)  # a VQVAE's prior is a network without it
            if check is not None and len(x):
                check(x)

    def _scorable(self, data, name):
        """The same data. Arrays are searched now for values without a probability; a stream stops at them."""
        likelihood = self.likelihood
        if likelihood is None or likelihood.expected is None:
            return data
        if likelihood.takes_pixels and validation.are_pixels(data):
            return data
        complaint = f"{type(likelihood).__name__} expects {likelihood.expected}"
        return validation.stop_at_unsupported(data, likelihood.supports, complaint, name)

    # Saving

    def save(self, path: Any = None, overwrite: bool = False, *, filepath: Any = None) -> None:
        """Write the model to `path`, and cards of it beside the file, .card.json and .card.md.

        `kvae.load` reads it. The file has its name only once it is whole, and processes that save to one path wait for
        each other. Of several workers the first writes. Of a link, the file that it points to is replaced.

        Args:
            path: a name that ends in .keras, in a local folder: upload the file from there to other places.
            overwrite: bool, whether to replace a file that is there.
            filepath: Keras' name of `path`.

        Raises:
            FileExistsError: if the file exists and `overwrite` is False.
            OSError: if it can't be written; the old file then stays.
            TypeError: if `path` is no path, or `overwrite` no bool.
        """
        if (path is None) == (filepath is None):
            raise TypeError(f"path is {path!r} and filepath {filepath!r}; expected one of the two, a .keras file.")
        path = filepath if path is None else path
        archive.save(self, path, overwrite, super().save)

    def export(
        self, filepath: Any, format: str = "tf_saved_model", *, input_signature: Any = None, **kwargs: Any
    ) -> None:
        """`keras.Model.export` for serving. The exported model takes x in the dtype that `fit` saw.

        So it scales uint8 itself, as the model here does. `model.encoder` and `model.decoder` are the bare networks,
        which take scaled floats.

        Args:
            filepath: the folder or file to write.
            format: "tf_saved_model", "onnx", "litert" and what else Keras knows.
            input_signature: as Keras takes it; None for one of x's shape and dtype.
            **kwargs: further arguments of Keras' `export`.
        """
        if input_signature is None and (self.record.x or {}).get("dtype") == "uint8":
            input_signature = self._export_signature("uint8")
        super().export(filepath, format, input_signature=input_signature, **kwargs)

    def _export_signature(self, dtype):
        """Keras' input signature of a model that takes x of this dtype."""
        return [keras.InputSpec(dtype, (None, *self.event_shape), name="x")]

    def save_own_variables(self, store: Any) -> None:
        """Keras' hook: write the weights to `store`, plus the training record and the seed generators' states."""
        super().save_own_variables(store)
        store[_RECORD] = self.record.encode()
        for number, state in enumerate(self._seed_states()):
            store[f"{_SEED}{number}"] = state.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Keras' hook: read from `store` what `save_own_variables` wrote."""
        names = list(store.keys())
        weights = [name for name in names if name != _RECORD and not name.startswith(_SEED)]
        super().load_own_variables({name: store[name] for name in weights})
        if _RECORD in names:
            self.record = model_card.Record.decode(store[_RECORD])
        for number, state in enumerate(self._seed_states()):
            if f"{_SEED}{number}" in names:
                state.assign(store[f"{_SEED}{number}"])

    def _seed_states(self):
        return [variable for variable in self.variables if variable.name == "seed_generator_state"]

    def get_compile_config(self) -> dict[str, Any] | None:
        """Keras' hook: the arguments of `compile`, or None for a model without an optimizer."""
        if self.compiled and self.optimizer is None:
            return None
        config = super().get_compile_config()
        if config:
            config["skip_nonfinite"] = self._guard.limit
            if self._step_groups.is_automatic:
                config["steps_per_execution"] = "auto"
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Keras' hook: compile with the `config` of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            plan.build_optimizer(self)

    def get_build_config(self) -> dict[str, Any] | None:
        """Keras' hook: the shape that the model is built for."""
        return {"input_shape": (None, *self.event_shape)} if self.built else None

    def _added_layers(self):
        """The layers that a subclass has of its own."""
        return [] if self._parts is None else self.layers[self._parts :]

    _repr_html_ = html.model


def _labels(element, *taken):
    """A stream element's labels by name. Raises ValueError for labels with a taken name."""
    y = elements.unpack(element)[1]
    for name in taken if isinstance(y, Mapping) else ():
        if name in y:
            raise ValueError(f'x has labels named "{name}", as the {name}s beside them are: rename them with map')
    return y if isinstance(y, Mapping) else {} if y is None else {"label": y}
