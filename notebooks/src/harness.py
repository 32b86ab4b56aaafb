"""What the readers of a notebook don't see: its setup, its checks, its quick form, its links.

In a source, lines that start with `#|` are for the machine:

    #| output           the printed output is the same on every machine: nbval compares it
    #| alt: a sentence  what the cell's pictures show, for those who don't see them
    #| quick: N = 10    replaces the line `N = ...` when the notebook is tested
    #| check            the rest of the cell is run after it, by the build and by the tests, and isn't in the notebook
    #| setup            in the first cell of code: a cell ahead of it imports kvae and sets the style of all figures
"""

import pathlib
import re

import jupytext
import nbformat

SOURCES = pathlib.Path(__file__).parent
GUIDES = "[guides](guides/models.md)"
SETUP = """\
# Run this cell first: it installs kvae if need be, keeps TensorFlow's log off the page, and sets the figures' style.
import os
import subprocess
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
    import kvae
except ModuleNotFoundError:  # this notebook is in the folder notebooks/ of kvae's repository
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "..[notebooks]"], check=True)
    import kvae
finally:
    os.dup2(stderr, 2)

import matplotlib.pyplot as plt

plt.style.use("petroff10")  # colours for colour-blind readers: C0 is blue, C1 orange
plt.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "image.interpolation": "nearest"})
plt.rcParams.update({"legend.frameon": False, "lines.linewidth": 2.5, "font.size": 10})"""


def read(name):
    """The notebook of a source, without outputs."""
    notebook = jupytext.read(SOURCES / f"{name}.py", fmt="py:percent")
    has_setup = any("#| setup\n" in cell.source + "\n" for cell in notebook.cells)
    notebook.cells = [hide(cell) for cell in notebook.cells]
    if has_setup:
        first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
        folded = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
        notebook.cells.insert(first, nbformat.v4.new_code_cell(SETUP, metadata=folded))
        links = nbformat.v4.new_markdown_cell(navigation(name))
        notebook.cells[0].source = f"{navigation(name)}\n\n{notebook.cells[0].source}"
        notebook.cells.append(links)
    return notebook


def navigation(name):
    """Links to the notebooks before and after, to all of them, and to the guides."""
    names = sorted(path.stem for path in SOURCES.glob("[0-9]*.py"))
    at = names.index(name)
    before = [f"[← {titled(names[at - 1])}]({names[at - 1]}.ipynb)"] if at else []
    after = [f"[{titled(names[at + 1])} →]({names[at + 1]}.ipynb)"] if at + 1 < len(names) else []
    return " · ".join([*before, "[all notebooks](../README.md#notebooks)", GUIDES, *after])


def titled(name):
    number, *words = name.split("_")
    return f"{number} {' '.join(words)}"


def hide(cell):
    """The cell as readers see it; what `#|` says goes into its metadata."""
    visible, _, check = cell.source.partition("#| check\n")
    lines, harness = [], {"check": check.strip()} if check else {}
    metadata = {}
    for line in visible.splitlines():
        key, _, text = line.removeprefix("#| ").partition(":")
        if not line.startswith("#| "):
            lines.append(line)
        elif key == "output":
            metadata["tags"] = ["nbval-check-output"]
        elif key == "alt":
            metadata |= {"alt": text.strip(), "mystnb": {"image": {"alt": text.strip()}}}
        elif key == "quick":
            harness.setdefault("quick", []).append(text.strip())
        elif key != "setup":
            raise ValueError(f"a cell has {line!r}, expected output, alt, quick, check or setup")
    cell.source = "\n".join(lines).strip("\n")
    cell.metadata = nbformat.from_dict(metadata | ({"kvae": harness} if harness else {}))
    tested(cell)
    return cell


def tested(cell):
    """The cell's source in its quick form, with its check."""
    harness, source = cell.metadata.get("kvae", {}), cell.source
    for line in harness.get("quick", []):
        name = line.partition(" = ")[0]
        source, count = re.subn(rf"^{re.escape(name)} = .*$", lambda _, line=line: line, source, flags=re.M)
        if count != 1:
            raise ValueError(f"{count} lines of a cell start with {name!r}, expected one, for {line!r}")
    if source.endswith(";"):  # which nbval's kernels don't heed
        source += "\nNone"
    return f"{source}\n{harness['check']}" if "check" in harness else source
