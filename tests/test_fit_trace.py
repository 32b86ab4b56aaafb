"""A reader who follows one `fit` enters few files, and leaves few of them to come back."""

import pytest
from fit_trace import traced


@pytest.mark.xfail(strict=False)
def test_a_fit_and_a_step_of_it_pass_through_few_files():
    found = traced()
    assert len(found["fit"].files) <= 18 and found["fit"].moves <= 120, found["fit"]
    assert len(found["train_step"].files) <= 12 and found["train_step"].moves <= 45, found["train_step"]
