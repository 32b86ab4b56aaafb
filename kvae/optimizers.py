"""Adam with TensorFlow's fused kernel."""

import keras
import tensorflow as tf
from keras import ops

from kvae import _compat
from kvae.arguments import Tensor


@keras.saving.register_keras_serializable("kvae")
class Adam(keras.optimizers.Adam):
    """Adam with one fused kernel per variable: the arguments and updates of `keras.optimizers.Adam`, in less time.

    In kvae's models `compile("adam")`, the default, uses it.

    Args:
        **kwargs: of `keras.optimizers.Adam`.

    Example:

    >>> variable = keras.Variable([1.0])
    >>> kvae.optimizers.Adam(learning_rate=0.5).apply([ops.array([2.0])], [variable])
    >>> variable.numpy().round(3)
    array([0.5], dtype=float32)

    Reference:
        Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1.
    """

    def build(self, variables: list) -> None:
        """Make the running averages for these variables. A second call does nothing."""
        super().build(variables)
        self._means, self._squares, self._index = _compat.adam_moments(self)

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        self._powers = {}
        super().apply(grads, trainable_variables)
        self._powers = {}  # drop tensors of this graph

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Update one variable, with TensorFlow's ResourceApplyAdam if the gradient is dense.

        Args:
            gradient: tensor of the variable's shape, or `tf.IndexedSlices`.
            variable: Keras variable.
            learning_rate: scalar.
        """
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        index = self._index(variable)
        beta1_power, beta2_power = self._beta_powers(variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._means[index].value.handle,
            v=self._squares[index].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, variable.dtype),
        )

    def _beta_powers(self, dtype):
        """The powers of both betas for the bias corrections, computed once per update instead of once per variable."""
        if dtype not in self._powers:
            step = ops.cast(self.iterations + 1, dtype)
            self._powers[dtype] = self.beta_1**step, self.beta_2**step
        return self._powers[dtype]
