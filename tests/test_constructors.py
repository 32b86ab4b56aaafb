"""The design's rule: a constructor has at most seven arguments."""

import inspect
import re

import pytest

import kvae

MOST = 7


def public(module):
    """The public classes of a module of kvae and of those in it, but for results of `evaluation` and of audits."""
    for name, value in vars(module).items():
        if name.startswith("_") or value is kvae.evaluation:
            continue
        if inspect.ismodule(value) and value.__name__ == f"{module.__name__}.{name}":
            yield from public(value)
        elif inspect.isclass(value) and re.match(r"kvae\.(?!auditing)", value.__module__):
            yield value


CLASSES = sorted(set(public(kvae)), key=lambda each: each.__qualname__)


def arguments(each):
    """The names of what its constructor takes, without those that go on to Keras; none where it is Keras' own."""
    made_by = each.__new__ if issubclass(each, tuple) else each.__init__
    if getattr(made_by, "__module__", "").startswith("keras."):
        return []
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [name for name, taken in inspect.signature(made_by).parameters.items() if taken.kind not in kinds][1:]


def test_the_models_are_among_them():
    assert {kvae.VAE, kvae.HierarchicalVAE, kvae.Draw, kvae.flows.Planar, kvae.callbacks.Checkpoint} <= set(CLASSES)
    assert arguments(kvae.VAE) == ["encoder", "decoder", "likelihood", "prior", "posterior_family", "seed", "missing"]
    assert arguments(kvae.Draw) == list(kvae.Draw._fields)


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__qualname__)
def test_a_constructor_takes_at_most_seven_arguments(each):
    assert len(arguments(each)) <= MOST
