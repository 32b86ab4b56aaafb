"""The notebooks on the site, in Chromium: pytest -m slow tests/browser (it needs playwright, Chromium and Sphinx)."""

import pathlib
import re
import subprocess
import sys

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow
PICTURES = """() => [...document.querySelectorAll('.cell_output img')].map((image) => {
    const style = getComputedStyle(image);
    return [image.alt, image.naturalWidth > 100, style.backgroundColor, style.borderRadius];
})"""
WORDS = """() => [...document.querySelectorAll('article p, article li, article td')].map((text) => {
    const copy = text.cloneNode(true);
    copy.querySelectorAll('pre, code, .math').forEach((each) => each.remove());
    return copy.textContent;
}).join('\\n')"""


@pytest.fixture(scope="module")
def site():
    """The folder of the site, which is built unless it is newer than the notebooks."""
    sources = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / ".docs").glob("*.py")]
    index = SITE / "index.html"
    if not index.exists() or index.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", ROOT / ".docs", SITE], check=True)
    return SITE


@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_have_words_and_are_cards_in_both_themes(site, browser, name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    outputs = [(cell, output) for cell in cells for output in cell.get("outputs", [])]
    alts = [cell.metadata["alt"] for cell, output in outputs if "image/png" in output.get("data", {})]
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto((site / "notebooks" / f"{name}.html").as_uri())
        card = [True, "rgb(255, 255, 255)", "8px"]
        assert page.evaluate(PICTURES) == [[alt, *card] for alt in alts]
        assert page.get_by_role("img", name=alts[0], exact=True).count() == alts.count(alts[0])
        assert not re.findall(r"</?[a-z]+[ >/]", page.evaluate(WORDS))
        assert page.locator("details[open]").count() == 0
        page.close()
