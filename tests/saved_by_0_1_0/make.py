"""Writes the files beside it, and what their models compute, with kvae 0.1.0: `python make.py FOLDER`."""

import json
import pathlib
import shutil
import sys

import keras
import numpy as np

import kvae
from kvae.flows import Coupling
from kvae.networks import dense_decoder, dense_encoder
from kvae.posteriors import FlowPosterior, FullNormal

RNG = np.random.default_rng(0)
X, LABELS = RNG.random((60, 6), "float32"), RNG.integers(0, 3, 60)
PIXELS = RNG.integers(0, 256, (40, 4, 4, 1)).astype("uint8")


def network(inputs, *sizes):
    symbols = [keras.Input((size,)) for size in inputs]
    h = keras.layers.Concatenate()(symbols) if len(symbols) > 1 else symbols[0]
    h = keras.layers.Dense(4, "tanh")(h)
    outputs = [keras.layers.Dense(size)(h) for size in sizes]
    return keras.Model(symbols if len(symbols) > 1 else symbols[0], outputs if len(outputs) > 1 else outputs[0])


def vae(posterior=None, **arguments):
    encoder, decoder = dense_encoder((6,), 2, (4,), posterior=posterior), dense_decoder((6,), 2, (4,))
    return kvae.VAE(encoder, decoder, posterior=posterior, seed=3, **arguments)


def hierarchical():
    posteriors = [network([4, 2], 3, 3), network([5], 2, 2)]
    return kvae.HierarchicalVAE(network([6], 4, 5), posteriors, [network([2], 3, 3)], network([3, 2], 6), seed=3)


def vq_vae():
    x, z = keras.Input((6,)), keras.Input((2, 3))
    encoder = keras.Model(x, keras.layers.Reshape((2, 3))(keras.layers.Dense(6)(x)))
    decoder = keras.Model(z, keras.layers.Dense(6)(keras.layers.Flatten()(z)))
    return kvae.VQVAE(encoder, decoder, codes=5, seed=3)


def warmed_up(**arguments):
    return kvae.ELBO(beta=kvae.schedules.LinearWarmUp(share=0.5), **arguments)


MODELS = {
    "vae": (vae, {"loss": warmed_up(free_bits=0.01)}),
    "vae_decoder_variance": (
        lambda: kvae.VAE(
            dense_encoder((6,), 2, (4,)), dense_decoder((6,), 2, (4,), outputs=2), kvae.GaussianLikelihood("decoder")
        ),
        {},
    ),
    "vae_vamp_full_normal": (lambda: vae(FullNormal(), prior=kvae.VampPrior(4)), {"loss": warmed_up()}),
    "vae_mixture_flow_posterior": (
        lambda: vae(FlowPosterior(Coupling(2, hidden=(4,)), context=2), prior=kvae.MixtureOfGaussians(3)),
        {"loss": kvae.IWAE(3)},
    ),
    "vae_flow_prior": (lambda: vae(prior=kvae.FlowPrior(Coupling(2, hidden=(4,)))), {}),
    "conditional_vae": (lambda: kvae.ConditionalVAE(network([6, 3], 2, 2), network([2, 3], 6), 3, seed=3), {}),
    "hierarchical_vae": (hierarchical, {"optimizer": keras.optimizers.SGD(1e-3)}),
    "vq_vae": (vq_vae, {}),
    "autoencoder": (lambda: kvae.Autoencoder(dense_encoder((6,), 2, (4,)), dense_decoder((6,), 2, (4,))), {}),
    "pca": (lambda: kvae.PCA(2, seed=0), None),
}


def main(folder):
    expected = {}
    for name, (make, compiled) in MODELS.items():
        keras.utils.set_random_seed(1)
        model = make()
        data = {"x": X, "y": LABELS} if name == "conditional_vae" else {"x": X}
        if compiled is None:
            model.fit(X, verbose=0)
        else:
            model.compile(**{"optimizer": kvae.optimizers.Adam(1e-2), **compiled})
            model.fit(**data, epochs=2, batch_size=20, verbose=0)
        model.save(folder / f"{name}.keras", overwrite=True)
        expected[name] = {
            "evaluate": model.evaluate(**data, verbose=0, return_dict=True),
            "transform": model.transform(tuple(data.values()) if len(data) > 1 else X).tolist(),
            "step": 0 if compiled is None else int(model.optimizer.iterations),
        }
    kvae.data.pack(
        {"train": (PIXELS, np.arange(40)), "test": (PIXELS[:10], np.arange(10))},
        folder / "packed",
        source="random numbers",
        licence="none",
    )
    for directory, epochs in ((folder / "run", 2), (folder / "whole", 3)):  # a Checkpoint has an order of its own
        keras.utils.set_random_seed(1)
        model = vae()
        model.compile(kvae.optimizers.Adam(1e-2))
        callbacks = [kvae.callbacks.Checkpoint(directory, save_every=2)]
        model.fit(X, epochs=epochs, batch_size=20, verbose=0, callbacks=callbacks)
    shutil.rmtree(folder / "whole")
    expected["run"] = {"weights": [np.asarray(weight).tolist() for weight in model.get_weights()]}
    for card in folder.glob("*.card.*"):
        card.unlink()
    (folder / "expected.json").write_text(json.dumps(expected))
    np.savez(folder / "data.npz", x=X, labels=LABELS, pixels=PIXELS)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
