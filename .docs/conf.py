"""Builds the site from README, guides, notebooks and docstrings: sphinx-build -W .docs build/site."""

import pathlib
import re
import shutil

from sphinx.util import inspect

here = pathlib.Path(__file__).parent
for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"):
    shutil.copy2(here.parent / name, here)  # Sphinx reads one folder only
for name in ("kvae", "notebooks"):
    shutil.rmtree(here / name, ignore_errors=True)
    shutil.copytree(here.parent / name, here / name, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.card.md"))
for path in (here / "notebooks").glob("*.ipynb"):
    path.write_text(path.read_text().replace("(../README.md#", "(../index.md#"))
shutil.copytree(here / "notebooks" / "pages", here / "pages" / "notebooks" / "pages", dirs_exist_ok=True)

project = html_title = "kvae"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["README.md", "kvae", "notebooks/src", "pages"]
templates_path = ["_templates"]
html_theme = "furo"
html_show_copyright = False
html_extra_path = ["pages"]  # in frames of the guides
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "image/png", 0)]  # files, with the same words, and not text/html with data in it
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
autosummary_ignore_module_all = False
autodoc_default_options = {"members": True, "inherited-members": "object", "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
napoleon_custom_sections = ["Reference"]


def setup(app):
    app.connect("autodoc-process-docstring", markdown, priority=400)  # ahead of napoleon
    app.connect("autodoc-process-signature", constructor_signature)
    app.connect("autodoc-skip-member", is_from_elsewhere)


def markdown(app, what, name, member, options, lines):
    """Read docstrings as Keras writes them: `code` in single backticks, and no other markup."""
    parts = re.split(r"(^ *>>> (?:.*\S.*\n)+|``[^`]+``|`[^`]+`)", "\n".join(lines) + "\n", flags=re.M)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part)
            if i and re.match(r"\w", part):
                parts[i] = "\\ " + parts[i]  # the plural of `code`
        elif re.match("`[^`]", part):
            parts[i] = f"`{part}`"
    text = re.sub(r"^Example:\n\n(?=>>>)", ".. rubric:: Example\n\n", "".join(parts), flags=re.M)
    lines[:] = text.splitlines()
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # a comment; else napoleon takes the words ahead of a colon for a type


def constructor_signature(app, what, name, member, options, signature, annotation):
    """Show the arguments of __init__: Keras' __new__ hides them."""
    if what == "class" and signature == "(*args, **kwargs)":
        constructor = inspect.signature(member.__init__, bound_method=True)
        return inspect.stringify_signature(constructor, show_return_annotation=False, unqualified_typehints=True), None


def is_from_elsewhere(app, what, name, member, skip, options):
    """Leave out the members that Keras, TensorFlow and tuples define."""
    module = getattr(getattr(member, "fget", member), "__module__", None) or "kvae"
    of_tuples = type(member).__name__ in ("method_descriptor", "_tuplegetter")
    return skip or of_tuples or not module.startswith("kvae") or name.startswith("__")
