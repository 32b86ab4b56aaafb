"""How every model here trains and is evaluated: `train_step`, `test_step`, `fit`, on streams, per example."""

import contextlib

import keras
import tensorflow as tf
from keras import ops

from kvae import optimizers, replicas
from kvae.data import arrays, elements, errors, validation
from kvae.data.runs import Run, distribute
from kvae.models import execution, places, skipping, stalls
from kvae.models.checked import CheckedModel, check_numbers
from kvae.models.means import Means, weighted
from kvae.objectives import Beginning
from kvae.saving import model_card


class TrainedModel(CheckedModel):
    """A Keras model that minimises a loss of x alone, whose numbers are means over examples.

    A subclass gives `reported`, the names of its numbers, `losses_per_example`, and `event_shape` once it is built.
    """

    reported = ("loss",)
    chooses_steps = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.means = Means(self.reported)
        self.record = model_card.Record()

    def losses_per_example(self, x, training=False, index=None):
        """What is minimised and reported: (loss (n,), {name: (n,)} for the other names in `reported`).

        x: (n, ...), scaled. index: positions (n,) in the stream, of which any noise is then a function; None for
        fresh noise.
        """
        raise NotImplementedError

    def compile(self, optimizer="adam", *, steps_per_execution="auto", skip_nonfinite=skipping.IN_A_ROW, **kwargs):
        """As `keras.Model.compile`.

        optimizer: "adam" is `kvae.optimizers.Adam`, all else as Keras has it. steps_per_execution: an int, or "auto",
        with which each `fit` takes as many as are fast (see `kvae.models.execution`). skip_nonfinite: an int, the
        steps in a row that `fit` may leave out for NaN or infinite values before it stops with ValueError (see
        `fit`); 0 looks for none, as Keras doesn't.
        """
        self._guard = skipping.Guard(skipping.check(skip_nonfinite))
        self.chooses_steps = steps_per_execution == "auto"
        super().compile(
            optimizer=optimizers.Adam() if optimizer == "adam" else optimizer,
            steps_per_execution=1 if self.chooses_steps else steps_per_execution,
            **kwargs,
        )

    def get_compile_config(self):
        config = super().get_compile_config()
        if not config:
            return config
        chosen = {"steps_per_execution": "auto"} if self.chooses_steps else {}
        return {**config, **chosen, "skip_nonfinite": self._guard.most}

    def train_step(self, data):
        x, sample_weight = self._inputs(data)
        # The step that finds the end of a stream must not advance the optimizer and the seeds; in a group it doesn't.
        with tf.control_dependencies(tf.nest.flatten(x) if self.steps_per_execution == 1 else []):
            before = [tf.identity(variable.value) for variable in self._moving()]
            with tf.GradientTape() as tape:
                losses, parts = replicas.nonempty(lambda x: self.losses_per_example(x, training=True), x)
                loss = self._minimised(losses, sample_weight)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, self.trainable_weights)
            self._guard.apply(
                tf.nest.flatten(self._read(data)),
                weighted(losses, sample_weight),
                [] if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer) else gradients,
                self._take_step,
                self._leave_step,
                gradients,
                before,
                (x, losses, parts, sample_weight),
            )
            return replicas.logs(self.get_metrics_result())

    def _take_step(self, gradients, before, reported):
        gradients = replicas.clipped(self.optimizer, gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self._report(*reported)

    def _leave_step(self, gradients, before, reported):
        for variable, value in zip(self._moving(), before, strict=True):
            variable.assign(value)

    def _moving(self):
        """The variables that a forward pass moves: seeds, and what layers keep of the batches."""
        counted = {id(variable) for metric in self.metrics for variable in metric.variables}
        return [variable for variable in self.non_trainable_variables if id(variable) not in counted]

    def test_step(self, data):
        x, sample_weight = self._inputs(data)
        index = replicas.positions(self.means.examples, ops.shape(_images(x))[0])
        losses, parts = replicas.nonempty(lambda x, index: self.losses_per_example(x, index=index), x, index)
        self._report(x, losses, parts, sample_weight)
        return replicas.logs(self.get_metrics_result())

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What `train_step` minimises, a scalar, for x (and y) as the stream gives them; y_pred isn't looked at."""
        losses, _ = self.losses_per_example(self._inputs(x if y is None else (x, y))[0], training=training)
        return self._minimised(losses, sample_weight)

    def _minimised(self, losses, sample_weight):
        return replicas.mean(weighted(losses, sample_weight)) + replicas.part(sum(self.losses))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `fit` has built all. Under a strategy Keras would read a batch, and fail where it doesn't divide."""

    def predict_step(self, data):
        return self(self._inputs(data)[0], training=False)

    def _inputs(self, data):
        sample_weight = elements.unpack(data)[2]
        if sample_weight is not None:
            # Keras' trace for weights of both shapes has no rank left.
            shape = tf.TensorShape(sample_weight.shape)
            if shape.rank is not None and tuple(shape[1:]) not in ((), (1,)):
                raise ValueError(f"sample_weight has the shape {shape}; expected one weight an example, (n,).")
            sample_weight = ops.reshape(sample_weight, (-1,))
        return self._scaled(self._read(data)), sample_weight

    def _report(self, x, losses, parts, sample_weight):
        self.means.update_state(weighted(losses, sample_weight) + sum(self.losses), parts, sample_weight)
        for metric in self._compiled_metrics():
            reconstructed = replicas.nonempty(lambda x: self(x, training=False), x)
            metric.update_state(_images(x), reconstructed, sample_weight=sample_weight)

    @property
    def metrics(self):
        return [self.means, *self._compiled_metrics()]

    @property
    def counters(self):
        """What an epoch counts beside its metrics: the variables of the steps that were left out."""
        return self._guard.variables

    def _compiled_metrics(self):
        return [metric for metric in super().metrics if metric is not self.means and metric.name != "loss"]

    def fit(self, x=None, y=None, *, sample_weight=None, validation_data=None, steps_per_epoch=None, **kwargs):
        """Train: `keras.Model.fit`, after x and validation_data were checked (see `kvae.data.validation`).

        y isn't read. A stream's first batch is read once more than Keras would, for the checks.

        A step with a NaN or an infinite value in x, its losses or its gradients is left out as if its batch weren't
        there: of the weights, the optimizer, the seeds and the means nothing changes. `skipped_steps` then stands in
        the logs, and a warning says in which epoch, batch and row the value is; see `compile` for how many may be.

        Of a `Stream` epoch k reads epoch k, or, with steps_per_epoch, its batches from k * steps_per_epoch on. A fit
        that isn't the model's first and isn't given an initial_epoch goes on behind the steps that it has taken.

        A model made under a `tf.distribute` strategy trains on all its replicas, with the weights that one would have:
        batches are those of all replicas together, and all workers must be given the same data; a batch_size that the
        workers don't divide, steps_per_execution, jit_compile and accumulated gradients raise ValueError.
        """
        replicas.check(self)
        check_numbers(steps_per_epoch=steps_per_epoch, **kwargs)
        callbacks = _listed(kwargs.pop("callbacks", None))
        checkpoint = places.protector(callbacks)
        arrays.validate_class_weight(x, kwargs.get("class_weight"), checkpoint)
        given, y, sample_weight = elements.fit_arguments(x, y, sample_weight)
        parts = given, *(part for part in (y, sample_weight) if part is not None)
        first = self._looked_at(given if elements.is_dataset(given) else parts, "x", steps_per_epoch)
        x = self._watched(given, "x")
        validation.warn_if_constant(first, "x")
        if validation_data is not None:
            batch_size = kwargs.get("validation_batch_size") or kwargs.get("batch_size") or arrays.BATCH_SIZE
            validation_data = self._validation(validation_data, first, kwargs.get("validation_steps"), batch_size)
        self._prepare(first)
        if not self.compiled:
            return super().fit(x, y)  # which says so
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)  # outside the graph, as XLA wants it
        rows = len(first) if isinstance(given, tf.data.Dataset) else kwargs.get("batch_size") or arrays.BATCH_SIZE
        told = {"batch_size": rows, "steps_per_epoch": steps_per_epoch, "shuffle": kwargs.get("shuffle")}
        recorder = model_card.Recorder(self, (given, y, sample_weight), first, told)
        callbacks = [recorder, *callbacks]
        if not isinstance(x, tf.data.Dataset) and (
            checkpoint or arrays.is_streamable(parts, self.distribute_strategy, kwargs)
        ):
            repeats = bool(checkpoint) or replicas.workers(self.distribute_strategy) > 1
            x, y, sample_weight = arrays.for_training(parts, kwargs, repeats), None, None
        steps = steps_per_epoch or arrays.num_batches(x)
        place = places.first(self, kwargs.get("initial_epoch", 0), steps)
        with contextlib.ExitStack() as stack:
            if checkpoint is not None:
                settings, said = places.settings(self, steps, recorder.data), kwargs.get("verbose", "auto") != 0
                place = stack.enter_context(checkpoint.protect(self, place, settings, kwargs.get("epochs", 1), said))
                group = 1 if self.chooses_steps else self.steps_per_execution
                x, steps_per_epoch = arrays.resumable(x, steps, place.batches(-(-steps // group) * group)), steps
                kwargs["initial_epoch"] = place.epoch
                callbacks = [*(callback for callback in callbacks if callback is not checkpoint), checkpoint]
            x = distribute(x, self.distribute_strategy, steps_per_epoch)
            counts = [steps_per_epoch, kwargs.get("validation_steps"), place.step % (steps or 1)]
            if isinstance(x, Run):
                counts[0] = x.steps_per_epoch if x.repeats else None
                steps_per_epoch = x.steps_per_epoch  # else Keras starts two iterators an epoch
            if isinstance(x, tf.data.Dataset):
                kwargs.setdefault("shuffle", False)  # the stream's own affair; Keras would warn
            if self.chooses_steps:
                self._group_steps(execution.steps_per_execution(self, rows, callbacks, counts, steps_per_epoch))
            if isinstance(x, Run):
                x.repeats |= x.steps_per_epoch % self.steps_per_execution == 0
            callbacks = [stack.enter_context(places.StartsAt(x, place)), *callbacks]
            if hasattr(self.loss, "begin"):
                callbacks = [Beginning(place.first_epoch, place.first_update), *callbacks]
            if self._guard.most:
                callbacks = [skipping.SkippedSteps(self._guard, place, x), *callbacks]
            callbacks = [stack.enter_context(stalls.Watch("fit")), *callbacks]
            stack.enter_context(errors.clear_errors())
            return super().fit(
                x,
                y,
                sample_weight=sample_weight,
                validation_data=validation_data,
                steps_per_epoch=steps_per_epoch,
                callbacks=callbacks,
                **kwargs,
            )

    def _group_steps(self, steps):
        if steps != self.steps_per_execution:
            self.steps_per_execution = steps
            self.train_function = self.test_function = self.predict_function = None

    def evaluate(self, x=None, y=None, *, sample_weight=None, steps=None, **kwargs):
        """The mean over the examples of each of `reported`: `keras.Model.evaluate` after x was checked.

        The noise is a fixed function of an example's position: in data of one order the numbers repeat exactly, and
        they don't depend on the batches.
        """
        replicas.check(self)
        check_numbers(steps=steps, **kwargs)
        x, y, sample_weight = elements.fit_arguments(x, y, sample_weight)
        if not kwargs.get("_use_cached_eval_dataset"):
            x = self._checked(x, "x", steps)
            x, y, sample_weight = arrays.for_one_pass((x, y, sample_weight), self.distribute_strategy, kwargs)
            x = distribute(x, self.distribute_strategy, once=True)
            self._group_for(steps)
        with errors.clear_errors():
            return super().evaluate(x, y, sample_weight=sample_weight, steps=steps, **kwargs)

    def predict(self, x, *, steps=None, **kwargs):
        """Reconstructions, as `reconstruct` gives them: `keras.Model.predict` after x was checked."""
        x, *_ = elements.fit_arguments(x, None, None)
        x, *_ = arrays.for_one_pass((self._checked(x, "x", steps),), self.distribute_strategy, kwargs)
        x = distribute(x, self.distribute_strategy, once=True)
        self._group_for(steps)
        with errors.clear_errors():
            return super().predict(x, steps=steps, **kwargs)

    def _group_for(self, steps):
        if self.chooses_steps:
            self._group_steps(execution.divisor(self.steps_per_execution, [steps]))


def _images(x):
    return tf.nest.flatten(x)[0]


def _listed(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return keras.tree.flatten(callbacks or [])
