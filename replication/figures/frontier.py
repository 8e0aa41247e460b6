"""Fidelity against sparsity. Tables have the column `method`; the two gradients of ProLU share a colour."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, STYLE, _band, _legend_below, _panels, _plain_log


class Look(NamedTuple):
    label: str
    color: tuple
    marker: str
    linestyle: str = "-"

    def style(self) -> dict:
        return self._asdict()


LOOKS = {  # drawn in this order: TopK and JumpReLU on top
    "prolu-relu": Look("ProLU, ReLU gradient", COLOURS["prolu"], "v", "--"),
    "prolu-ste": Look("ProLU, STE", COLOURS["prolu"], "^"),
    "gated-original": Look("Gated, original", COLOURS["gated"], "d", "--"),
    "gated": Look(NAMES["gated"], COLOURS["gated"], "D"),
    "relu": Look(NAMES["relu"], COLOURS["relu"], "s"),
    "relu-l0": Look("ReLU + L0", COLOURS["relu"], "P", "--"),
    "jumprelu-l1": Look("JumpReLU + L1", COLOURS["jumprelu"], "X", "--"),
    "topk": Look(NAMES["topk"], COLOURS["topk"], "o"),
    "jumprelu": Look(NAMES["jumprelu"], COLOURS["jumprelu"], "*"),
}


def _methods(table: pd.DataFrame) -> list[str]:
    """The methods of a table, in the order of LOOKS."""
    return [name for name in LOOKS if (table.method == name).any()]


def _largest(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.d_sae == table.d_sae.max()]


def error_against_l0(table: pd.DataFrame, published: dict | None = None) -> Figure:
    """NMSE against L0, one panel per dictionary size; columns d_sae, method, sparsity, l0, nmse and controls.

    `published`: {"l0": (low, high), "nmse": (low, high), "label": text}, the range of the paper's figure.
    """
    sizes = sorted(table.d_sae.unique())
    figure, panels = _panels(len(sizes), sharey=True, figsize=(8, 4.6))
    for axes, n in zip(panels, sizes, strict=True):
        here = table[table.d_sae == n]
        if published:
            (x0, x1), (y0, y1) = published["l0"], published["nmse"]
            edge = {"edgecolor": PUBLISHED, "linewidth": 1, "linestyle": (0, (4, 3)), "label": published["label"]}
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="none", **edge))
        axes.axhline(1, color=CONTROL, linewidth=1, label="mean predictor")
        topk = here[here.method == "topk"]
        for column, dashes, label in (
            ("nmse_pca", (1, 1.5), "principal components, as many as L0"),
            ("nmse_untrained", (5, 2), "TopK before training"),
        ):
            control = topk.groupby("sparsity")[["l0", column]].mean()
            control = control[control[column] > 0]
            axes.plot(control.l0, control[column], color=CONTROL, linestyle=(0, dashes), linewidth=1.4, label=label)
        for name in _methods(here):
            _band(axes, here[here.method == name], "l0", "nmse", "sparsity", **LOOKS[name].style())
        axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per token)", title=f"n = {n:,} latents")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    panels[0].set_ylabel("NMSE (1 = predicting the mean)")
    _legend_below(figure, panels[-1])  # the largest dictionary has every method
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
    """Training error (over the variance of the first sample) against tokens, a panel per method, a line per setting.

    The first seed alone; columns method, d_sae, sparsity, curve_tokens, curve_error. Solid: the largest dictionary.
    """
    names = _methods(table)[::-1]
    plt.style.use(STYLE)
    figure, grid = plt.subplots(2, 3, sharey=True, figsize=(8, 5.4))
    plt.close(figure)
    for axes, name in zip(grid.flat, names, strict=False):
        rows = table[table.method == name].drop_duplicates(["d_sae", "sparsity"])
        for n, dashes in zip(sorted(rows.d_sae.unique(), reverse=True), ("-", "--"), strict=False):
            cells = rows[rows.d_sae == n].sort_values("l0")
            for alpha, row in zip(np.linspace(0.35, 1, len(cells)), cells.itertuples(), strict=True):
                axes.plot(
                    row.curve_tokens, row.curve_error, dashes, color=LOOKS[name].color, alpha=alpha, linewidth=1.3
                )
        axes.set(xscale="log", yscale="log", title=LOOKS[name].label, xlabel="training tokens")
        _plain_log(axes.yaxis)
    for axes in grid.flat[len(names) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("training error / variance")
    return figure


def loss_against_l0(table: pd.DataFrame) -> Figure:
    """Rise in cross-entropy and KL against L0 at the largest dictionary; columns method, sparsity, l0, delta_ce, kl,
    delta_ce_zero, delta_ce_mean."""
    table = _largest(table)
    figure, panels = _panels(2, sharey=True, figsize=(8, 4.4))
    for axes, column, title in zip(panels, ("delta_ce", "kl"), ("rise in cross-entropy", "KL divergence"), strict=True):
        if column == "delta_ce":
            for control, dashes, label in (
                ("delta_ce_zero", (5, 2), "activation set to 0"),
                ("delta_ce_mean", (1, 1.5), "activation set to its mean"),
            ):
                axes.axhline(table[control].mean(), color=CONTROL, linestyle=(0, dashes), linewidth=1.4, label=label)
        for name in _methods(table):
            _band(axes, table[table.method == name], "l0", column, "sparsity", **LOOKS[name].style())
        axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per token)", title=title)
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    panels[0].set_ylabel("nats per token")
    _legend_below(figure, panels[0])
    return figure


def loss_against_error(points: pd.DataFrame) -> Figure:
    """Rise in cross-entropy against NMSE at matched L0, the largest dictionary; columns d_sae, seed, k, method, nmse,
    delta_ce. Points of one L0 are joined by a grey line."""
    points = _largest(points)
    figure, (axes,) = _panels(1, figsize=(6.4, 4.2))
    means = points.groupby(["k", "method"])[["nmse", "delta_ce"]].mean()
    for k, cell in means.groupby("k"):
        cell = cell.sort_values("nmse")
        axes.plot(cell.nmse, cell.delta_ce, color=CONTROL, linewidth=0.8, zorder=1)
        axes.annotate(f"L0 = {k:g}", cell.iloc[-1], xytext=(8, -3), textcoords="offset points", fontsize=8.5)
    for name in _methods(points):
        _band(axes, points[points.method == name], "nmse", "delta_ce", "k", **LOOKS[name].style())
    axes.set(xscale="log", yscale="log", xlabel="NMSE", ylabel="rise in cross-entropy (nats per token)")
    axes.margins(x=0.12)
    _plain_log(axes.xaxis)
    _plain_log(axes.yaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def compute_equivalent(table: pd.DataFrame, training: pd.DataFrame) -> Figure:
    """The language model's own loss during training, with autoencoders where the curve has the loss that they leave.

    `table`, of which the largest dictionary: method, sparsity, delta_ce, delta_ce_zero, compute_share; `training`:
    share, rise (nats).
    """
    table = _largest(table)
    figure, (axes,) = _panels(1, figsize=(6.8, 4.4))
    zero = table.delta_ce_zero.mean()
    levels = ((zero, (5, 2), "activation set to 0"), (0.05 * zero, (1, 1.5), "95 % of the loss recovered"))
    for level, dashes, label in levels:
        axes.axhline(level, color=CONTROL, linestyle=(0, dashes), linewidth=1.4, label=label)
    axes.axvline(0.5, color=CONTROL, linewidth=1, label="half of the compute")
    own = training[training.rise > 0]
    axes.plot(own.share, own.rise, color=PUBLISHED, linewidth=1.2, label="language model in training")
    for name in _methods(table):
        cells = table[table.method == name].astype({"compute_share": float}).groupby("sparsity")
        at = cells[["compute_share", "delta_ce"]].mean()
        look = LOOKS[name].style() | {"linestyle": "none", "alpha": 0.85}
        axes.plot(at.compute_share, at.delta_ce, **look)
    axes.set(xscale="log", yscale="log", xlabel="share of the language model's training compute")
    axes.set_ylabel("loss above the finished model (nats per token)")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _plain_log(axes.yaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
