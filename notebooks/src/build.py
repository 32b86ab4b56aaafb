"""Makes each notebooks/NAME.ipynb from notebooks/src/NAME.py: python notebooks/src/build.py [--run] [NAME ...].

Without names, all of them. Where only texts have changed, the outputs are kept, unless --run is given. Nothing is
written unless every cell ran without an error and without a word on stderr. The picture of each that the README shows
goes into notebooks/pictures.
"""

import base64
import io
import os
import pathlib
import re
import resource
import sys
import time
from html import escape

import harness
import nbformat
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

SOURCES = pathlib.Path(__file__).parent
NOTEBOOKS = SOURCES.parent
PICTURES = NOTEBOOKS / "pictures"
SHOWN = dict(enumerate((1, 5, 2, 9, 0, 6, 4, 5, 4, 2, 1, 2, 1), start=1))  # number: the picture, counted from 0
SHOWN |= {14: 0, 15: 1, 16: 1, 17: 0}
LARGEST = 1_000_000  # bytes
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
# What TensorFlow's import says of the machine, whatever TF_CPP_MIN_LOG_LEVEL is.
MACHINE = re.compile(r"WARNING: All log messages before absl|I\d{4} |[EW]\d{4} .*cuda")
WIDGET = "application/vnd.jupyter.widget-view+json"  # without its kernel it shows an error
CARD = "background-color: #ffffff; border-radius: 8px; padding: 8px; box-sizing: content-box"  # in dark themes too


def with_checks(notebook):
    """A notebook of the same cells, with the check of each in a cell after it."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if check := cell.metadata.get("kvae", {}).get("check"):
            cells.append(nbformat.v4.new_code_cell(check, metadata={"is_check": True}))
    return nbformat.from_dict(notebook | {"cells": cells})


def execute(notebook):
    """Run all cells in a kernel of this Python, in the folder of the notebooks; outputs go into `notebook`."""
    checked = with_checks(notebook)
    only_ours = KernelSpecManager(kernel_dirs=[])  # and no kernel of the same name that another environment installed
    kernel = KernelManager(kernel_spec_manager=only_ours)
    settings = {"timeout": 900, "store_widget_state": False, "extra_arguments": ["--IPKernelApp.log_level=40"]}
    client = NotebookClient(checked, km=kernel, resources={"metadata": {"path": str(NOTEBOOKS)}}, **settings)
    try:
        client.execute()
    finally:
        kernel.shutdown_kernel(now=True)
    notebook.cells = [cell for cell in checked.cells if "is_check" not in cell.metadata]


def clean(notebook):
    """Leave nothing that differs between two equal runs, or that a reader without a kernel can't see."""
    notebook.metadata = nbformat.from_dict({"kernelspec": PYTHON, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        count += cell.cell_type == "code"
        if cell.cell_type == "code":
            cell.execution_count = count
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "execute_result":
                output.execution_count = count
            output.get("data", {}).pop(WIDGET, None)
            if "image/png" in output.get("data", {}) and "alt" in cell.metadata:
                output.metadata = nbformat.from_dict({"image/png": {"alt": cell.metadata["alt"]}})
                output.data["image/png"] = smaller(output.data["image/png"])
                output.data["text/html"] = described(output.data["image/png"], cell.metadata["alt"])
            if output.get("name") == "stderr":
                output.text = "".join(line for line in output.text.splitlines(True) if not MACHINE.match(line))
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]


def smaller(text):
    """A PNG in base64, of at most 256 colours if it is a large one."""
    image = base64.b64decode(text)
    if len(image) > 50_000:
        target = io.BytesIO()
        Image.open(io.BytesIO(image)).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT).save(
            target, "PNG", optimize=True
        )
        image = min(image, target.getvalue(), key=len)
    return base64.b64encode(image).decode()


def described(text, alt):
    """The picture as an img element with its alternative text, since JupyterLab shows image/png without any.

    JupyterLab prefers text/html. WebP, without loss, takes about half the bytes of PNG.
    """
    image, target = Image.open(io.BytesIO(base64.b64decode(text))), io.BytesIO()
    image.convert("RGB").save(target, "WEBP", lossless=True)
    source = f"data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}"
    return f'<img alt="{escape(alt)}" width="{image.width}" height="{image.height}" style="{CARD}" src="{source}">'


def complaints(notebook):
    """What was said on stderr, a line for each cell that did."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                yield f"{cell.id}: {output.text.strip()}"


def picture(name):
    """Writes the picture that the README shows of a notebook."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    outputs = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    pictures = [data["image/png"] for data in outputs if "image/png" in data]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(pictures[SHOWN[int(name[:2])]]))


def spent():
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def keep_outputs(notebook, path):
    """Whether the notebook at `path` has the same code: then its outputs are taken."""
    if not path.exists():
        return False
    code = [
        [cell for cell in each.cells if cell.cell_type == "code"]
        for each in (notebook, nbformat.read(path, as_version=4))
    ]
    sources = [[cell.source.rstrip(";") for cell in cells] for cells in code]
    if same := sources[0] == sources[1]:
        for cell, old in zip(*code, strict=True):
            results = ("execute_result",) if cell.source.endswith(";") else ()
            cell.outputs = [output for output in old.outputs if output.output_type not in results]
    return same


def build(name, run):
    notebook, target = harness.read(name), NOTEBOOKS / f"{name}.ipynb"
    began, before = time.perf_counter(), spent()
    try:
        if run or not keep_outputs(notebook, target):
            execute(notebook)
    except CellExecutionError as error:
        sys.exit(f"{name}: {error}")
    seconds, processor = time.perf_counter() - began, spent() - before
    clean(notebook)
    nbformat.validate(notebook)
    if found := list(complaints(notebook)):
        sys.exit(f"{name} wrote to stderr, which no notebook may:\n" + "\n".join(found))
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > LARGEST:
        sys.exit(f"{name}.ipynb would have {len(text.encode()):,} bytes, more than {LARGEST:,}: draw less or coarser")
    new = target.with_suffix(".new")
    new.write_text(text)
    new.replace(target)
    picture(name)
    print(f"{name}: {seconds:.0f} s, {processor:.0f} s of the processor, {len(text.encode()) // 1000} kB", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    names = [pathlib.Path(name).stem for name in sys.argv[1:] if name != "--run"]
    for name in names or sorted(path.stem for path in SOURCES.glob("[0-9]*.py")):
        build(name, run="--run" in sys.argv)
