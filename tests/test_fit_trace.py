"""A reader who follows one `fit` enters few files, and leaves few of them to come back."""

from fit_trace import traced


def test_a_fit_and_a_step_of_it_pass_through_no_more_files_than_they_did():
    """The aim is 18 files and 120 moves for a fit, 12 and 45 for a step; these limits keep the distance."""
    found = traced()
    assert len(found["fit"].files) <= 27 and found["fit"].moves <= 216, found["fit"]
    assert len(found["train_step"].files) <= 12 and found["train_step"].moves <= 45, found["train_step"]
