"""The package's prose is plain, its public parameters are documented and typed, and it is no larger than it was."""

import style


def test_the_measures_see_what_they_count():
    assert style.relative_words(["What counts is that which is seen, whatever it's for."]) == (3, 10)
    everything = style.public()
    assert {"kvae.objectives.bounds.ELBO", "kvae.models.vae.VAE", "kvae.models.vae.VAE.losses_per_example"} <= set(
        everything
    )
    assert any(name.endswith(".sample") and name.startswith("kvae.models") for name in everything)
    assert [each.name for each in style.parameters(everything["kvae.objectives.bounds.ELBO"])] == ["beta", "free_bits"]


def test_docstrings_have_at_most_14_relative_words_in_1000():
    found, words = style.relative_words(text for _, text in style.docstrings())
    assert 1000 * found / words <= 14


def test_public_parameters_are_named_in_their_docstring():
    assert not style.unnamed()


def test_public_signatures_are_annotated():
    assert not style.unannotated()


def test_the_package_grows_no_further():
    """The aim is 90 files and 11,700 lines; docstrings, and sentences for bad input, take the package beyond that."""
    files = list(style.ROOT.rglob("*.py"))
    assert len(files) <= 180
    assert sum(len(path.read_text().splitlines()) for path in files) <= 30_909
