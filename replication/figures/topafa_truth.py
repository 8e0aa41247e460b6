"""Figures of the page on known truth: MCC, eps_LBO, L0 and antipodal rows of TopK and top-AFA.

Tables have the columns `method` and `variant`; rows without an architecture are references that nobody trained.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, _band, _panels, _plain_log

TOPK, AFA = COLOURS["topk"], COLOURS["topafa"]
EDGE = sns.dark_palette(AFA, 5)[2]  # a darker shade of the method's colour, which is pale on white
LOOKS = {  # of top-AFA: variant -> label, marker, whether it is filled
    "paper": ("paper's settings", "s", True),
    "longer": ("paper's settings, 3 x the steps", "P", True),
    "no norm loss": ("without the norm loss", "s", False),
    "first to exceed": ("first to exceed", "^", False),
    "encoder x4": ("encoder starts 4 x as large", "D", False),
    "raw input": ("raw input", "v", False),
}
LEAST_GAP = 1e-3  # below, the axis of eps_LBO is linear, so that 0 has a place


def _truths(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Title and rows of every true k at the largest width."""
    here = table[table.d_in == table.d_in.max()]
    return [(f"k = {k} of {4 * d} atoms, d = {d}", rows) for (d, k), rows in here.groupby(["d_in", "k_true"])]


def _scatter(axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """Every run of top-AFA, a marker per variant."""
    for variant, (_, marker, filled) in LOOKS.items():
        cell = rows[(rows.method == "topafa") & (rows.variant == variant)]
        face = AFA if filled else "none"
        axes.scatter(
            cell[x], cell[y], marker=marker, s=34, facecolors=face, edgecolors=[EDGE], zorder=3, linewidths=1.2
        )


def _handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend entries of the variants that the table has."""
    return [
        Line2D(
            [],
            [],
            color=EDGE,
            marker=marker,
            markerfacecolor=AFA if filled else "none",
            linestyle="none",
            label=f"{NAMES['topafa']}, {label}",
        )
        for variant, (label, marker, filled) in LOOKS.items()
        if ((table.method == "topafa") & (table.variant == variant)).any()
    ]


def mcc_against_l0(table: pd.DataFrame) -> Figure:
    """MCC against L0 over the true one, a panel per true k; columns l0_over_k, mcc, mcc_chance, true_l0, d_in."""
    truths = _truths(table)
    figure, panels = _panels(len(truths), figsize=(8, 4.4), sharey=True)
    for axes, (title, rows) in zip(panels, truths, strict=True):
        topk = rows[rows.method == "topk"]
        look = {"color": TOPK, "marker": "o", "label": NAMES["topk"], "zorder": 3}
        _band(axes, topk, "l0_over_k", "mcc", "sparsity", **look)
        _scatter(axes, rows, "l0_over_k", "mcc")
        axes.axhline(1, color=PUBLISHED, linewidth=1.2, linestyle="--", label="true dictionary")
        chance = rows[rows.architecture.notna()].mcc_chance.mean()
        axes.axhline(chance, color=CONTROL, linewidth=1.4, linestyle="-.", label="chance: random rows")
        axes.axvline(1, color=PUBLISHED, linewidth=0.8, linestyle=":", label="L0 of the truth")
        axes.axvline((rows.d_in / rows.true_l0).mean(), color=CONTROL, linewidth=1.2, linestyle=":", label="L0 = d")
        axes.set(xscale="log", xlabel="L0 / true L0", title=title, ylim=(0, 1.05))
        _plain_log(axes.xaxis)
    panels[0].set_ylabel("MCC with the true atoms")
    figure.legend(
        handles=[*panels[0].get_legend_handles_labels()[0], *_handles(table)], loc="outside lower center", ncols=3
    )
    return figure


def gap_against_mcc(table: pd.DataFrame) -> Figure:
    """(h - 1) eps_LBO against MCC, a panel per true k; columns mcc, gap and kind of the references."""
    truths = _truths(table)
    figure, panels = _panels(len(truths), figsize=(8, 4.6), sharey=True)
    references = {"truth": ("true dictionary and codes", "*", 130), "antipodal basis": ("antipodal basis", "X", 70)}
    references |= {"untrained TopK": ("untrained TopK", "1", 60), "untrained top-AFA": ("untrained top-AFA", "+", 60)}
    for axes, (title, rows) in zip(panels, truths, strict=True):
        topk = rows[rows.method == "topk"].sort_values("sparsity")
        axes.scatter(topk.mcc, topk.gap, color=TOPK, marker="o", s=30, label=NAMES["topk"], zorder=3)
        means = topk.groupby("sparsity")[["mcc", "gap"]].mean()
        for place, (k, (mcc, gap)) in enumerate(means.iterrows()):  # on both sides in turn: neighbours are close
            side = {"xytext": (7, 0), "ha": "left"} if place % 2 else {"xytext": (-7, 0), "ha": "right"}
            look = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": TOPK}
            axes.annotate(f"k = {k:g}", (mcc, gap), **side, **look)
        _scatter(axes, rows, "mcc", "gap")
        for kind, (label, marker, size) in references.items():
            cell = rows[rows.method == kind]
            colour = CONTROL if kind.startswith("untrained") else PUBLISHED
            axes.scatter(cell.mcc, cell.gap, color=colour, marker=marker, s=size, label=label, zorder=4)
        axes.set_yscale("symlog", linthresh=LEAST_GAP, linscale=0.5)
        axes.set(xlabel="MCC with the true atoms", title=title, xlim=(0.2, 1.09))
        axes.set_ylim(bottom=-LEAST_GAP / 4)
    panels[0].set_ylabel("(h - 1) eps_LBO, lower is better")
    handles = [*panels[0].get_legend_handles_labels()[0], *_handles(table)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def l0_against_true(table: pd.DataFrame) -> Figure:
    """Mean L0 of the samples of each true L0, a panel per true k; columns true_counts and l0_at_count hold lists."""
    truths = _truths(table)
    figure, panels = _panels(len(truths), figsize=(8, 4.6), sharey=True)
    for axes, (title, rows) in zip(panels, truths, strict=True):
        counts = np.array(rows.true_counts.iloc[0])
        axes.plot(counts, counts, color=PUBLISHED, linestyle="--", label="truth: L0 = true L0")
        axes.axhline(rows.d_in.iloc[0], color=CONTROL, linestyle=":", label="L0 = d")
        topk = rows[(rows.method == "topk") & (rows.sparsity == rows.k_true)]
        axes.plot(counts, np.mean(topk.l0_at_count.tolist(), 0), color=TOPK, label="TopK at the true k")
        for variant, (label, marker, filled) in LOOKS.items():
            cell = rows[(rows.method == "topafa") & (rows.variant == variant)]
            if len(cell):
                values = np.array(cell.l0_at_count.tolist())
                look = {"color": EDGE, "marker": marker, "markerfacecolor": AFA if filled else "white", "markersize": 5}
                axes.fill_between(counts, values.min(0), values.max(0), color=AFA, alpha=0.25, linewidth=0)
                axes.plot(counts, values.mean(0), linewidth=1.2, label=f"{NAMES['topafa']}, {label}", **look)
        axes.set(xlabel="true L0 of the sample", yscale="log", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain_log(axes.yaxis)
        axes.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("mean L0 of the code")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def lowest_cosines(table: pd.DataFrame) -> Figure:
    """Quantiles over alive rows of the lowest cosine with another row, a panel per true k; column lowest_cosines."""
    truths = _truths(table)
    figure, panels = _panels(len(truths), figsize=(8, 4.6), sharey=True)
    for axes, (title, rows) in zip(panels, truths, strict=True):
        largest = rows[rows.method == "topk"].sparsity.max()
        at_truth = (rows.method == "topk") & (rows.sparsity == rows.k_true)
        chosen = {
            "true atoms": (rows.method == "truth", PUBLISHED, "--"),
            "untrained rows": (rows.method == "untrained top-AFA", CONTROL, "-."),
            "TopK at the true k": (at_truth, TOPK, "-"),
            "TopK at the largest k": ((rows.method == "topk") & (rows.sparsity == largest) & ~at_truth, TOPK, ":"),
            "top-AFA": ((rows.method == "topafa") & (rows.variant == "paper"), EDGE, "-"),
            "top-AFA, 3 x the steps": ((rows.method == "topafa") & (rows.variant == "longer"), EDGE, "--"),
            "top-AFA without the norm loss": ((rows.method == "topafa") & (rows.variant == "no norm loss"), EDGE, ":"),
        }
        for label, (which, colour, line) in chosen.items():
            if which.any():
                values = np.array(rows[which].lowest_cosines.tolist())
                share = np.linspace(0, 1, values.shape[1])
                axes.fill_between(share, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
                axes.plot(share, values.mean(0), color=colour, linestyle=line, label=label)
        axes.axvline(0.1, color=CONTROL, linewidth=0.8)
        axes.set(xlabel="share of alive rows", title=title, ylim=(-1.04, 0))
    panels[0].set_ylabel("lowest cosine with another row")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
