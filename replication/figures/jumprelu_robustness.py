"""Figures of the page on robustness: low precision, kinds of text, a fine-tuned model, transcoders."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _legend_below, _panels, _plain_log
from replication.figures.jumprelu_scope import L0, SITES

HARM, FVU = "ΔLM loss (nats per token)", "FVU (1 = predicting the mean)"
KINDS = {  # name in a legend, colour, marker, dashes
    "before": ("base model's SAE on the base model", CONTROL, "s", (0, (4, 2))),
    "tuned": ("base model's SAE on the tuned model", COLOURS["jumprelu"], "o", "-"),
    "rescaled": ("the same, activations rescaled", "#d98c21", "D", (0, (1, 1.5))),
    "reference": ("tuned model's SAE on the tuned model", "#3b7ea1", "^", "-"),
}
ACROSS = {
    "sae": ("SAE of the MLP output", SITES["mlp"][1], "^"),
    "transcoder": ("transcoder, MLP input to output", "#3b7ea1", "o"),
}


def _frontier(axes, ylabel: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=L0, ylabel=ylabel)
    _plain_log(axes.xaxis)
    _plain_log(axes.yaxis)
    axes.yaxis.set_major_formatter("{x:g}")


def precision(table: pd.DataFrame, bound: tuple[float, float]) -> Figure:
    """Left: delta LM loss against L0 in both precisions, a colour per site. Right: |difference| of every SAE against
    delta LM loss, shaded where it is below the bound (share of delta LM loss, nats); columns site, sparsity, seed, l0,
    delta_ce_fp32, delta_ce_bf16, difference."""
    figure, (left, right) = _panels(2, figsize=(8.4, 4.2))
    for site in [one for one in SITES if (table.site == one).any()]:
        here, (label, colour, marker) = table[table.site == site], SITES[site]
        _band(left, here, "l0", "delta_ce_fp32", "sparsity", color=colour, marker=marker, label=f"{label}, float32")
        cells = here.groupby("sparsity")[["l0", "delta_ce_bf16"]].mean()
        crosses = {"color": PUBLISHED, "marker": "x", "s": 42, "zorder": 4}
        left.scatter(cells.l0, cells.delta_ce_bf16, label="bfloat16", **crosses)
        right.scatter(here.delta_ce_fp32, here.difference.abs(), color=colour, marker=marker, s=26)
    _frontier(left, HARM)
    harm = np.geomspace(table.delta_ce_fp32.min() / 1.5, table.delta_ce_fp32.max() * 1.5, 50)
    right.set(xscale="log", yscale="log", xlabel=f"{HARM}, float32", ylabel="|change in bfloat16| (nats per token)")
    floor = max(table.difference.abs().min() / 3, 1e-8)
    limit = np.maximum(bound[0] * harm, bound[1])
    shade = {"color": CONTROL, "alpha": 0.2, "linewidth": 0}
    right.fill_between(harm, floor, limit, label=f"allowed by G5: {bound[0]:.0%} or {bound[1]:g}", **shade)
    right.set(xlim=(harm[0], harm[-1]), ylim=(floor, limit.max() * 2))
    _plain_log(right.xaxis)
    right.xaxis.set_major_formatter("{x:g}")
    entries = {}
    for axes in (left, right):
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2)
    return figure


def thresholds(paths: pd.DataFrame) -> Figure:
    """A threshold that is moved up by one learning rate at every step, a panel per start; columns precision, start,
    step, theta."""
    starts = sorted(paths.start.unique())
    figure, panels = _panels(len(starts), figsize=(8.4, 3.4))
    looks = {"float32": (CONTROL, (0, (4, 2))), "bfloat16": (COLOURS["jumprelu"], "-")}
    for axes, start in zip(panels, starts, strict=True):
        for name, (colour, dashes) in looks.items():
            here = paths[(paths.start == start) & (paths.precision == name)]
            axes.plot(here.step, here.theta, color=colour, linestyle=dashes, linewidth=2, label=name)
        axes.set(xlabel="steps of Adam", title=f"from {start:g}")
        axes.ticklabel_format(axis="y", useOffset=False)
    panels[0].set_ylabel("threshold")
    _legend_below(figure, panels[0])
    return figure


def domains(table: pd.DataFrame, known: dict[str, str]) -> Figure:
    """Against L0 on that text: delta LM loss, and delta LM loss over the model's own loss; a line per kind of text;
    columns domain, sparsity, seed, l0, delta_ce, relative."""
    figure, panels = _panels(2, figsize=(8.4, 4.4))
    colours, marks = sns.color_palette("crest", len(known)), "osD^vP"
    for axes, (column, label) in zip(
        panels, {"delta_ce": HARM, "relative": "ΔLM loss / the model's own loss"}.items(), strict=True
    ):
        for number, name in enumerate(known):
            here = table[(table.domain == name) & (table[column] > 0)]
            if len(here):
                special = {0: COLOURS["jumprelu"], len(known) - 1: PUBLISHED}.get(number, colours[number])
                _band(axes, here, "l0", column, "sparsity", color=special, marker=marks[number % 6], label=name)
        _frontier(axes, label)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[1].yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _of_kinds(lines: pd.DataFrame, kinds: tuple[str, ...]) -> Figure:
    figure, panels = _panels(2, figsize=(8.4, 4.4))
    for axes, (column, label) in zip(panels, {"delta_ce": HARM, "fvu": FVU}.items(), strict=True):
        for kind in kinds:
            name, colour, marker, dashes = KINDS[kind]
            here = lines[(lines.kind == kind) & (lines[column] > 0)]
            look = {"color": colour, "marker": marker, "linestyle": dashes, "label": name}
            _band(axes, here, "l0", column, "sparsity", **look)
        _frontier(axes, label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def transfer(lines: pd.DataFrame) -> Figure:
    """Delta LM loss and FVU against L0 on sessions: SAEs of the base model on both models, SAEs of the tuned model;
    columns kind, sparsity, seed, l0, fvu, delta_ce."""
    return _of_kinds(lines, ("before", "tuned", "reference"))


def rescaling(lines: pd.DataFrame) -> Figure:
    """As `transfer`: SAEs of the base model on the tuned model, with and without rescaled activations."""
    return _of_kinds(lines, ("tuned", "rescaled"))


def across(table: pd.DataFrame) -> Figure:
    """Delta LM loss and FVU of the MLP output against L0, SAEs and transcoders, with the controls; columns kind,
    sparsity, seed, l0, delta_ce, fvu, delta_ce_mean, nmse_pca."""
    figure, panels = _panels(2, figsize=(8.4, 4.4))
    for axes, (column, label) in zip(panels, {"delta_ce": HARM, "fvu": FVU}.items(), strict=True):
        for kind, (name, colour, marker) in ACROSS.items():
            here = table[(table.kind == kind) & (table[column] > 0)]
            _band(axes, here, "l0", column, "sparsity", color=colour, marker=marker, label=name)
        _frontier(axes, label)
    dashes = {"color": CONTROL, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    panels[0].axhline(table.delta_ce_mean.mean(), label="MLP output at its mean", **dashes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
