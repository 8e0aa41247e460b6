"""Claims as data: a rule, the published number, and a verdict computed from stored rows.

The vocabulary is fixed. *replicated*: the rule holds with its interval. *partly*: the sign is right, the interval or
the scope is short. *not replicated*: the sign is reversed, with its interval. *void*: the rows cannot decide, because a
pre-check of the rule failed (under-trained, unmatched L0, nothing to measure) or an interval around a reversed sign
reaches over zero. *not tested*: no evidence in the table, or out of scope, with the
reason. A smoke run never yields a verdict.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from replication.results import PRESETS, Study, table

VERDICTS = ("replicated", "partly", "not replicated", "void", "not tested")
NOTHING = (float("nan"),) * 3  # statistic and interval of a void claim


class NoEvidence(ValueError):
    """The table lacks what the rule needs; the message says what."""


class Evidence(NamedTuple):
    """What a rule finds in a table."""

    verdict: str
    ours: float
    """The rule's statistic."""
    low: float
    high: float
    """95 % interval of the statistic, over seeds unless the rule says otherwise."""
    summary: str
    """One sentence a reader understands without the code."""


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that rows can support or contradict. `test` reads the table of `study`.

    `statistic` says in words what number the rule is about, with its unit.
    """

    id: str
    statement: str
    rule: str
    published: str
    statistic: str = ""
    study: Study | None = None
    test: Callable[[pd.DataFrame], Evidence] | None = None
    untested: str = ""


class Verdict(NamedTuple):
    """One row of the scorecard."""

    claim: str
    paper: str
    statement: str
    rule: str
    published: str
    statistic: str
    ours: float | None
    interval: list[float] | None
    verdict: str
    summary: str
    subject: str
    preset: str
    seeds: int
    stale: bool


def mean_interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean and its 95 % Student-t interval over independent values, one per seed. At least two are needed."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise NoEvidence(f"an interval needs at least 2 seeds, found {len(values)}")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean(), values.mean() - half, values.mean() + half


def judge(mean: float, low: float, high: float) -> str:
    """Verdict on 'this statistic is positive', from its mean and interval.

    A mean of the wrong sign whose interval still reaches the right one decides nothing: void.
    """
    if low > 0:
        return "replicated"
    return "partly" if mean > 0 else "not replicated" if high < 0 else "void"


def both(first: str, second: str) -> str:
    """Verdict on a rule with two parts: the verdict they share, or 'partly' when one holds and the other does not."""
    if first == second:
        return first
    return "partly" if {first, second} & {"replicated", "partly"} else "not replicated"


def interpolate_loglog(x: Iterable[float], y: Iterable[float], at: Iterable[float]) -> np.ndarray:
    """Piecewise-linear interpolation of ln y against ln x; NaN outside the range of x: nothing is extrapolated."""
    order = np.argsort(x)
    lx, ly = np.log(np.asarray(x, float)[order]), np.log(np.asarray(y, float)[order])
    return np.exp(np.interp(np.log(np.asarray(at, float)), lx, ly, left=np.nan, right=np.nan))


def verdict(claim: Claim, rows: pd.DataFrame, preset: str, missing: int = 0) -> Verdict:
    """The claim's rule applied to a table of stored rows, of which `missing` are not there yet.

    Missing evidence is 'not tested', never a pass; so is a table in which the rows of one source do not
    share one subject and one text.
    """
    paper = claim.id.rsplit("-", 1)[0]
    head = (claim.id, paper, claim.statement, claim.rule, claim.published, claim.statistic)
    try:
        if claim.test is None:
            raise NoEvidence(claim.untested)
        if preset == "smoke":
            raise NoEvidence("a smoke run is too small to give a verdict")
        if rows.empty:
            raise NoEvidence(f"no rows are stored for the {preset} preset")
        if missing:
            raise NoEvidence(f"{missing} of {missing + len(rows)} rows of the {preset} preset are missing")
        sources = [one for _, one in rows.groupby("source")] if "source" in rows else [rows]
        for column in ("subject_fingerprint", "corpus_fingerprint"):
            if (values := max(one[column].nunique() if column in one else 0 for one in sources)) > 1:
                raise NoEvidence(f"rows of the {preset} preset mix {values} values of {column}")
        evidence = claim.test(rows)
    except NoEvidence as reason:
        return Verdict(*head, None, None, "not tested", str(reason), "", preset if len(rows) else "", 0, False)
    if evidence.verdict not in VERDICTS or evidence.verdict == "not tested":
        raise ValueError(f"claim {claim.id}: a rule cannot return {evidence.verdict!r}")
    numbers = (evidence.ours, evidence.low, evidence.high)
    ours, *interval = (None, None, None) if np.isnan(numbers).any() else map(float, numbers)
    return Verdict(
        *head,
        ours=ours,
        interval=None if ours is None else interval,
        verdict=evidence.verdict,
        summary=evidence.summary,
        subject=_subject(rows),
        preset=preset,
        seeds=len(rows[[column for column in ("seed", "data_seed") if column in rows]].drop_duplicates()),
        stale=bool(rows["stale"].any()),
    )


def _subject(rows: pd.DataFrame) -> str:
    """The language models behind a table, what it names as its `subject`, or that there is none."""
    if "subject" in rows:
        return ", ".join(sorted(rows.subject.unique()))
    if "source" not in rows:
        return "synthetic data"
    models = sorted(rows["source"].str.extract(r"model='([^']+)'")[0].dropna().unique())
    return ", ".join(models) or "synthetic data"


def scorecard(claims: Sequence[Claim], preset: str, *, committed: bool = False) -> list[Verdict]:
    """A verdict per claim from the best stored evidence: the larger of `gpu` and `preset` that gives one.

    `committed` reads data/results alone (the repository's own scorecard) instead of this machine's cache.
    """
    order = sorted({"gpu", preset}, key=PRESETS.index, reverse=True)
    found = []
    for claim in claims:
        candidates = [verdict(claim, *_rows(claim.study, one, committed)) for one in order]
        found.append(next((v for v in candidates if v.verdict != "not tested"), candidates[-1]))
    return found


def _rows(study: Study | None, preset: str, committed: bool) -> tuple[pd.DataFrame, str, int]:
    """The stored rows, the preset and how many rows are missing."""
    if study is None:
        return pd.DataFrame(), preset, 0
    rows = table(study, preset, committed=committed)
    return rows, preset, len(study.runs(preset)) - len(rows)
