"""Grids of which the default run has some cases and `pytest -m thorough` the others."""

import pytest


def thorough(*values, **options):
    """A case of `parametrize` for the thorough run alone."""
    return pytest.param(*values, marks=pytest.mark.thorough, **options)


def some(cases, *kept):
    """The cases, those that aren't among the `kept` for the thorough run alone.

    cases: values or tuples of them, or a dict of these by name. kept: values, or names of the dict.
    """
    named = cases.items() if isinstance(cases, dict) else ((case, case) for case in cases)
    found = []
    for name, case in named:
        values = case if isinstance(case, tuple) else (case,)
        label = {"id": name} if isinstance(cases, dict) else {}
        found.append(pytest.param(*values, **label) if name in kept else thorough(*values, **label))
    assert sum(not case.marks for case in found) == len(kept), kept
    return found


EAGERLY_AND_IN_A_GRAPH = pytest.mark.parametrize("eagerly", some({"eagerly": True, "in a graph": False}, "eagerly"))
