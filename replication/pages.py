"""What the cells of a page call: parameters, tables, verdicts, provenance. Each call is one line in a notebook."""

import html
from math import isnan
from pathlib import Path

import matplotlib
import pandas as pd
from IPython.display import HTML

from replication import papers
from replication.claims import VERDICTS, Verdict, scorecard
from replication.metrics import DEFINITIONS
from replication.paths import ROOT
from replication.results import Study, check_preset, duration, rows, table

README_MARKS = ("<!-- scorecard:", "<!-- end of scorecard -->")
TABLES = Path("tables")  # beside the page: a notebook runs in the folder it is rendered from
COLOURS = {
    "replicated": "#1a7f37",
    "partly": "#9a6700",
    "not replicated": "#cf222e",
    "void": "#59636e",
    "not tested": "#59636e",
}


def open_page(preset: str) -> None:
    """First line of every page: refuse an unknown preset before anything else, draw sharp figures on white."""
    check_preset(preset)
    matplotlib.rcParams["figure.facecolor"] = "white"


def rows_of(study: Study, preset: str, name: str) -> pd.DataFrame:
    """The study's rows, missing ones computed; the table is also written beside the page as `tables/<name>.csv`."""
    found = rows(study, preset)
    TABLES.mkdir(exist_ok=True)
    found.to_csv(TABLES / f"{name}.csv", index=False)
    return found


def table_of(rows: pd.DataFrame, by: list[str], columns: list[str]) -> HTML:
    """Mean over seeds of `columns` for each setting in `by`, the half range over seeds after ±, with definitions."""
    cells = rows.groupby(by, sort=True)
    mean, spread = cells[columns].mean(), (cells[columns].max() - cells[columns].min()) / 2
    text = pd.DataFrame(
        {column: [_plus_minus(m, s) for m, s in zip(mean[column], spread[column], strict=True)] for column in columns},
        index=mean.index,
    ).reset_index()
    text.columns = [DEFINITIONS[c].label if c in DEFINITIONS else c for c in text.columns]
    notes = "".join(
        f"<li><b>{DEFINITIONS[c].label}</b>: {html.escape(DEFINITIONS[c].meaning)} "
        f"({html.escape(DEFINITIONS[c].baseline)})</li>"
        for c in columns
        if c in DEFINITIONS
    )
    return HTML(
        _scroll(text.to_html(index=False, border=0, classes="rows numbers", float_format="{:g}".format))
        + (f"<details><summary>What the columns mean</summary><ul>{notes}</ul></details>" if notes else "")
    )


def shown(table: pd.DataFrame, *, wrap: bool = False) -> HTML:
    """A table whose cells are ready to be read; `wrap` breaks long ones into lines."""
    classes = "rows" if wrap else "rows numbers"
    return HTML(_scroll(table.to_html(index=False, border=0, classes=classes, na_rep="–")))


def _plus_minus(mean: float, spread: float) -> str:
    """Mean and half range with as many digits as they can bear; a dash where there is nothing."""
    if isnan(mean):
        return "–"
    if 0 < max(abs(mean), spread) < 5e-4:
        return f"{mean:.1e}" if spread < 0.05 * abs(mean) else f"{mean:.1e} ± {spread:.1e}"
    digits = 3 if abs(mean) < 1 else 2 if abs(mean) < 10 else 1 if abs(mean) < 1000 else 0
    if not digits:
        return f"{mean:,.0f}" if spread < 0.5 else f"{mean:,.0f} ± {spread:,.0f}"
    return f"{mean:.{digits}f}" if spread < 0.5 * 10**-digits else f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _scroll(table: str) -> str:
    """Wide tables scroll inside the page instead of widening it."""
    return f'<div class="table-scroll" tabindex="0">{table}</div>'


def verdicts(claims, numbers: list[str], preset: str) -> HTML:
    """A block for each of a page's claims: verdict, statement, rule, published value, our number with its interval."""
    chosen = [claim for claim in claims if claim.id.rsplit("-", 1)[1] in numbers]
    return HTML("".join(_block(v) for v in scorecard(chosen, preset)))


def _block(v: Verdict) -> str:
    stale = "; STALE: the code has changed since" if v.stale else ""
    lines = {
        "Rule": v.rule,
        "Published": v.published,
        "Ours": "" if v.ours is None else f"{number(v)}: {v.statistic}, 95 % interval",
        "Finding": v.summary,
        "Evidence": f"{v.subject}, preset {v.preset}, {v.seeds} seeds{stale}" if v.subject else "",
    }
    items = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in lines.items() if text)
    return (
        f'<section class="claim" id="{v.claim.lower()}"><p>{badge(v.verdict)} <b>{v.claim.rsplit("-", 1)[1]}</b> '
        f"{html.escape(v.statement)}</p><dl>{items}</dl></section>"
    )


def badge(verdict: str) -> str:
    """A verdict as a coloured word; the word alone says it, the colour only helps."""
    return f'<span class="verdict" style="background:{COLOURS[verdict]}">{verdict}</span>'


def scorecard_table(preset: str) -> HTML:
    """Every claim of every paper, those with a verdict first, with counts per verdict on top."""
    found = [v for paper in papers.PAPERS.values() for v in scorecard(paper.CLAIMS, preset)]
    found.sort(key=lambda v: v.verdict == "not tested")
    counts = " ".join(f"{badge(name)} {sum(v.verdict == name for v in found)}" for name in VERDICTS)
    head = "".join(
        f"<th>{name}</th>" for name in ("Claim", "Verdict", "Statement", "Ours [95 %]", "Published", "Evidence")
    )
    body = "".join(_line(v) for v in found)
    return HTML(
        f"<p>{counts}</p>" + _scroll(f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')
    )


def _line(v: Verdict) -> str:
    cells = [
        f"<code>{v.claim}</code>",
        badge(v.verdict),
        html.escape(v.statement),
        html.escape(number(v)),
        html.escape(v.published),
        html.escape(evidence(v)),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def write_readme() -> None:
    """Put the scorecard of the committed rows into README.md, between its two markers."""
    path = ROOT / "README.md"
    head, rest = path.read_text().split(README_MARKS[0])
    first_line, tail = rest.split("\n", 1)[0], rest.split(README_MARKS[1])[1]
    path.write_text(f"{head}{README_MARKS[0]}{first_line}\n{readme_scorecard()}\n{README_MARKS[1]}{tail}")


def readme_scorecard() -> str:
    """The scorecard of the committed rows as a Markdown table; a `cpu` verdict is labelled so in its evidence.

    Staleness is left to `replicate status`: the table is a record of the rows that were committed.
    """
    found = [v for paper in papers.PAPERS.values() for v in scorecard(paper.CLAIMS, "cpu", committed=True)]
    tested = [v for v in found if v.verdict != "not tested"]
    lines = ["| claim | verdict | | ours [95 %] | evidence |", "|---|---|---|---|---|"]
    lines += [
        f"| {v.claim} | **{v.verdict}** | {v.statement} | {number(v)} | {evidence(v._replace(stale=False))} |"
        for v in tested
    ]
    waiting = len(found) - len(tested)
    return "\n".join([*lines, "", f"Claims on the scorecard that are not tested: {waiting} of {len(found)}."])


def number(v: Verdict) -> str:
    """Our number and its interval, short; a dash where there is none."""
    return "–" if v.ours is None else f"{v.ours:+.3f} [{v.interval[0]:+.3f}, {v.interval[1]:+.3f}]"


def evidence(v: Verdict) -> str:
    """Subject, preset and seeds behind a verdict, or the reason why there is none."""
    if not v.subject:
        return v.summary
    return f"{v.subject}, {v.preset}, {v.seeds} seeds" + (", stale" if v.stale else "")


def provenance(rows: pd.DataFrame) -> HTML:
    """Where the rows of a page come from: commit, machine, versions, seeds, data, and what they cost."""

    def every(column: str) -> str:
        return ", ".join(sorted(rows[column].dropna().astype(str).unique())) if column in rows else ""

    known = {
        "rows": f"{len(rows)}, of which of this machine: {int(rows.own.sum())}, stale: {int(rows.stale.sum())}",
        "preset; seeds": f"{every('preset')}; {every('seed')}",
        "data seeds": every("data_seed"),
        "computed": f"{rows.date.min()} to {rows.date.max()}",
        "commit": every("commit") + (" with uncommitted changes" if rows.dirty.any() else ""),
        "hardware": every("device"),
        "matrix products in": every("precision"),
        "versions": f"torch {every('torch')}, Python {every('python')}",
        "subject (fingerprint)": every("subject_fingerprint"),
        "corpus (fingerprint)": every("corpus_fingerprint"),
        "computing": duration(rows.seconds.sum()) + " in all",
        "peak memory": f"{rows.peak_gib.max():.1f} GiB" if "peak_gib" in rows else "",
    }
    return facts({name: value for name, value in known.items() if value})


def facts(known: dict) -> HTML:
    """Names and values, one line each."""
    lines = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in known.items())
    return HTML(f'<table class="facts">{lines}</table>')


def stored_rows(preset: str) -> HTML:
    """Rows stored, stale and missing for every study, for the status page."""
    lines = []
    for study in papers.studies():
        found = table(study, preset)
        lines.append(
            {
                "paper": study.paper,
                "study": study.name,
                "preset": preset,
                "rows": len(study.runs(preset)),
                "stored": len(found),
                "of this machine": int(found.own.sum()) if len(found) else 0,
                "stale": int(found.stale.sum()) if len(found) else 0,
                "computing time": duration(found.seconds.sum()) if len(found) else "–",
            }
        )
    return shown(pd.DataFrame(lines))
