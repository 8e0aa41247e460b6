"""What every page promises: prose with thin cells, figures described in words, a place in the contents."""

import re

import jupytext
import pytest
import yaml

from replication.paths import BOOK, NOTEBOOKS, ROOT

PAGES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
MAX_LINES = 12
FORBIDDEN = {
    "an install": r"\bpip\b|\bconda\b|\bapt(-get)? install\b",
    "torch": r"^\s*(import|from) torch\b",
    "an absolute path": r"""["'](/|~|[A-Za-z]:[\\/])""",
}


def cells(page: str, kind: str | None = None) -> list:
    found = jupytext.read(NOTEBOOKS / f"{page}.py").cells
    return [cell for cell in found if kind in (None, cell.cell_type)]


def figure_cells(page: str) -> list:
    return [cell for cell in cells(page, "code") if "figures." in cell.source]


def contents() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]


def test_there_are_pages():
    assert PAGES


@pytest.mark.parametrize("page", PAGES)
class TestPage:
    def test_opens_with_its_title(self, page):
        first = cells(page)[0]
        assert first.cell_type == "markdown"
        assert re.match(r"# \S", first.source)

    def test_has_one_cell_of_parameters_with_the_smoke_preset(self, page):
        [parameters] = [cell for cell in cells(page) if "parameters" in cell.metadata.get("tags", [])]
        assert parameters.source == 'preset = "smoke"'
        assert "remove-cell" in parameters.metadata["tags"]

    def test_checks_its_preset_before_anything_else_is_called(self, page):
        statements = "\n".join(cell.source for cell in cells(page, "code")).splitlines()
        calls = [line for line in statements if "(" in line and not line.startswith(("import", "from"))]
        assert calls[0] == "pages.open_page(preset)"

    def test_has_thin_cells(self, page):
        assert max(len(cell.source.splitlines()) for cell in cells(page, "code")) <= MAX_LINES

    def test_stores_no_outputs(self, page):
        assert not any(cell.outputs or cell.execution_count for cell in cells(page, "code"))

    @pytest.mark.parametrize("what", FORBIDDEN)
    def test_is_free_of(self, page, what):
        for cell in cells(page, "code"):
            assert not re.search(FORBIDDEN[what], cell.source, re.MULTILINE), f"{what} in:\n{cell.source}"

    def test_names_no_absolute_path_in_prose(self, page):
        for cell in cells(page, "markdown"):
            assert not re.search(r"""(^|[\s`("'<])(~?/\w+/|[A-Z]:\\)""", cell.source), cell.source

    def test_describes_every_figure_in_words(self, page):
        for cell in figure_cells(page):
            about = cell.metadata.get("mystnb", {})
            assert len(about.get("image", {}).get("alt", "")) >= 40, cell.source
            assert len(about.get("figure", {}).get("caption", "")) >= 60, cell.source

    def test_links_a_table_that_it_writes(self, page):
        code = "\n".join(cell.source for cell in cells(page, "code"))
        prose = "\n".join(cell.source for cell in cells(page, "markdown"))
        for table in re.findall(r"<tables/([\w-]+)\.csv>", prose):
            assert f'"{table}")' in code

    def test_stands_in_the_contents(self, page):
        assert f"book/{page}" in contents()


def test_figure_names_are_unique():
    names = [cell.metadata["mystnb"]["figure"]["name"] for page in PAGES for cell in figure_cells(page)]
    assert len(names) == len(set(names))
    assert all(name.startswith("fig-") for name in names)


def test_the_contents_name_each_page_once():
    assert len(contents()) == len(set(contents()))


@pytest.mark.parametrize("entry", contents())
def test_every_entry_of_the_contents_has_one_source(entry):
    folder, name = entry.split("/")
    assert folder == "book"
    assert [(BOOK / f"{name}.md").exists(), (NOTEBOOKS / f"{name}.py").exists()].count(True) == 1


def test_every_prose_page_stands_in_the_contents():
    assert {f"book/{path.stem}" for path in BOOK.glob("*.md")} <= set(contents())
