"""Figures of the page on the theorem: where a taught encoder stops, its matrix, and when codes are unique."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels

SAE, ORACLE = COLOURS["relu"], COLOURS["topk"]


def plateaus(best: pd.DataFrame, published: Mapping[tuple[int, int], tuple[float, float]]) -> Figure:
    """Test MCC against M, a line per K, oracle and chance; `published`: (M, K) -> MCC and its deviation over starts."""
    ks = sorted(best.k.unique())
    shades = sns.light_palette(SAE, len(ks) + 2)[2:]
    figure, (left, right) = _panels(2, figsize=(8, 3.8), width_ratios=(1.15, 1))
    for axes in (left, right):
        for k, shade in zip(ks, shades, strict=True):
            name = f"linear-ReLU encoder, K = {k}"
            look = {"color": shade, "marker": "o", "markersize": 4, "label": name}
            _band(axes, best[best.k == k], "d_in", "mcc", "d_in", **look)
        for k in ks:
            oracle = best[best.k == k].groupby("d_in").oracle.mean()
            axes.plot(oracle.index, oracle, color=ORACLE, linestyle="--", label="l0 oracle" if k == ks[0] else None)
        for (d_in, k), (mean, deviation) in published.items():
            if d_in in set(best.d_in) and k in ks:
                look = {"color": PUBLISHED, "marker": "x", "capsize": 3, "zorder": 4}
                axes.errorbar(d_in, mean, deviation, **look, label=f"published, K = {k}")
        axes.axvline(best.n_atoms.max(), color=CONTROL, linewidth=1, linestyle=":")
        axes.set(xlabel="M (inputs of the encoder)", xticks=sorted(best.d_in.unique()))
    chance = best.groupby("d_in").chance.mean()
    left.plot(chance.index, chance, color=CONTROL, linestyle="-.", label="chance: FISTA, random dictionary")
    left.set(ylabel="MCC of codes and latents, test samples", ylim=(0, 1.03), title="all of the scale")
    right.set(ylabel="the same, enlarged", title="enlarged", ylim=(min(best.mcc.min(), 0.98) - 0.02, 1.005))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def crosstalk(best: pd.DataFrame) -> Figure:
    """The matrix W of one data seed at the largest K with all M, a panel per M; column crosstalk holds its entries."""
    shown = best[best.crosstalk.map(len) > 0]
    k = 3 if (shown.k == 3).any() else shown.k.max()
    shown = shown[(shown.k == k) & (shown.data_seed == shown.data_seed.min())].sort_values("d_in")
    figure, panels = _panels(len(shown), figsize=(8, 2.9), sharey=True)
    for axes, (_, row) in zip(panels, shown.iterrows(), strict=True):
        W = np.reshape(row.crosstalk, (row.n_atoms, row.n_atoms))
        image = axes.pcolormesh(W, cmap="RdBu_r", vmin=-1.5, vmax=1.5, rasterized=True)
        axes.plot([0, row.n_atoms], [0, row.n_atoms], color=PUBLISHED, linewidth=0.5, alpha=0.4)
        axes.set(xlabel="atom j", title=f"M = {row.d_in}", aspect="equal", xticks=[], yticks=[])
        axes.grid(visible=False)
    panels[0].set_ylabel("unit i")
    panels[0].invert_yaxis()  # shared by all
    bar = figure.colorbar(image, ax=panels, orientation="horizontal", shrink=0.5, aspect=40)
    bar.ax.set_xlabel("answer of unit i to atom j, the true code of i = 1")
    bar.ax.axvline(0, color=PUBLISHED, linewidth=0.8)
    return figure


def rank(best: pd.DataFrame) -> Figure:
    """Left: singular values of W, a line per M. Right: distance of W from the identity against its bound."""
    k = 3 if (best.k == 3).any() else best.k.max()
    shown = best[best.k == k]
    widths = sorted(shown.d_in.unique())
    shades = sns.light_palette(SAE, len(widths) + 2)[2:]
    figure, (left, right) = _panels(2, figsize=(8, 3.4))
    for d_in, shade in zip(widths, shades, strict=True):
        values = np.array(shown[shown.d_in == d_in].singular.tolist())
        place = np.arange(1, values.shape[1] + 1)
        left.fill_between(place, values.min(0), values.max(0), color=shade, alpha=0.2, linewidth=0)
        left.plot(place, values.mean(0), color=shade, marker="o", markersize=3.5, label=f"M = {d_in}")
    left.axhline(1, color=ORACLE, linestyle="--", label="identity: all are 1")
    left.set(xlabel="index of the singular value", ylabel="singular value of W")
    left.set_ylim(bottom=0)
    left.legend(loc="best")
    _band(right, shown, "d_in", "departure", "d_in", color=SAE, marker="o", label="trained encoders")
    bound = shown.groupby("d_in").least_departure.mean()
    right.plot(bound.index, bound, color=CONTROL, linestyle="--", label="bound: sqrt(N - M)")
    right.set(xlabel="M (inputs of the encoder)", ylabel="|W - I|, Frobenius norm", xticks=widths)
    right.set_ylim(bottom=0)
    right.legend(loc="best")
    return figure


def transition(table: pd.DataFrame, lines: list[str]) -> Figure:
    """MCC of FISTA with the true dictionary against M, a panel per N; vertical lines: columns of `lines`."""
    sizes = sorted(table.n_atoms.unique())
    figure, panels = _panels(len(sizes), figsize=(8, 3.4), sharey=True)
    for axes, n_atoms in zip(panels, sizes, strict=True):
        here = table[table.n_atoms == n_atoms]
        _band(axes, here, "d_in", "fista", "d_in", color=ORACLE, marker="o", label="FISTA, true dictionary")
        for name, style in zip(lines, (":", "--", "-"), strict=True):
            axes.axvline(here[name].iloc[0], color=CONTROL, linestyle=style, label=f"M = {name}")
        axes.set(xlabel="M (inputs)", title=f"N = {n_atoms}, K = {here.k.iloc[0]}")
    panels[0].set(ylabel="MCC of codes and latents", ylim=(0, 1.03))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
