"""The prose, the docstrings and the types of kvae in numbers: `python tests/benchmarks/style.py [--list]`.

Counts relative and question words in 1,000 words of docstrings, public parameters that their docstring doesn't name,
public callables whose signature isn't annotated, files and lines.
"""

import argparse
import ast
import inspect
import pathlib
import re

import kvae

ROOT = pathlib.Path(kvae.__file__).parent
WORDS = ("which", "whose", "where", "what", "those", "that")


def docstrings(root=ROOT):
    """(path, docstring) of each module, class and function."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield path.relative_to(root), text


def relative_words(texts):
    """(number of WORDS, number of words) in the texts."""
    words = [word for text in texts for word in re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())]
    return sum(word in WORDS for word in words), len(words)


def public(module=kvae, seen=None):
    """{qualified name: callable} of the functions, classes and methods that users find in kvae's namespaces."""
    seen = {} if seen is None else seen
    for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
        value = getattr(module, name)
        if inspect.ismodule(value):
            if value.__name__.startswith("kvae."):
                public(value, seen)
        elif callable(value) and getattr(value, "__module__", "").startswith("kvae."):
            seen[f"{value.__module__}.{value.__qualname__}"] = value
            for base in value.__mro__ if inspect.isclass(value) else ():
                if base.__module__.startswith("kvae."):
                    methods = [method for method in public_methods(base) if not is_hook(base, method)]
                    seen |= {f"{base.__module__}.{method.__qualname__}": method for method in methods}
    return seen


def public_methods(each):
    """The methods that a class defines itself, class methods and static ones included."""
    methods = [getattr(method, "__func__", method) for method in vars(each).values()]
    return [method for method in methods if inspect.isfunction(method) and not method.__name__.startswith("_")]


def is_hook(owner, method):
    """Whether it has no docstring and is called by Keras or TensorFlow, one of whose classes defines the name."""
    others = [base for base in owner.__mro__ if not base.__module__.startswith("kvae.") and base is not object]
    return not method.__doc__ and any(method.__name__ in vars(base) for base in others)


def parameters(each):
    """Its parameters, without self, cls, *args and **kwargs; none if the constructor is Keras' own."""
    made_by = (each.__new__ if issubclass(each, tuple) else each.__init__) if inspect.isclass(each) else each
    if not getattr(made_by, "__module__", "").startswith(("kvae", "namedtuple")):
        return []
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    found = [each for each in inspect.signature(made_by).parameters.values() if each.kind not in kinds]
    return [each for each in found if each.name not in ("self", "cls", "_cls")]


def docstring(each):
    """Its docstring, or the one of the method that it overrides."""
    return inspect.getdoc(each) or (inspect.getdoc(overridden(each)) if overridden(each) else "") or ""


def overridden(method):
    owner = kvae_class(method)
    for base in owner.__mro__[1:] if owner else ():
        if method.__name__ in vars(base):
            return vars(base)[method.__name__]
    return None


def kvae_class(method):
    parts = getattr(method, "__qualname__", "").split(".")
    found = inspect.getmodule(method)
    for part in parts[:-1]:
        found = getattr(found, part, None)
    return found if inspect.isclass(found) else None


def unnamed():
    """["callable: parameter"] for public parameters that their docstring doesn't name."""
    return [
        f"{name}: {parameter.name}"
        for name, each in public().items()
        for parameter in parameters(each)
        if not re.search(rf"\b{parameter.name}\b", docstring(each))
    ]


def unannotated():
    """Names of public functions, constructors and methods with a parameter or a result without a type."""
    found = []
    for name, each in public().items():
        is_class = inspect.isclass(each)
        given = [parameter.annotation is not parameter.empty for parameter in parameters(each)]
        if not is_class:
            given.append(inspect.signature(each).return_annotation is not inspect.Signature.empty)
        if not all(given):
            found.append(name)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the offenders as well")
    options = parser.parse_args()
    found, words = relative_words(text for _, text in docstrings())
    print(f"{1000 * found / words:.1f} of 1,000 docstring words are {', '.join(WORDS)} ({words:,} words)")
    if options.list:
        texts = {}
        for path, text in docstrings():
            texts.setdefault(str(path), []).append(text)
        counts = {path: relative_words(texts) for path, texts in texts.items()}
        for path, (count, of) in sorted(counts.items(), key=lambda item: -item[1][0] / item[1][1]):
            print(f"  {1000 * count / of:5.1f}  {count:3} of {of:5}  {path}")
    everything = public()
    count = sum(len(parameters(each)) for each in everything.values())
    for title, offenders, total in (
        ("public parameters aren't named in their docstring", unnamed(), count),
        ("public callables aren't annotated", unannotated(), len(everything)),
    ):
        print(f"{len(offenders)} of {total} {title}")
        if options.list:
            print(*(f"  {offender}" for offender in offenders), sep="\n")
    files = list(ROOT.rglob("*.py"))
    print(f"{len(files)} files, {sum(len(path.read_text().splitlines()) for path in files):,} lines")


if __name__ == "__main__":
    main()
