"""Numbers about a trained model, from a stream: anything that encodes and decodes will do."""

import keras
import numpy as np
from keras import ops

from kvae.data import arrays, elements, errors


def squared_error(model, data, batch_size=elements.BATCH_SIZE):
    """mean_x ||x - decode(encode(x))||^2, summed over the image: means all through, so it repeats exactly.

    data: a stream of batches or an array. Returns a float, in the images' squared units ([0, 1] for uint8).
    """
    total, count = 0.0, 0
    with errors.clear_errors():
        for element in arrays.batches(model._checked(data, "data"), batch_size):
            x = model._scaled(model._read(element))
            difference = ops.convert_to_numpy(keras.tree.flatten(x)[0] - model(x, training=False))
            total += float(np.sum(np.square(difference, dtype="float64")))
            count += len(difference)
    return total / count


def compare(models, data, batch_size=elements.BATCH_SIZE):
    """What each model reports on the same data, and its squared error: {name: {number's name: float}}.

    models: {name: model}, such as {"PCA": pca, "autoencoder": ae, "VAE": vae}, best of equal code size.
    """
    stream = arrays.batches(data, batch_size)
    results = {}
    for name, model in models.items():
        results[name] = model.evaluate(stream, return_dict=True, verbose=0)
        results[name].setdefault("squared_error", squared_error(model, stream))
    return results
