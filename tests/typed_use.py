"""Calls as in the README and the guides: never run, but `pyright` accepts each of them."""

import keras
import numpy as np

import kvae
from kvae import flows, networks, plots, posteriors, schedules

train, validation, test = kvae.data.load("sprites", batch_size=256, seed=None)
shape = kvae.data.image_shape(train)
vae = kvae.VAE(
    encoder=networks.conv_encoder(shape, latent_dim=10),
    decoder=networks.conv_decoder(shape, latent_dim=10, filters=[32, 64]),
    likelihood=kvae.GaussianLikelihood(),
)
vae.compile(optimizer=kvae.optimizers.Adam(1e-3), loss=kvae.ELBO(beta=1.0))
vae.fit(train, validation_data=validation, epochs=10, callbacks=[kvae.callbacks.Checkpoint("run")])
elbo: float = vae.evaluate(test, return_dict=True)["elbo"]
codes: np.ndarray = vae.transform(test)
images = vae.sample(64)
vae.save("vae.keras")
loaded = kvae.load("vae.keras")
plots.traversals(vae, test)
report = kvae.evaluation.report(vae, test)

likelihoods: list[kvae.Likelihood] = [
    kvae.GaussianLikelihood(0.01),
    kvae.GaussianLikelihood("pixel", min_variance=1e-4),
    kvae.NegativeBinomialLikelihood(dispersion=0.5),
    kvae.DiscretizedLogisticLikelihood(components=5, levels=256),
    kvae.CategoricalLikelihood(levels=None),
]
objectives: list[kvae.Objective] = [
    kvae.ELBO(4),
    kvae.ELBO(beta=schedules.LinearWarmUp(share=0.25)),
    kvae.ELBO(beta=schedules.LinearWarmUp(1_000), free_bits=0.5),
    kvae.ELBO(beta=schedules.CyclicalWarmUp(cycles=4)),
    kvae.ELBO(beta=keras.optimizers.schedules.CosineDecay(1.0, 100)),
    kvae.IWAE(samples=50, gradient="doubly_reparameterized"),
    kvae.BetaTCVAE(737_280, beta=schedules.LinearWarmUp(1_000, end=6.0), sampling="stratified"),
    kvae.DIP("I", lambda_od=5),
    kvae.AnnealedCapacity(schedules.LinearWarmUp(100_000, end=25)),
]
prior = kvae.VampPrior(500, bounds=None)
prior.start_at(np.zeros((500, 28, 28, 1), "float32"))
priors: list[kvae.Prior] = [prior, kvae.FlowPrior(flows.Coupling(steps=4, hidden=[64, 64]))]
family = posteriors.FlowPosterior(flows.InverseAutoregressive(2), context=32)
flexible = kvae.VAE(
    networks.dense_encoder((784,), 20, hidden=(), posterior_family=family),
    networks.dense_decoder((784,), 20),
    likelihood="bernoulli",
    prior=prior,
    posterior_family=family,
    seed=1,
)

z = kvae.Sampling(seed=None)([np.zeros((3, 2)), np.zeros((3, 2))])
q = kvae.distributions.Normal(np.zeros((3, 2)), np.zeros((3, 2)))
mean: float = float(np.mean(q.log_prob(z).numpy()))
