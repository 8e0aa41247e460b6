"""One file per paper: citation, presets, measurements, claims. A new paper is a new file and one line here."""

import sys
from types import ModuleType

from replication.activations import LanguageModelActivations, harvest
from replication.papers import amortisation2024, gao2024, jumprelu2024, topafa2025
from replication.results import Study, compute, duration, missing
from replication.train import Run, default_device

PAPERS: dict[str, ModuleType] = {module.KEY: module for module in (gao2024, amortisation2024, topafa2025, jumprelu2024)}


def paper(key: str) -> ModuleType:
    """The module of a paper; an unknown key lists the known ones."""
    if key not in PAPERS:
        raise ValueError(f"paper must be one of {', '.join(PAPERS)}, got {key!r}")
    return PAPERS[key]


def studies(key: str | None = None) -> list[Study]:
    """The studies of one paper, or of all."""
    modules = PAPERS.values() if key is None else [paper(key)]
    return [study for module in modules for study in module.STUDIES]


def run(key: str | None, preset: str, *, recompute: str = "") -> int:
    """Compute the missing rows of a preset, for one paper or all; returns how many were computed. `recompute` is as in
    `results.missing`.

    The activations that any study needs are harvested first, so that each language model runs once over its corpus.
    """
    todo = {study: missing(study, preset, recompute=recompute) for study in studies(key)}
    cost = {one: study.cost for study, runs in todo.items() for one in runs}  # a run that studies share is done once
    if not cost:
        return 0
    print(
        f"{len(cost)} runs to do, about {duration(sum(seconds(one) for one, seconds in cost.items()))} on this "
        f"{default_device()}, after the activations that they read are harvested",
        file=sys.stderr,
        flush=True,
    )
    sources = [one.source for one in cost if isinstance(one, Run)]
    harvest([source for source in sources if isinstance(source, LanguageModelActivations)])
    return sum(compute(study, preset, recompute=recompute) for study in todo)
