"""Mistakes to plant in kvae's formulas, and the test that each has to break."""

import pytest

# By test: (file, what stands in it, what is put there).
MUTATIONS = {
    "objectives/test_objectives.py::test_elbo_is_reconstruction_minus_kl": [
        ("objectives/bounds.py", "reconstruction_loss - self.kl_loss", "reconstruction_loss + self.kl_loss"),
        ("objectives/bounds.py", "return ops.sum(self.kl_by_group", "return ops.mean(self.kl_by_group"),
    ],
    "objectives/test_objectives.py::test_beta_and_free_bits_weigh_the_loss_and_not_the_elbo": [
        ("objectives/bounds.py", "* ops.sum(kl, axis=1)", "* ops.mean(kl, axis=1)"),
    ],
    "objectives/test_iwae.py::test_a_models_loss_is_minus_the_bound": [
        ("objectives/bounds.py", "axis=1) - ops.log(count)", "axis=1)"),
    ],
    "objectives/test_iwae.py::test_a_full_normal_is_the_exact_posterior_of_a_linear_decoder": [
        ("objectives/bounds.py", "self.log_prior - self.log_posterior", "self.log_prior + self.log_posterior"),
    ],
    "objectives/test_disentangling.py::test_on_a_gaussian_aggregate_the_three_terms_have_their_closed_forms": [
        ("objectives/disentangling.py", "log_aggregate - log_marginals),", "log_aggregate + log_marginals),"),
        ("objectives/disentangling.py", "ops.square(standardized) + pairs", "ops.square(standardized) - pairs"),
    ],
    "objectives/test_disentangling.py::test_both_estimators_are_the_papers_loops": [
        ("objectives/disentangling.py", "- log_examples - ops.log(n)", "- log_examples"),
        ("objectives/disentangling.py", "> 0, -log_examples, others)", "> 0, others, -log_examples)"),
    ],
    "objectives/test_disentangling.py::test_the_penalty_of_dip_is_that_of_numpys_covariances": [
        ("objectives/disentangling.py", "ops.square(variances - 1.0)", "ops.square(variances)"),
        (
            "objectives/disentangling.py",
            "posterior.mean - ops.mean(posterior",
            "posterior.mean - 0 * ops.mean(posterior",
        ),
    ],
    "objectives/test_disentangling.py::test_the_capacity_is_that_of_the_batchs_mean": [
        ("objectives/disentangling.py", "kl = ops.mean(draw.kl_loss)", "kl = draw.kl_loss"),
    ],
    "models/test_vq_vae.py::test_the_priors_probabilities_of_all_grids_sum_to_1": [
        ("models/vq_vae.py", "chosen - ops.logsumexp(logits, axis=-1)", "chosen"),
        ("models/vq_vae.py", "self.codes))[:, position]", "self.codes))[:, position - 1]"),
    ],
    "models/test_vq_vae.py::test_logits_depend_on_earlier_codes_alone": [
        ("layers.py", "ops.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0]])", "x"),
        ("networks.py", "use_causal_mask=True", "use_causal_mask=False"),
    ],
    "models/test_factor_vae.py::test_each_network_has_the_gradient_of_its_own_loss": [
        ("models/factor_vae.py", "+ self.gamma * logits", "- self.gamma * logits"),
    ],
    "models/test_factor_vae.py::test_the_permuted_z_has_each_latents_values_and_none_of_their_order": [
        ("models/factor_vae.py", "argsort(noise, axis=0)", "argsort(noise[:, :1] + 0 * noise, axis=0)"),
        ("models/factor_vae.py", "self.latent_dim, key=1)", "self.latent_dim)"),
    ],
    "models/test_ada_gvae.py::test_shared_latents_are_those_of_a_kl_below_the_middle_and_get_the_mean_moments": [
        ("models/ada_gvae.py", "kl < middle", "kl > middle"),
        ("models/ada_gvae.py", "logaddexp(*log_vars) - math.log(2)", "logaddexp(*log_vars)"),
    ],
    "distributions/test_distributions.py::test_kl_divergence_is_the_integral_of_its_definition": [
        ("distributions/normal.py", "0.5 * (ops.square(standardized)", "(ops.square(standardized)"),
        ("distributions/normal.py", "(difference) - difference", "(difference) + difference"),
    ],
    "distributions/test_distributions.py::test_normal_log_prob_is_scipys": [
        ("distributions/normal.py", "-0.5 * sum_event(ops.square(standardized)", "-sum_event(ops.square(standardized)"),
    ],
    "distributions/test_distributions.py::test_samples_have_the_distributions_moments": [
        ("distributions/normal.py", "return ops.exp(0.5 * self.log_var)\n", "return ops.exp(self.log_var)\n"),
    ],
    "distributions/test_distributions.py::test_bernoulli_log_prob_is_scipys": [
        ("distributions/normal.py", "return ops.sum(values", "return ops.mean(values"),
        ("distributions/bernoulli.py", "- _sum_softplus", "+ _sum_softplus"),
    ],
    "distributions/test_counts.py::test_log_probs_are_scipys": [
        ("distributions/counts.py", "- self.mean - log_rising", "- self.mean + log_rising"),
    ],
    "distributions/test_counts.py::test_a_negative_binomial_likelihood_is_scipys": [
        ("likelihoods/counts.py", "else self.log_dispersion)", "else -self.log_dispersion)"),
    ],
    "distributions/test_discrete.py::test_the_mixtures_log_prob_is_scipys": [
        ("distributions/discrete.py", "level + 0.5 - means", "level - means"),
    ],
    "test_posteriors.py::test_a_full_normals_kl_is_the_textbooks": [
        ("distributions/normal.py", "diagonal + 0.5 * ops.sum", "diagonal + ops.sum"),
    ],
    "test_priors.py::test_a_vamp_prior_is_the_mean_of_its_pseudo_inputs_posteriors": [
        ("distributions/mixture.py", "-ops.log(", "ops.log("),
    ],
    "test_priors.py::test_a_mixture_of_gaussians_is_scipys_and_integrates_to_1": [
        ("priors.py", "ops.log_softmax(self.logits)", "ops.convert_to_tensor(self.logits)"),
    ],
    "flows/test_flows.py::test_the_log_determinant_is_the_jacobians": [
        ("flows/affine.py", "sign * ops.sum(log_scale", "sign * ops.mean(log_scale"),
        ("flows/planar.py", "log_determinant + ops.log1p", "log_determinant - ops.log1p"),
    ],
    "flows/test_flows.py::test_a_draw_is_scored_as_any_other_z": [
        ("flows/base.py", "log_prob(u) + log_determinant", "log_prob(u) - log_determinant"),
    ],
    "evaluation/test_likelihood_estimates.py::test_with_the_exact_posterior_every_draw_weighs_log_p_of_x": [
        ("evaluation/importance.py", "+ log_prior - log_posterior", "- log_prior - log_posterior"),
        ("evaluation/importance.py", "total - math.log(counts[-1])", "total"),
    ],
}

MISTAKES = [
    pytest.param(test, *mutation, id=mutation[1]) for test, mutations in MUTATIONS.items() for mutation in mutations
]
