"""A linear VAE trained by `fit` on Fashion-MNIST against the closed-form optimum, probabilistic PCA.

python tests/benchmarks/linear_vae.py [--epochs 400] [--data-dir DIR]

Prints, in nats per image, PCA's exact log-likelihood and the linear VAE's ELBO on training and test images, both
noise variances, PCA's squared error at three code sizes, and how much of the variance that PCA's axes explain the
decoder's columns explain.
"""

import argparse

import keras
import numpy as np

import kvae

LATENT_DIM, BATCH_SIZE = 10, 500


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    train, _, test = kvae.data.load(
        "fashion_mnist", BATCH_SIZE, validation=0, shuffle=60_000, seed=options.seed, data_dir=options.data_dir
    )

    for latent_dim in 2, 30, LATENT_DIM:
        pca = kvae.PCA(latent_dim).fit(train, verbose=0)
        numbers = {part: pca.evaluate(x, verbose=0, return_dict=True) for part, x in (("train", train), ("test", test))}
        print(
            f"PCA {latent_dim:>2}: log-likelihood {numbers['train']['log_likelihood']:.4f} (test "
            f"{numbers['test']['log_likelihood']:.4f}), squared error {numbers['train']['squared_error']:.4f} (test "
            f"{numbers['test']['squared_error']:.4f}), noise variance {float(pca.noise_variance):.6e}",
            flush=True,
        )

    keras.utils.set_random_seed(options.seed)
    shape = kvae.data.image_shape(train)
    images = np.concatenate(list(train))  # 47 MB: hundreds of epochs would decode each file hundreds of times
    vae = kvae.VAE(
        kvae.networks.dense_encoder(shape, LATENT_DIM, hidden=()),
        kvae.networks.dense_decoder(shape, LATENT_DIM, hidden=()),
        seed=options.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * len(train))
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=10)
    vae.fit(images, batch_size=BATCH_SIZE, epochs=options.epochs, verbose=2)
    elbo = [vae.evaluate(x, verbose=0, return_dict=True)["elbo"] for x in (train, test)]
    axes = np.linalg.qr(vae.decoder.layers[1].get_weights()[0].T.astype("float64"))[0]
    print(
        f"Linear VAE: ELBO {elbo[0]:.4f} (test {elbo[1]:.4f}), noise variance "
        f"{float(np.exp(vae.likelihood.log_var)):.6e}, variance explained over PCA's "
        f"{explained(train, pca, axes.T) / explained(train, pca, np.asarray(pca.components)):.6f}"
    )


def explained(data, pca, axes):
    centred = (np.asarray(kvae.data.elements.scale(x, "float64")).reshape(len(x), -1) - pca.mean for x in data)
    return sum(np.square(x @ axes.T).sum() for x in centred)


if __name__ == "__main__":
    main()
