"""What every notebook of the series keeps to; that each runs is nbval's to say."""

import ast
import base64
import pathlib
import re
from html import escape

import harness
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in (*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("src/[0-9]*.py")))
pytestmark = pytest.mark.parametrize("name", sorted(set(NAMES)))


def notebook(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_of(name):
    return [cell.source for cell in notebook(name).cells if cell.cell_type == "code"]


def texts_of(name):
    return [cell.source for cell in notebook(name).cells if cell.cell_type == "markdown"]


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def section(name, title):
    """The text below a heading of the second level, up to the next one."""
    parts = ("\n" + "\n".join(texts_of(name))).split("\n## ")
    found = [part.removeprefix(title) for part in parts if part.startswith(title + "\n")]
    assert len(found) == 1, f"{len(found)} sections are named {title}"
    return found[0]


def items(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_notebook_and_its_source_hold_the_same_cells(name):
    source = harness.read(name)
    for made, cell in zip(notebook(name).cells, source.cells, strict=True):
        assert (made.cell_type, made.source, made.metadata) == (cell.cell_type, cell.source, cell.metadata), (
            f"run notebooks/src/build.py {name}"
        )


def test_the_readme_shows_it_and_one_of_its_pictures(name):
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    assert f"](notebooks/{name}.ipynb)" in readme
    assert f"notebooks/pictures/{name}.png" in readme
    shown = base64.b64encode((NOTEBOOKS / "pictures" / f"{name}.png").read_bytes()).decode()
    outputs = [output.get("data", {}) for cell in notebook(name).cells for output in cell.get("outputs", [])]
    assert any(data.get("image/png", "").replace("\n", "") == shown for data in outputs), "run notebooks/src/build.py"


def test_it_was_executed_from_top_to_bottom_without_a_complaint(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    cells = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 1_000_000


def test_it_is_short(name):
    code = code_of(name)
    assert len(notebook(name).cells) <= 40
    assert sum(len(lines(cell)) for cell in code if cell != harness.SETUP) <= 160
    for cell in code:
        assert len(lines(cell)) <= 16 or cell == harness.SETUP, cell
        functions = [node for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
        assert all(node.end_lineno - node.lineno < 10 for node in functions), cell


def test_its_imports_are_in_its_first_cells_of_code(name):
    _, _, *others = code_of(name)
    for cell in others:
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(cell))), cell


def test_a_reader_sees_no_harness(name):
    setup, *code = code_of(name)
    assert setup == harness.SETUP
    for cell in code:
        assert not re.search(r"QUICK|NBVAL|assert |strict=|#\||TF_CPP", cell), cell


def test_its_pictures_are_described(name):
    for cell in notebook(name).cells:
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "image/png" in data:
                assert len(cell.metadata.get("alt", "")) > 20, cell.source
                assert f'<img alt="{escape(cell.metadata["alt"])}"' in data["text/html"], "run notebooks/src/build.py"


def test_it_asks_a_question_and_ends_with_a_summary_exercises_and_references(name):
    title = texts_of(name)[0]
    assert re.search(r"^# .*\?$", title, re.M)
    for part in ("you can", "minute", "Data"):
        assert part in title, part
    headings = [line for text in texts_of(name) for line in items(text, "## ")]
    assert headings[-3:] == ["## Summary", "## Exercises", "## References"]
    for part in ("Summary", "Exercises"):
        assert [line[:2] for line in section(name, part).splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]
    assert items(section(name, "References"), "- ")


def test_claims_are_checked_where_they_are_made(name):
    cells = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
    compared = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(compared) >= 2
    assert sum("assert " in harness.tested(cell) for cell in cells) >= 3
