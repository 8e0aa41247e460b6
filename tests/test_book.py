"""The book's builder: what jupyter-book alone would let through."""

from pathlib import Path

import nbformat
import papermill
import pytest

from replication import book


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "BUILD", tmp_path / "build")
    monkeypatch.setattr(book, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    return tmp_path


HEADER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

"""


def write(folder, page: str, *cells: str) -> None:
    (folder / "notebooks" / f"{page}.py").write_text(HEADER + "\n\n".join(f"# %% {cell}" for cell in cells) + "\n")


def test_a_page_is_executed_with_its_preset_and_without_stderr(folders):
    write(
        folders,
        "good",
        "[markdown]\n# # Good",
        'tags=["parameters"]\npreset = "smoke"',
        "\nimport sys\nprint('bar', file=sys.stderr)\nprint(preset)",
    )
    notebook = nbformat.read(book.execute("good", "cpu"), as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs] == ["cpu\n"]
    assert not list(folders.rglob("*draft*"))


def test_a_page_without_parameters_is_refused_before_it_runs(folders):
    write(folders, "bad", "\nprint(1)")
    with pytest.raises(ValueError, match="bad.*'preset'"):
        book.execute("bad", "cpu")


@pytest.mark.parametrize("at_once", [1, 2])
def test_pages_side_by_side_are_all_executed_and_a_failing_one_is_told(folders, at_once):
    parameters = 'tags=["parameters"]\npreset = "smoke"'
    for page in ("one", "two"):
        write(folders, page, parameters, "\nfrom pathlib import Path\nPath(f'here-{preset}').touch()")
    before = Path.cwd()
    assert set(book.execute_all("smoke", at_once=at_once)) == {"one", "two"}
    assert Path.cwd() == before and (book.source_folder("smoke") / "book" / "here-smoke").exists()
    write(folders, "bad", parameters, "\nraise ValueError('what failed')")
    for page in ("last", "late", "later"):
        write(folders, page, parameters, "\nimport time\ntime.sleep(1)")
    with pytest.raises(papermill.PapermillExecutionError, match="what failed"):
        book.execute_all("smoke", ["bad", "last", "late", "later"], at_once=at_once)
    assert not (book.source_folder("smoke") / "book" / "later.ipynb").exists()


def test_an_unknown_page_lists_the_known_ones(folders):
    write(folders, "good", "\n1")
    with pytest.raises(ValueError, match="good.*'goood'"):
        book.execute("goood", "cpu")


def test_a_stored_error_is_found(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "1/0", outputs=[nbformat.v4.new_output("error", ename="E", evalue="v", traceback=[])]
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    with pytest.raises(RuntimeError, match="page holds an error: E: v"):
        book._refuse_errors(tmp_path / "page.ipynb")


def test_the_smoke_site_was_built_whole():
    """`make test` builds it before this test; without a site there is nothing to check."""
    from replication.paths import BUILD, ROOT

    site = BUILD / "smoke" / "html"
    if not site.exists():
        pytest.skip("the smoke book is not built: run `make test`")
    for page in book._contents(ROOT):
        assert (site / f"{page}.html").stat().st_size > 5000, page
    for path in (BUILD / "smoke" / "source" / "book").glob("*.ipynb"):  # nbval passes a notebook without outputs
        shown = [
            cell
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code" and "remove-input" in cell.metadata.get("tags", [])
        ]
        assert shown and all(cell.outputs for cell in shown), path.name
