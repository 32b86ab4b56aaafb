"""The pages that a reader meets first: their length, their links, their completeness."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")]
PAGES += sorted((ROOT / "notebooks" / "guides").glob("*.md"))


def prose(path):
    return re.sub(r"```.*?```", "", path.read_text(), flags=re.S)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_relative_link_leads_to_a_file_and_its_heading(page):
    text = prose(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_and_benchmark_that_a_page_names_exists(page):
    for name in re.findall(r"tests/[\w/]+\.py", page.read_text()):
        assert (ROOT / name).exists(), name


def test_every_guide_is_in_the_readme_and_in_the_site():
    readme, site = (ROOT / "README.md").read_text(), (ROOT / ".docs" / "index.md").read_text()
    for guide in PAGES[3:]:
        assert f"notebooks/guides/{guide.name}" in readme
        assert f"notebooks/guides/{guide.stem}\n" in site


def test_the_api_reference_lists_every_public_name():
    tree = ast.parse((ROOT / "kvae" / "__init__.py").read_text())
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
    listed = re.findall(r"^   (\w+)$", (ROOT / ".docs" / "api.md").read_text(), re.M)
    assert sorted(listed) == sorted(ast.literal_eval(lists[0]))
