"""`replicate`: run, status, scorecard, snapshot, show, suite, models, book."""

import json
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tokenizers import Tokenizer

from replication import language_models, papers
from replication.claims import scorecard as judge_all
from replication.corpora import PythonSource
from replication.papers import jumprelu2024
from replication.paths import CACHE, MODELS
from replication.results import COMMITTED, check_preset, copy_rows, duration, estimate, missing, table
from replication.train import default_device

app = typer.Typer(
    help="Run, inspect and render the replications.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Preset = Annotated[str, typer.Option(help="smoke, cpu, gpu or paper")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object a row")]


@contextmanager
def _one_line_errors():
    """Bad input ends with one line on stderr and exit code 2; what was stored before stays."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has seen enough
        raise typer.Exit(0) from None
    except (ValueError, ArithmeticError, RuntimeError, OSError) as error:
        print(f"replicate: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@app.command()
def run(
    paper: Annotated[str | None, typer.Argument(help="a paper's key; all papers when left out")] = None,
    preset: Preset = "cpu",
    stale: Annotated[bool, typer.Option(help="also recompute rows whose code has changed")] = False,
    own: Annotated[bool, typer.Option(help="also recompute rows that came with the repository, or are stale")] = False,
) -> None:
    """Compute the missing rows of a preset. Interrupted, it goes on where it stopped."""
    with _one_line_errors():
        check_preset(preset)
        computed = papers.run(paper, preset, recompute="committed" if own else "stale" if stale else "")
        print(f"{computed} rows computed")


@app.command()
def status(preset: Preset = "cpu", as_json: Json = False) -> None:
    """What is stored, stale and missing, and how long the missing part takes on this machine."""
    with _one_line_errors():
        check_preset(preset)
        for study in papers.studies():
            found, todo = table(study, preset), missing(study, preset)
            own = int(found.own.sum()) if len(found) else 0
            stale = int(found.stale.sum()) if len(found) else 0
            try:
                seconds = round(estimate(study, todo), 1)
            except (OSError, ValueError, RuntimeError):  # a subject from a hub that cannot be reached
                seconds = None
            row = {
                "paper": study.paper,
                "study": study.name,
                "preset": preset,
                "rows": len(study.runs(preset)),
                "stored": len(found),
                "own": own,
                "stale": stale,
                "missing": len(todo),
                "seconds_to_compute": seconds,
                "device": default_device(),
            }
            cost = "training time unknown here" if seconds is None else f"about {duration(seconds)} of training"
            text = (
                f"{study.paper:12} {study.name:16} {preset}: {len(found)} of {row['rows']} rows stored, "
                f"{own} of this machine, {stale} stale, {len(todo)} missing"
                + (f", {cost} on this {default_device()}" if todo else "")
            )
            print(json.dumps(row) if as_json else text)


@app.command()
def scorecard(
    preset: Preset = "cpu",
    as_json: Json = False,
    committed: Annotated[bool, typer.Option(help="from the rows in data/results alone")] = False,
) -> None:
    """A verdict for every claim, from the stored rows."""
    with _one_line_errors():
        check_preset(preset)
        for module in papers.PAPERS.values():
            for v in judge_all(module.CLAIMS, preset, committed=committed):
                print(
                    json.dumps(v._asdict())
                    if as_json
                    else f"{v.claim:16} {v.verdict:15} {v.statement}\n{'':16} {v.summary}"
                )


@app.command()
def snapshot(preset: Preset = "cpu") -> None:
    """Copy this machine's rows of a preset to data/results and rewrite the README's scorecard from there."""
    from replication import pages

    with _one_line_errors():
        check_preset(preset)
        if preset not in COMMITTED:
            copy_rows(papers.studies(), preset)
        pages.write_readme()


@app.command()
def show(
    figure: Annotated[str, typer.Argument(help="a figure's name, e.g. frontier")],
    preset: Preset = "cpu",
    out: Annotated[Path | None, typer.Option(help="file to write, .png, .svg or .pdf")] = None,
) -> None:
    """Draw one figure from the stored rows."""
    from replication import figures

    with _one_line_errors():
        check_preset(preset)
        available = {name: entry for module in papers.PAPERS.values() for name, entry in module.FIGURES.items()}
        if figure not in available:
            raise ValueError(f"figure must be one of {', '.join(available)}, got {figure!r}")
        study, function, arguments = available[figure]
        rows = table(study, preset)
        if rows.empty:
            raise ValueError(
                f"figure {figure}: no rows are stored for preset {preset}; `replicate run {study.paper}` makes them"
            )
        target = out or Path(f"{figure}.{preset}.png")
        figures.named(function)(*arguments(rows)).savefig(target)
        print(target)


@app.command()
def suite(
    preset: Preset = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="folder of the suite; data/cache/suites/PRESET when left out")
    ] = None,
) -> None:
    """Train SAEs at every layer and site, save them in the layout of Gemma Scope, read every file back and check it."""
    from replication import suite as files

    with _one_line_errors():
        check_preset(preset)
        folder = out or CACHE / "suites" / preset
        found = files.write(jumprelu2024.scope.suite(preset), folder, partial(print, file=sys.stderr, flush=True))
        print(f"{len(found)} SAEs in {folder}")


@app.command()
def models(
    train: Annotated[str | None, typer.Option(help="retrain this model, e.g. pygpt-2m")] = None,
    tokens: Annotated[int | None, typer.Option(help="training tokens; the recipe's when left out")] = None,
) -> None:
    """List the embedded language models, or retrain one and compare it with the stored one."""
    with _one_line_errors():
        if train is None:
            for row in language_models.embedded():
                print("  ".join(f"{name}={value}" for name, value in row.items()))
            return
        if train not in language_models.RECIPES:
            raise ValueError(f"train must be one of {', '.join(language_models.RECIPES)}, got {train!r}")
        text = PythonSource(("stdlib", "site-packages")).build(Tokenizer.from_file(str(MODELS / "tokenizer.json")))
        log = language_models.train(train, text, tokens)
        stored = MODELS / train / "train_log.json"
        print(language_models.compare(log, json.loads(stored.read_text())) if stored.exists() else log["val_loss"])


@app.command()
def book(
    preset: Preset = "cpu",
    page: Annotated[list[str] | None, typer.Option(help="execute these pages only")] = None,
    execute: Annotated[bool, typer.Option(help="compute missing rows and execute pages")] = True,
    site: Annotated[bool, typer.Option(help="render HTML")] = True,
) -> None:
    """Compute what is missing, execute the pages, render the site; print where it is and what each page took."""
    from replication import book as builder

    with _one_line_errors():
        check_preset(preset)
        if execute:
            if not page:
                papers.run(None, preset)
            for name, seconds in builder.execute_all(preset, page or (), 1 if page else builder.AT_ONCE).items():
                print(f"{name:32} {duration(seconds)}")
        if site:
            print(f"open {builder.build(preset)}/book/intro.html")


if __name__ == "__main__":
    app()
