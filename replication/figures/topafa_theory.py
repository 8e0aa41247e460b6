"""Figures of the page on the norm bound: wedges in k, spread against width, where the bound is finite, dense codes."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels, _plain_log

MEASURED, K_FORM, L1_FORM, H_FORM = COLOURS["topk"], COLOURS["jumprelu"], COLOURS["matryoshka"], COLOURS["relu"]
ARRANGED = {"random": (COLOURS["topk"], "o"), "repelled": (COLOURS["gated"], "s")}
MARKS = ("D", "^")
LAWS = {  # of the entries of dense codes: colour, name, shift on a logarithmic axis
    "uniform": (COLOURS["topk"], "entries of one sign", 0.93),
    "signed": (COLOURS["jumprelu"], "random signs", 1.07),
}


def _counts(axes, values) -> None:
    """A logarithmic x-axis with its own values as ticks."""
    values = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{int(value):,}" for value in values])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def wedges(table: pd.DataFrame) -> Figure:
    """z^2 / f^2 against k, a panel per arrangement and size: what is measured, and 1 -+ eps (m - 1) for m = k and l1.

    Columns: arrangement, n_atoms, d_in, k, ratio_min, ratio_25, ratio_50, ratio_75, ratio_max, c_h, c_k, c_l1.
    """
    cells = list(table.groupby(["arrangement", "d_in", "n_atoms"], sort=False))
    figure, panels = _panels(len(cells), figsize=(2.9 * len(cells), 3.9), sharey=True)
    for axes, ((arrangement, d, h), cell) in zip(panels, cells, strict=True):
        at = cell.groupby("k")[[c for c in cell if c.startswith(("ratio", "c_"))]].mean()
        low, high = cell.groupby("k").ratio_min.min(), cell.groupby("k").ratio_max.max()
        shade = {"color": MEASURED, "linewidth": 0}
        axes.fill_between(at.index, low, high, **shade, alpha=0.2, label="all codes")
        axes.fill_between(at.index, at.ratio_25, at.ratio_75, **shade, alpha=0.45, label="middle half of them")
        axes.plot(at.index, at.ratio_50, color=MEASURED, marker="o", markersize=4, zorder=3, label="median")
        for form, colour, dashes, name in (
            ("c_k", K_FORM, "-", "bound with k"),
            ("c_l1", L1_FORM, "--", "bound with the 1-norm"),
        ):
            axes.plot(at.index, 1 + at[form], color=colour, linestyle=dashes, label=name)
            axes.plot(at.index, (1 - at[form]).clip(lower=0), color=colour, linestyle=dashes)
        reach = f"bound with h:\n{max(1 - at.c_h.iloc[0], 0):.2g} to {1 + at.c_h.iloc[0]:.3g}"
        axes.text(0.97, 0.97, reach, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=H_FORM)
        _counts(axes, at.index)
        name = f"{arrangement} directions" if arrangement in ARRANGED else f"{arrangement}, equal cosines"
        axes.set(xlabel="k (active directions)", title=f"{name}\nd = {d}, h = {h:,}", ylim=(-0.05, 2.6))
        axes.tick_params(axis="x", labelsize=8)
    panels[0].set_ylabel("|z|² / |f|²")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def spread(cells: pd.DataFrame, released: pd.DataFrame) -> Figure:
    """Standard deviation of z^2 / f^2 against d. Left: by arrangement, against sqrt(2 / d), with the released layers.
    Right: measured over predicted.

    Columns of `cells`: arrangement, d_in, n_atoms, k, seed, sd, expected, predicted, eps; of `released`: model, d_in,
    spreads.
    """
    figure, (left, right) = _panels(2, figsize=(9, 4.2), width_ratios=(1.5, 1))
    widths = sorted({*cells.d_in, *released.d_in})
    left.plot(widths, [(2 / d) ** 0.5 for d in widths], color=CONTROL, linestyle="--", label="sqrt(2 / d)")
    for arrangement, (colour, marker) in ARRANGED.items():
        here = cells[cells.arrangement == arrangement]
        if here.empty:
            continue
        look = {"color": colour, "marker": marker}
        _band(left, here, "d_in", "sd", "d_in", **look, label=f"{arrangement} directions")
        right.plot(here.predicted, here.sd / here.predicted, linestyle="none", markersize=4, **look)
    for mark, row in zip(MARKS, released.itertuples(), strict=False):
        look = {"color": PUBLISHED, "marker": mark, "markersize": 4.5, "linestyle": "none", "alpha": 0.55}
        left.plot([row.d_in] * len(row.spreads), row.spreads, **look, label=f"{row.model}, released, by layer")
    right.axhline(1, color=CONTROL, linestyle="--")
    _counts(left, widths)
    left.tick_params(axis="x", labelsize=8)
    left.set(yscale="log", xlabel="d (dimensions)", ylabel="standard deviation of |z|² / |f|²")
    left.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    left.minorticks_off()
    right.set(xscale="log", xlabel="predicted from cosines and codes", ylabel="measured / predicted", ylim=(0.5, 1.5))
    _plain_log(right.xaxis)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def informative(table: pd.DataFrame, released: pd.DataFrame) -> Figure:
    """Left: eps (m - 1) against h for m = h, k and l1, and the least that is possible with h. Right: the largest k with
    a finite upper bound against d.

    Columns of `table`: arrangement, n_atoms, d_in, k, eps, c_h, c_k, c_l1, c_welch, finite_k, finite_l1; of `released`:
    model, d_in, n_atoms, c_lbo, c_welch, finite_k.
    """
    figure, (left, right) = _panels(2, figsize=(10, 4.9), width_ratios=(1.45, 1))
    middle = sorted(table.k.unique())[len(table.k.unique()) // 2]
    shown, widths = table[table.k == middle], sorted(table.d_in.unique())
    forms = (("c_h", H_FORM, "with h"), ("c_k", K_FORM, f"with k = {middle}"), ("c_l1", L1_FORM, "with the 1-norm"))
    for form, colour, name in forms:
        shades = sns.light_palette(colour, len(widths) + 2)[2:]
        for d, shade in zip(widths, shades, strict=True):
            for arrangement, (_, marker) in ARRANGED.items():
                here = shown[(shown.d_in == d) & (shown.arrangement == arrangement)].groupby("n_atoms")[form].mean()
                label = f"{arrangement}, {name}" if d == widths[-1] else None
                dashes = "-" if arrangement == "random" else ":"
                left.plot(here.index, here, color=shade, marker=marker, markersize=3.5, linestyle=dashes, label=label)
    for d, name in zip(widths, ["least possible, with h", *[None] * len(widths)], strict=False):
        least = shown[shown.d_in == d].groupby("n_atoms").c_welch.mean()
        left.plot(least.index, least, color=CONTROL, linestyle="--", label=name)
    left.axhline(1, color=PUBLISHED, linewidth=1)
    left.text(
        0.99, 1.08, "no upper bound for |f| above", transform=left.get_yaxis_transform(), ha="right", fontsize=8.5
    )
    for mark, row in zip(MARKS, released.itertuples(), strict=False):
        look = {"color": PUBLISHED, "marker": mark, "linestyle": "none", "markersize": 6}
        left.plot([row.n_atoms], [row.c_welch], **look, markerfacecolor="none", label=f"{row.model}: least possible")
        left.plot([row.n_atoms], [row.c_lbo], **look, label=f"{row.model}: (h - 1) eps_LBO")
        right.plot([row.d_in], [row.finite_k], **look, markerfacecolor="none")
    for arrangement, (_, marker) in ARRANGED.items():
        here = shown[shown.arrangement == arrangement]
        for column, colour, name in (("finite_k", K_FORM, "k"), ("finite_l1", L1_FORM, "1-norm")):
            look = {"color": colour, "marker": marker, "linestyle": "-" if arrangement == "random" else ":"}
            _band(right, here, "d_in", column, "d_in", **look, label=f"{arrangement}, {name}")
    left.set(xscale="log", yscale="log", xlabel="h (directions)", ylabel="eps (m - 1)")
    right.set(yscale="log", xlabel="d (dimensions)", ylabel="largest k with a finite upper bound")
    _counts(right, {*widths, *released.d_in})
    right.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    right.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def dense(table: pd.DataFrame, close: float, inside: tuple[float, float]) -> Figure:
    """Left, middle: median of |f| / |z| and relative standard deviation against k / h at the smallest d, a dot per
    dictionary; bands: what T5 allows. Right: mean of z^2 / f^2 - 1 at every d against its prediction.

    Columns: law, d_in, share, r, relative_sd, bias, predicted_bias.
    """
    figure, panels = _panels(3, figsize=(10.5, 4.2))
    here = table[table.d_in == table.d_in.min()]
    shares = sorted(here.share.unique())
    size = f"d = {here.d_in.iloc[0]}, h = {here.n_atoms.iloc[0]:,}"
    allowed = ((1 - close, 1 + close), inside)
    for axes, column, band in zip(panels, ("r", "relative_sd"), allowed, strict=False):
        axes.axhspan(*band, color=CONTROL, alpha=0.2, linewidth=0, label="allowed by T5")
        for law, (colour, name, shift) in LAWS.items():
            dots = here[here.law == law]
            look = {"color": colour, "marker": "o", "markersize": 3.5, "alpha": 0.6, "linestyle": "none"}
            axes.plot(dots.share * shift, dots[column], **look, label=name)
        axes.set(xscale="log", xlabel="k / h", title=size)
        axes.set_xticks(shares, [f"1/{round(1 / share)}" if share < 1 else "1" for share in shares])
        axes.minorticks_off()
    panels[0].set_ylabel("median of |f| / |z|")
    panels[1].set(ylabel="sd of |z|² / |f|², over sqrt(2 / d)", ylim=(0, 1.6))
    for law, (colour, _, _) in LAWS.items():
        dots = table[table.law == law]
        panels[2].plot(dots.predicted_bias, dots.bias, "o", color=colour, markersize=3.5, alpha=0.5)
    ends = [table[["predicted_bias", "bias"]].min().min(), table[["predicted_bias", "bias"]].max().max()]
    panels[2].plot(ends, ends, color=CONTROL, linestyle="--", zorder=1)
    sizes = ", ".join(str(d) for d in sorted(table.d_in.unique()))
    panels[2].set(xlabel="(k - 1) (E f)² / E f² · mean cosine", ylabel="mean of |z|² / |f|² - 1", title=f"d = {sizes}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
