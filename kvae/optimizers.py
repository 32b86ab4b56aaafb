"""Adam with TensorFlow's fused kernel."""

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("kvae")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` (Kingma and Ba 2015): the same arguments and updates, one kernel a variable."""

    def apply(self, grads, trainable_variables=None):
        self._powers = {}
        super().apply(grads, trainable_variables)
        self._powers = {}  # which were tensors of this graph alone

    def update_step(self, gradient, variable, learning_rate):
        """As Keras', with TensorFlow's ResourceApplyAdam where the gradient is dense."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        beta1_power, beta2_power = self._beta_powers(variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, variable.dtype),
        )

    def _beta_powers(self, dtype):
        """The bias corrections' powers of both betas, computed once an update rather than for each variable."""
        if dtype not in self._powers:
            step = ops.cast(self.iterations + 1, dtype)
            self._powers[dtype] = self.beta_1**step, self.beta_2**step
        return self._powers[dtype]
