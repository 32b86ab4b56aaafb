import numpy as np
import pytest

from kvae import arguments


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_python_and_numpy_integers_are_integers(value):
    assert arguments.is_integer(value, least=2)
    assert not arguments.is_integer(value, least=3)
    assert type(arguments.integer_at_least("count", value, 1)) is int


@pytest.mark.parametrize("value", [True, 2.0, "2", None, np.bool_(True)])
def test_other_values_are_not(value):
    assert not arguments.is_integer(value)
    with pytest.raises(ValueError, match=r"count is .*; expected an integer of at least 1\."):
        arguments.integer_at_least("count", value, 1)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int8(1)])
def test_real_numbers_are_finite_and_in_their_range(value):
    assert arguments.is_real(value, above=0)
    assert not arguments.is_real(value, above=value)
    assert arguments.is_real(value, least=value)
    assert type(arguments.real("rate", value, least=0)) is float


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_infinite_ones_are_none(value):
    assert not arguments.is_real(value)
    with pytest.raises(ValueError, match=r"rate is .*; expected a finite number of at least 0 or None\."):
        arguments.real("rate", value, least=0, alternative=" or None")


@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_what_is_no_number_is_an_error_of_its_type(value):
    with pytest.raises(TypeError, match=r"rate is .*; expected a number\."):
        arguments.real("rate", value)


def test_an_argument_is_taken_under_its_old_name_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"posterior= is now posterior_family="):
        assert arguments.renamed("posterior", 1, "posterior_family", None) == 1
    assert arguments.renamed("posterior", None, "posterior_family", 2) == 2
    with pytest.raises(TypeError, match="are both given"):
        arguments.renamed("posterior", 1, "posterior_family", 2)


def test_an_attribute_or_a_method_is_found_under_its_old_name_with_a_warning():
    class Model:
        def log_likelihood(self):
            return 3

        log_conditional = arguments.renamed_attribute("log_conditional", "log_likelihood")

    with pytest.warns(DeprecationWarning, match=r"Model\.log_conditional is now Model\.log_likelihood") as warned:
        assert Model().log_conditional() == 3
    assert warned[0].filename == __file__


def test_a_module_gives_its_moved_objects_with_a_warning():
    get = arguments.renamed_in_module("kvae.data", {"old": ("kvae.evaluation.new", lambda: 4)})
    with pytest.warns(DeprecationWarning, match=r"kvae\.data\.old is now kvae\.evaluation\.new") as warned:
        assert get("old") == 4
    assert warned[0].filename == __file__
    with pytest.raises(AttributeError, match=r"module 'kvae\.data' has no attribute 'new'"):
        get("new")
