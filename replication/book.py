"""Sources in notebooks/ and book/ -> executed pages -> HTML.

`_build/<preset>/source/` is what Sphinx reads: prose, executed notebooks, the tables behind the figures, the library
for literal includes. The site is `_build/html`; a smoke site, which is made to be checked and not to be read, stays in
`_build/smoke/html`.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import jupytext
import nbformat
import papermill
import yaml
from traitlets.config import Config

from replication.paths import BOOK, BUILD, NOTEBOOKS, ROOT
from replication.results import check_preset

AT_ONCE = 2
"""Pages that are executed side by side when all of their rows are there: most of the time goes into starting Python."""


def pages() -> list[str]:
    """Names of the pages that have a notebook source."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def source_folder(preset: str) -> Path:
    return BUILD / preset / "source"


def execute(page: str, preset: str) -> Path:
    """Run one page with papermill; the executed notebook lies in the site's source. Raises when a cell fails."""
    if page not in pages():
        raise ValueError(f"page must be one of {', '.join(pages())}, got {page!r}")
    check_preset(preset)
    folder = source_folder(preset) / "book"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{page}.ipynb"
    draft = target.with_suffix(".draft.ipynb")
    notebook = jupytext.read(NOTEBOOKS / f"{page}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, draft)
    try:
        unknown = {"preset"} - papermill.inspect_notebook(str(draft)).keys()
        if unknown:  # papermill only warns
            raise ValueError(f"page {page}: no parameter {unknown.pop()!r} in its cell tagged 'parameters'")
        papermill.execute_notebook(
            draft,
            target,
            {"preset": preset},
            resources={"metadata": {"path": str(folder)}},  # papermill's own `cwd` moves this whole process
            progress_bar=False,
            kernel_name="python3",
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # else each kernel warns on stderr
        )
    finally:
        draft.unlink()
    nbformat.write(_for_readers(nbformat.read(target, as_version=4)), target)
    return target


def _for_readers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without progress bars (stderr) and without the cell that papermill injected: it is the parameters cell again."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
    return notebook


def execute_all(preset: str, only: Sequence[str] = (), at_once: int = 1) -> dict[str, float]:
    """Execute every page (or those named), `at_once` of them at a time; page -> seconds.

    More than one is for pages whose rows are there, which only draw. Each has a process of its own. When one fails,
    those that have not begun do not run.
    """

    def timed(page: str) -> float:
        began = time.perf_counter()
        try:
            execute(page, preset)
        finally:
            with contextlib.suppress(RuntimeError):  # there is none when the page failed before it began
                asyncio.get_event_loop().close()  # the one of this thread, which papermill leaves open
        return time.perf_counter() - began

    wanted = only or pages()
    with ThreadPoolExecutor(at_once) as pool:
        running = {page: pool.submit(timed, page) for page in wanted}
        wait(running.values(), return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
    return {page: future.result() for page, future in running.items()}


def site_folder(preset: str) -> Path:
    return (BUILD / preset if preset == "smoke" else BUILD) / "html"


def build(preset: str) -> Path:
    """Render the executed pages of a preset: a fresh Sphinx build in which every warning is an error.

    Returns the folder of the site. Raises RuntimeError when Sphinx warns, an executed page holds an error or a page of
    the contents has no HTML: jupyter-book alone would exit with 0.
    """
    check_preset(preset)
    source = source_folder(preset)
    for name in ("_config.yml", "_toc.yml", "CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for folder in (BOOK, ROOT / "replication"):
        shutil.copytree(folder, source / folder.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    wanted = _contents(source)
    for page in wanted:
        _refuse_errors(source / f"{page}.ipynb")
    output = BUILD / preset / "site"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(source),
        "--path-output",
        str(output),
        "-n",
        "-W",
        "--keep-going",
        "-q",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"the book does not build:\n{run.stdout[-3000:]}\n{run.stderr[-6000:]}")
    site = output / "_build" / "html"
    absent = [page for page in wanted if not (site / f"{page}.html").exists()]
    if absent:
        raise RuntimeError(f"pages without HTML: {', '.join(absent)}")
    shutil.rmtree(site_folder(preset), ignore_errors=True)
    return Path(shutil.move(site, site_folder(preset)))


def _contents(source: Path) -> list[str]:
    """The pages that _toc.yml names."""
    found: list[str] = []

    def walk(node) -> None:
        if isinstance(node, dict):
            found.extend(str(node[key]) for key in ("root", "file") if key in node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(yaml.safe_load((source / "_toc.yml").read_text()))
    return found


def _refuse_errors(path: Path) -> None:
    if not path.exists():
        return
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise RuntimeError(f"page {path.stem} holds an error: {output.ename}: {output.evalue}")
