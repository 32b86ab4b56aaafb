"""PCA against the autoencoder and the VAE at equal code size: squared error of held-out images.

python tests/benchmarks/equal_code_size.py [--epochs 20] [--data-dir DIR]

Sprites of 32x32 (20,000) with 10 numbers a code, and Fashion-MNIST with 10 and 30; convolutional networks, and for 30
the dense 784-1000-500-250-30 of Hinton and Salakhutdinov (2006). The networks never see the test images.
"""

import argparse

import keras

import kvae

HIDDEN = (1000, 500, 250)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    for name, latent_dim, dense in ("sprites", 10, False), ("fashion_mnist", 10, False), ("fashion_mnist", 30, True):
        arguments = {"size": 32, "examples": 20_000} if name == "sprites" else {}
        train, _, test = kvae.data.load(name, 128, data_dir=options.data_dir, **arguments)
        shape = kvae.data.image_shape(train)
        models = {"PCA": kvae.PCA(latent_dim).fit(train, verbose=0)}
        for kind in kvae.Autoencoder, kvae.VAE:
            keras.utils.set_random_seed(0)
            model = models[kind.__name__] = kind(*networks(shape, latent_dim, dense))
            schedule = keras.optimizers.schedules.CosineDecay(1e-3, options.epochs * len(train))
            model.compile(keras.optimizers.Adam(schedule))
            model.fit(train, epochs=options.epochs, verbose=0)
        errors = {key: kvae.evaluation.squared_error(model, test) for key, model in models.items()}
        network = "dense" if dense else "convolutional"
        print(name, latent_dim, network, {key: round(error, 3) for key, error in errors.items()}, flush=True)


def networks(shape, latent_dim, dense):
    if dense:
        return (
            kvae.networks.dense_encoder(shape, latent_dim, hidden=HIDDEN),
            kvae.networks.dense_decoder(shape, latent_dim, hidden=HIDDEN[::-1]),
        )
    return kvae.networks.conv_encoder(shape, latent_dim), kvae.networks.conv_decoder(shape, latent_dim)


if __name__ == "__main__":
    main()
