"""JumpReLU and its rivals at equal L0. Tables have the columns `method`, `site` and `layer`."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from replication.figures import CONTROL, STYLE, _band, _panels, _plain_log
from replication.figures.frontier import LOOKS

LABELS = {
    "delta_ce": "rise in cross-entropy\n(nats per token)",
    "fvu": "FVU (1 = predicting the mean)",
    "gamma": "γ (1: the right length)",
}
CONTROLS = {  # of each measure: column of the table, dashes, label
    "delta_ce": (
        ("delta_ce_mean", (1, 1.5), "activation set to its mean"),
        ("delta_ce_zero", (5, 2), "activation set to 0"),
    ),
    "fvu": (
        ("nmse_pca", (1, 1.5), "principal components,\nas many as L0"),
        ("nmse_untrained", (5, 2), "TopK before training"),
    ),
}


def fidelity(table: pd.DataFrame, column: str) -> Figure:
    """Harm ("delta_ce"), error ("fvu") or the factor by which reconstructions are best multiplied ("gamma") against L0,
    one panel per site (rows) and layer (columns).

    Other columns: sparsity, l0, and the controls of the measure; those of the error are taken from TopK, or, where the
    table has none, left out. Those of gamma are the bounds of J5.
    """
    sites, layers = sorted(table.site.unique()), sorted(table.layer.unique())
    plt.style.use(STYLE)
    size = (7.6, 4.3) if len(sites) == len(layers) == 1 else (3 * len(layers) + 2, 2.7 * len(sites))
    figure, grid = plt.subplots(len(sites), len(layers), squeeze=False, sharey="row", figsize=size)
    plt.close(figure)
    for (i, j), axes in np.ndenumerate(grid):
        here = table[(table.site == sites[i]) & (table.layer == layers[j])]
        _controls(axes, here, column)
        for name in (name for name in LOOKS if (here.method == name).any()):
            look = LOOKS[name].style() | ({"markersize": 8} if name == "jumprelu" else {})
            _band(axes, here[here.method == name], "l0", column, "sparsity", **look)
        axes.set(xscale="log", xlabel="L0 (active latents per token)", title=f"{sites[i]}, layer {layers[j]}")
        _plain_log(axes.xaxis)
        if column != "gamma":
            axes.set_yscale("log")
            _plain_log(axes.yaxis)
    for axes in grid[:, 0]:
        axes.set_ylabel(LABELS[column])
    figure.legend(*_entries(grid.flat[0]), loc="outside right center")
    return figure


def _controls(axes, here: pd.DataFrame, column: str) -> None:
    if column == "gamma":
        axes.axhspan(0.98, 1.02, color=CONTROL, alpha=0.18, linewidth=0, label="within 0.02 of 1")
        axes.axhline(1.05, color=CONTROL, linewidth=1, linestyle="--", label="1.05")
        return
    for control, dashes, label in CONTROLS[column]:
        look = {"color": CONTROL, "linestyle": (0, dashes), "linewidth": 1.4, "label": label}
        if column == "delta_ce":
            axes.axhline(here[control].mean(), **look)
            continue
        line = here[here.method == "topk"].groupby("sparsity")[["l0", control]].mean()
        axes.plot(line.l0, line[control], **look)


def _entries(axes) -> tuple[list, list]:
    """Handles and labels of a legend, methods first, the top curve at the top."""
    handles, labels = axes.get_legend_handles_labels()
    colours = [getattr(handle, "get_color", lambda: CONTROL)() for handle in handles]  # a span has no such thing
    order = sorted(range(len(labels)), key=lambda i: (colours[i] == CONTROL, -i))
    return [handles[i] for i in order], [labels[i] for i in order]


def gaps(points: pd.DataFrame) -> Figure:
    """Harm with JumpReLU over harm with a rival at the L0 of each TopK run; columns method, tokens, k, seed, l0, g (a
    log). A panel per rival, a line per budget: the largest solid, the smaller ones dashed, hollow and fainter."""
    names = [name for name in LOOKS if (points.method == name).any()][::-1]
    budgets = sorted(points.tokens.unique())
    figure, panels = _panels(len(names), sharey=True, figsize=(1.6 + 2.3 * len(names), 3.8))
    for axes, name in zip(panels, names, strict=True):
        axes.axhspan(1, 1.05, color=CONTROL, alpha=0.18, linewidth=0, label="up to 5 % worse")
        axes.axhline(1, color=CONTROL, linewidth=1, label="equal harm")
        for tokens, cell in points[points.method == name].dropna(subset="g").groupby("tokens"):
            look = {"linestyle": "-"} if tokens == budgets[-1] else {"linestyle": "--", "markerfacecolor": "white"}
            look |= {"color": LOOKS[name].color, "marker": LOOKS[name].marker}
            look |= {"alpha": 0.4 + 0.6 * (budgets.index(tokens) + 1) / len(budgets)}
            label = f"{tokens / 1e6:.3g} M tokens"
            _band(axes, cell.assign(ratio=np.exp(cell.g)), "l0", "ratio", "k", label=label, **look)
        axes.set(xscale="log", yscale="log", xlabel="L0", title=f"against {LOOKS[name].label}")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis, (1, 1.1, 1.2, 1.5, 2, 3, 5, 7, 8, 9))
    panels[0].set_ylabel("harm of JumpReLU / harm of the rival")
    widest = max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    figure.legend(*widest.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def gap_by_tokens(table: pd.DataFrame) -> Figure:
    """Harm with JumpReLU over harm with a rival against training tokens; columns method, seed, tokens, ratio."""
    figure, (axes,) = _panels(1, figsize=(6.4, 3.9))
    axes.axhspan(1, 1.05, color=CONTROL, alpha=0.18, linewidth=0, label="up to 5 % worse")
    axes.axhline(1, color=CONTROL, linewidth=1, label="equal harm")
    for name in (name for name in LOOKS if table[table.method == name].tokens.nunique() > 1):
        look = LOOKS[name].style() | {"label": f"against {LOOKS[name].label}"}
        _band(axes, table[table.method == name], "tokens", "ratio", "tokens", **look)
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="harm of JumpReLU / harm of the rival")
    budgets = sorted(table.tokens.unique())
    axes.set_xticks(budgets, [f"{tokens / 1e6:.3g} M" for tokens in budgets])
    axes.minorticks_off()
    _plain_log(axes.yaxis, (1, 1.1, 1.2, 1.5, 2, 3, 5, 7, 8, 9))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
