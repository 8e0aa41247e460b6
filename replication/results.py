"""Run -> row. Stored rows are read, missing ones are computed and appended at once.

A table is a JSON-lines file, one row per run, so that a diff shows what changed and a value keeps all its digits.
`gpu` and `paper` rows are written to data/results, which is committed. `smoke` and `cpu` rows are written to
data/cache; `replicate snapshot` copies those of `cpu` to data/results. What is read are both: a row of this machine
stands in for the committed one, so that readers find the repository's rows and compute what has none, or what they ask
for.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from replication import train
from replication.fingerprints import code_fingerprint, module_fingerprint, types_of
from replication.paths import CACHE, RESULTS, ROOT

TRITON = "replication.triton_kernels"  # the code of a GPU row that no name in the rest of the package leads to
PRESETS = ("smoke", "cpu", "gpu", "paper")
COMMITTED = ("gpu", "paper")


@dataclass(frozen=True)
class Study:
    """One grid of runs and what is measured on each: what a page draws from and claims read.

    `grid(preset)` lists the runs, `measure(runs)` yields (run, measured columns) as each is done, `cost(run)` says how
    many seconds a run takes on this machine. Rows are kept per paper: two studies that measure the same run in the same
    way share its row.
    """

    paper: str
    name: str
    title: str
    grid: Callable[[str], list]
    measure: Callable[[list], Iterator[tuple[Any, dict]]]
    cost: Callable[[Any], float] = train.estimate_seconds

    def runs(self, preset: str) -> list:
        """The runs of a preset, each once."""
        check_preset(preset)
        return list(_once(self.grid, preset))

    def key(self, run) -> str:
        """12 hexadecimal digits over the run and the name of what is measured on it: the name of its row."""
        return hashlib.sha256(f"{self.measure.__qualname__}({run!r})".encode()).hexdigest()[:12]

    def code(self, run) -> str:
        """Fingerprint of the code that a row of `run` depends on."""
        used = train.dependencies(run) if isinstance(run, train.Run) else types_of(run)
        return code_fingerprint(self.measure, *used)

    def is_stale(self, run, row: dict, committed: bool) -> bool:
        """The code that made the row has changed, or, for rows of this machine, its language model or its text."""
        if row["code"] != self.code(run) or row.get("kernels") not in (None, module_fingerprint(TRITON)):
            return True
        source = getattr(run, "source", None)
        return bool(source) and not committed and any(row.get(k) != v for k, v in source.fingerprints().items())

    def path(self, preset: str, committed: bool = False) -> Path:
        """The table that rows of a preset are written to; `committed`: the one in data/results whatever the preset."""
        folder = RESULTS if committed or preset in COMMITTED else CACHE / "results"
        return folder / f"{self.paper}.{preset}.jsonl"

    def stored(self, preset: str, committed: bool = False) -> dict:
        """Run -> its row, for the runs of a preset that have one, in the preset's order; each row says whether it is
        `own`, of this machine, and whether it is `stale`. `committed`: rows of data/results alone."""
        own = {} if committed or preset in COMMITTED else read(self.path(preset))
        others = read(self.path(preset, committed=True))
        found = {}
        for run in self.runs(preset):
            key = self.key(run)
            if key in own or key in others:
                row = own.get(key) or others[key]
                found[run] = row | {"own": key in own, "stale": self.is_stale(run, row, committed=key not in own)}
        return found


@cache
def _once(grid: Callable[[str], list], preset: str) -> tuple:
    """Each run of a grid once. A run checks itself when it is made, which adds up over every study."""
    return tuple(dict.fromkeys(grid(preset)))


def check_preset(preset: str) -> None:
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")


def read(path: Path) -> dict[str, dict]:
    """Key -> row of a table; the last row of a key counts. A line that is not a row is an error that names it.

    A last line without its newline is the trace of an interrupted write: it is left out (and cut off by the next
    `append`), the rest is kept.
    """
    if not path.exists():
        return {}
    rows = {}
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            rows[row["key"]] = row
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"table {path}, line {number}: not a row ({error!r}); remove the line to recompute it"
            ) from None
    return rows


def append(path: Path, row: dict) -> None:
    """Add one row and make sure that it is on disk. Rows already there are never rewritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if size := file.tell():
            file.seek(0)
            content = file.read()
            if not content.endswith(b"\n"):
                size = content.rfind(b"\n") + 1
                file.truncate(size)
        file.write((json.dumps(row, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def missing(study: Study, preset: str, *, recompute: str = "") -> list:
    """Runs of the preset without a stored row; with `recompute` "stale" also those whose code has changed since, with
    "committed" also those whose row is not of this machine."""
    if recompute == "committed" and preset in COMMITTED:
        raise ValueError(f"rows of the preset {preset!r} are all committed: remove those to be computed again")
    again = {
        "": lambda row: False,
        "stale": lambda row: row["stale"],
        "committed": lambda row: row["stale"] or not row["own"],
    }[recompute]
    rows = study.stored(preset)
    return [run for run in study.runs(preset) if run not in rows or again(rows[run])]


def table(study: Study, preset: str, *, committed: bool = False) -> pd.DataFrame:
    """The stored rows of a preset's runs, one line per run, in the preset's order; nothing is computed.

    Columns: the fields of the run, what was measured, provenance, `own` and `stale` (see `Study.stored`).
    """
    return pd.DataFrame(list(study.stored(preset, committed).values()))


def copy_rows(studies: Iterable[Study], preset: str) -> None:
    """Write the stored rows of these studies' runs, each once, to data/results: a commit-ready table per paper."""
    tables: dict[Path, dict[str, dict]] = {}
    for study in studies:
        stored = read(study.path(preset, committed=True)) | read(study.path(preset))
        kept = {key: stored[key] for key in map(study.key, study.runs(preset)) if key in stored}
        tables.setdefault(study.path(preset, committed=True), {}).update(kept)
    for path, rows in tables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows.values()))
        partial.replace(path)


def compute(study: Study, preset: str, *, recompute: str = "", report: Callable[[str], None] | None = None) -> int:
    """Compute the missing rows of a preset one by one; says what it will cost first. Returns how many were computed.

    Interrupted, it keeps every row that was finished; called again, it goes on with the rest.
    """
    say = report or (lambda line: print(line, file=sys.stderr, flush=True))
    todo = missing(study, preset, recompute=recompute)
    if not todo:
        return 0
    say(
        f"{study.paper} {study.name} ({preset}): {len(todo)} of {len(study.runs(preset))} rows to compute, "
        f"about {duration(estimate(study, todo))} on this {train.default_device()}"
    )
    began = time.perf_counter()
    for done, (run, measured) in enumerate(study.measure(todo), 1):
        append(study.path(preset), row(study, preset, run, measured))
        spent = time.perf_counter() - began
        say(
            f"{study.paper} {study.name}: row {done} of {len(todo)} stored, {duration(spent)} spent, "
            f"about {duration(spent / done * (len(todo) - done))} left"
        )
    return len(todo)


def rows(study: Study, preset: str) -> pd.DataFrame:
    """What a page calls: compute what is missing, then return the table as it was stored."""
    compute(study, preset)
    return table(study, preset)


def estimate(study: Study, runs: Iterable) -> float:
    """Seconds that these runs take on this machine (for training, a few steps of each size are timed)."""
    return sum(study.cost(run) for run in runs)


def row(study: Study, preset: str, run, measured: dict) -> dict:
    """A run's row: its fields, what was measured and where it comes from. A number that is not finite is refused, and
    so is a measured column that has the name of another."""
    for name, value in measured.items():
        if isinstance(value, float) and not np.isfinite(value):
            raise ValueError(f"{study.paper} {study.name}: {name} is {value} for {run!r}; no row is stored")
    described = {"key": study.key(run), "paper": study.paper, "measure": study.measure.__qualname__, "preset": preset}
    described |= {f.name: _plain(getattr(run, f.name)) for f in fields(run)}
    source = run.source.provenance() if isinstance(run, train.Run) else {}
    origin = source | {"code": study.code(run)} | provenance()
    if taken := measured.keys() & {*described, *origin, "own", "stale"}:  # the last two are added when rows are read
        raise ValueError(f"{study.paper} {study.name}: measured {', '.join(sorted(taken))} is a column of every row")
    return described | measured | origin


def _plain(value):
    """A field as JSON: nested dataclasses and tuples by their repr, so that class names survive."""
    return repr(value) if is_dataclass(value) or isinstance(value, tuple) else value


def provenance() -> dict:
    """When, by which commit, on what: the same for every row of a process but for the time."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")} | machine()


@cache
def machine() -> dict:
    """Commit, hardware and versions of this process."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--", "replication")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "kernels": module_fingerprint(TRITON) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """The CPU's name; never the host's."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0] if names else 'CPU'}, {os.cpu_count()} cores"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
