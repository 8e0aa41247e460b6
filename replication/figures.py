"""One function per figure: a tidy table in, a matplotlib figure out. Nothing is computed here that a claim reads.

Bands run from the lowest to the highest seed around the mean over seeds. Every architecture has one colour in every
chapter; controls are grey, published values black.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

STYLE = Path(__file__).with_name("style.mplstyle")
_PALETTE = sns.color_palette("colorblind")
NAMES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "matryoshka": "Matryoshka BatchTopK",
    "relu": "ReLU + L1",
    "gated": "Gated",
    "jumprelu": "JumpReLU",
    "prolu": "ProLU",
    "topafa": "top-AFA",
}
COLOURS = dict(zip(NAMES, (_PALETTE[i] for i in (0, 9, 2, 3, 1, 4, 5, 8)), strict=True))
CONTROL, PUBLISHED = "#8a8a8a", "#111111"


def _panels(count: int, **kwargs) -> tuple[Figure, list]:
    plt.style.use(STYLE)
    figure, axes = plt.subplots(1, count, squeeze=False, **kwargs)
    plt.close(figure)  # out of pyplot's list: a notebook shows the returned figure once, not twice
    return figure, list(axes[0])


def _plain_log(axis, ticks=(1, 2, 5)) -> None:
    """A logarithmic axis labelled 0.1, 0.2, 0.5 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _band(axes, rows: pd.DataFrame, x: str, y: str, setting: str, **style) -> None:
    """Mean of x and y at each setting of the dial, the range over seeds shaded."""
    cells = rows.groupby(setting)
    at, mean = cells[x].mean(), cells[y].mean()
    order = at.sort_values().index
    axes.fill_between(
        at[order], cells[y].min()[order], cells[y].max()[order], color=style["color"], alpha=0.2, linewidth=0
    )
    axes.plot(at[order], mean[order], **style)


def frontier(table: pd.DataFrame, published: dict | None = None) -> Figure:
    """NMSE against L0, one panel per dictionary size; columns d_sae, architecture, sparsity, l0, nmse and controls.

    `published`: {"l0": (low, high), "nmse": (low, high), "label": text}, the range of the paper's figure.
    """
    sizes = sorted(table.d_sae.unique())
    figure, panels = _panels(len(sizes), sharey=True, figsize=(8, 4.3))
    for axes, n in zip(panels, sizes, strict=True):
        here = table[table.d_sae == n]
        if published:
            (x0, x1), (y0, y1) = published["l0"], published["nmse"]
            axes.add_patch(
                Rectangle(
                    (x0, y0),
                    x1 - x0,
                    y1 - y0,
                    facecolor="none",
                    edgecolor=PUBLISHED,
                    linewidth=1,
                    linestyle=(0, (4, 3)),
                    label=published["label"],
                )
            )
        axes.axhline(1, color=CONTROL, linewidth=1, label="mean predictor")
        topk = here[here.architecture == "topk"]
        for column, dashes, label in (
            ("nmse_pca", (1, 1.5), "principal components, as many as L0"),
            ("nmse_untrained", (5, 2), "TopK before training"),
        ):
            control = topk.groupby("sparsity")[["l0", column]].mean()
            control = control[control[column] > 0]
            axes.plot(control.l0, control[column], color=CONTROL, linestyle=(0, dashes), linewidth=1.4, label=label)
        for name, marker in (("relu", "s"), ("topk", "o")):
            _band(
                axes,
                here[here.architecture == name],
                "l0",
                "nmse",
                "sparsity",
                color=COLOURS[name],
                marker=marker,
                label=NAMES[name],
            )
        axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per token)", title=f"n = {n:,} latents")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    panels[0].set_ylabel("NMSE (1 = predicting the mean)")
    _legend_below(figure, panels[0])
    return figure


def error_gap(gap: pd.DataFrame) -> Figure:
    """NMSE of ReLU over NMSE of TopK at equal L0, against dictionary size; columns d_sae, seed, k, l0, gap (a log)."""
    figure, (axes,) = _panels(1, figsize=(5.4, 3.6))
    shades = sns.color_palette("crest", gap.k.nunique())
    for colour, (k, cell) in zip(shades, gap.dropna().groupby("k"), strict=False):
        ratio = cell.assign(ratio=np.exp(cell.gap))
        _band(axes, ratio, "d_sae", "ratio", "d_sae", color=colour, marker="o", label=f"L0 = k = {k:g}")
    axes.axhline(1, color=CONTROL, linewidth=1, label="no gap")
    axes.set(xlabel="n (latents)", ylabel="NMSE of ReLU / NMSE of TopK")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(gap.d_sae.unique()), [f"{n:,}" for n in sorted(gap.d_sae.unique())], minor=False)
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def training_curves(table: pd.DataFrame) -> Figure:
    """Training error (over the variance of the first sample) against tokens, one line per run; columns curve_*."""
    figure, panels = _panels(2, sharey=True, figsize=(8, 4.6))
    for axes, name in zip(panels, ("topk", "relu"), strict=True):
        rows = table[table.architecture == name].drop_duplicates(["d_sae", "sparsity"])
        for n, style in zip(sorted(rows.d_sae.unique()), ("-", "--", ":", "-."), strict=False):
            cells = rows[rows.d_sae == n].sort_values("sparsity")
            for alpha, row in zip(np.linspace(0.35, 1, len(cells)), cells.itertuples(), strict=True):
                symbol = "k" if name == "topk" else "λ"
                axes.plot(
                    row.curve_tokens,
                    row.curve_error,
                    style,
                    color=COLOURS[name],
                    alpha=alpha,
                    linewidth=1.3,
                    label=f"n={n:,}, {symbol}={row.sparsity:g}",
                )
        axes.set(xscale="log", yscale="log", xlabel="training tokens", title=NAMES[name])
        _plain_log(axes.yaxis)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0].set_ylabel("training error / variance")
    return figure


def dead_latents(table: pd.DataFrame) -> Figure:
    """Dead share and NMSE under transpose initialisation and AuxK on and off; one dot per seed, a bar at the mean."""
    conditions = [
        ((True, True), "transpose\nAuxK"),
        ((True, False), "transpose\nno AuxK"),
        ((False, True), "independent\nAuxK"),
        ((False, False), "independent\nno AuxK"),
    ]
    auxk = table.options == "()"
    figure, panels = _panels(2)
    for axes, (column, label) in zip(panels, (("dead", "dead latents"), ("nmse", "NMSE")), strict=True):
        for place, ((tied, aux), _) in enumerate(conditions):
            values = table[(table.tied_init == tied) & (auxk == aux)][column]
            axes.bar(
                place,
                values.mean(),
                width=0.6,
                color=COLOURS["topk"],
                alpha=0.25 if aux else 0.12,
                edgecolor=COLOURS["topk"],
                linestyle="-" if aux else "--",
            )
            axes.plot([place] * len(values), values, "o", color=COLOURS["topk"], markersize=4)
        axes.set_xticks(range(len(conditions)), [name for _, name in conditions], fontsize=8.5)
        axes.set_ylabel(label)
        axes.grid(axis="x", visible=False)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def _legend_below(figure: Figure, axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
