"""Figures of the scaling page: error against compute, latents, learning rate, batch size and source."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _legend_below, _panels, _plain_log

MARKERS = "osD^vP*X"
TICKS = (1, 1.5, 2, 3, 4, 5, 7)  # of errors, which span less than a decade


def _shades(values) -> dict:
    """A colour of one ramp for each value, light to dark."""
    known = sorted(set(values))
    return dict(zip(known, sns.color_palette("crest", len(known)), strict=True))


def _sizes_axis(axes, sizes) -> None:
    """A base-2 logarithmic axis of dictionary sizes, each size a tick."""
    known = sorted(set(sizes))
    axes.set_xscale("log", base=2)
    axes.set_xticks(known, [f"{n:,}" for n in known], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("n (latents)")


def compute(curves: pd.DataFrame, frontiers: pd.DataFrame) -> Figure:
    """Training error against training FLOPs, one panel per k, of the first seed; curves coloured by n.

    `curves`: d_sae, k, seed, flops, error; `frontiers`: k, seed, flops, error, fitted, floor, exponent.
    """
    ks = sorted(frontiers.k.unique()) or [curves.k.min()]
    ks = [ks[0], ks[-1]] if len(ks) > 2 else ks
    figure, panels = _panels(len(ks), sharey=True, figsize=(8, 4.6))
    shades, first = _shades(curves.d_sae), curves.seed.min()
    for axes, k in zip(panels, ks, strict=True):
        for n, line in curves[(curves.k == k) & (curves.seed == first)].groupby("d_sae"):
            axes.plot(line.flops, line.error, color=shades[n], linewidth=1.2, label=f"n = {n:,}")
        here, title = frontiers[(frontiers.k == k) & (frontiers.seed == first)], f"k = {k:g}"
        if len(here):
            axes.plot(here.flops, here.error, color=PUBLISHED, linewidth=4, alpha=0.25, label="lower envelope")
            axes.plot(here.flops, here.fitted, color=PUBLISHED, linestyle="--", label="power law with a floor")
            title += f": {here.floor.iloc[0]:.3f} + c C$^{{{here.exponent.iloc[0]:.2f}}}$"
        axes.set(xscale="log", yscale="log", xlabel="training compute C (FLOPs)", title=title)
        _plain_log(axes.yaxis, TICKS)
    panels[0].set_ylabel("training error / variance")
    _legend_below(figure, max(panels, key=lambda axes: len(axes.lines)))
    return figure


def joint_law(table: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """NMSE against n, one line per k; columns d_sae, sparsity, seed, nmse, converged; `curves`: k, d_sae, nmse."""
    figure, (axes,) = _panels(1, figsize=(6.4, 4.2))
    shades = _shades(table.sparsity)
    for k, cell in table.groupby("sparsity"):
        fitted = curves[curves.k == k]
        axes.plot(fitted.d_sae, fitted.nmse, color=shades[k], linewidth=1.2, label=f"k = {k:g}")
        for done, dots in cell.groupby("converged"):
            face = shades[k] if done else "white"
            axes.plot(dots.d_sae, dots.nmse, "o", color=shades[k], markerfacecolor=face, markersize=5)
    axes.plot([], [], "o", color=CONTROL, label="converged")
    axes.plot([], [], "o", color=CONTROL, markerfacecolor="white", label="still falling")
    axes.set(yscale="log", ylabel="NMSE (1 = predicting the mean)")
    _sizes_axis(axes, table.d_sae)
    _plain_log(axes.yaxis, TICKS)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def learning_rates(table: pd.DataFrame, largest: pd.DataFrame) -> Figure:
    """Left: NMSE against learning rate, one line per n; right: best and largest converging rate against n.

    `table`: d_sae, seed, lr, nmse; `largest`: d_sae, seed, best, largest.
    """
    figure, (sweep, law) = _panels(2, figsize=(8, 4.2))
    shades = _shades(table.d_sae)
    for n, cell in table.dropna(subset="nmse").groupby("d_sae"):
        _band(sweep, cell, "lr", "nmse", "lr", color=shades[n], marker="o", label=f"n = {n:,}")
    sweep.set_xscale("log", base=2)
    sweep.set(yscale="log", xlabel="learning rate", ylabel="NMSE")
    _plain_log(sweep.yaxis, TICKS)
    sweep.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    _band(law, largest, "d_sae", "largest", "d_sae", color=COLOURS["topk"], marker="o", label="largest converging")
    _band(law, largest, "d_sae", "best", "d_sae", color=CONTROL, marker="s", label="best of the grid")
    n, middle = largest.d_sae, np.exp(np.log(largest.largest).mean())
    at = np.array([n.min(), n.max()])
    law.plot(at, middle * (at / np.exp(np.log(n).mean())) ** -0.5, color=PUBLISHED, linestyle="--", label="slope −1/2")
    law.set(yscale="log", ylabel="learning rate")
    _plain_log(law.yaxis)
    _sizes_axis(law, n)
    law.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


def tokens(table: pd.DataFrame, published: dict[str, float]) -> Figure:
    """Tokens to convergence against n, one line per k; hollow where a run was still falling, so that the number is no
    property of the size. Columns d_sae, k, seed, tokens, settled; `published`: name -> exponent, drawn as slopes."""
    figure, (axes,) = _panels(1, figsize=(6.4, 4))
    shades = _shades(table.k)
    for k, cell in table.groupby("k"):
        _band(axes, cell, "d_sae", "tokens", "d_sae", color=shades[k], label=f"k = {k:g}")
        for done, dots in cell.groupby("settled"):
            face = shades[k] if done else "white"
            axes.plot(dots.d_sae, dots.tokens, "o", color=shades[k], markerfacecolor=face, markersize=5)
    at = np.array([table.d_sae.min(), table.d_sae.max()])
    for (name, exponent), dashes in zip(published.items(), ("--", ":"), strict=False):
        start = table.tokens.min() / 2
        label = f"slope {exponent:g} ({name})"
        axes.plot(at, start * (at / at[0]) ** exponent, color=PUBLISHED, linestyle=dashes, label=label)
    axes.plot([], [], "o", color=CONTROL, label="settled")
    axes.plot([], [], "o", color=CONTROL, markerfacecolor="white", label="still falling")
    axes.set(yscale="log", ylabel="tokens to within 1 % of the last error")
    _sizes_axis(axes, table.d_sae)
    _plain_log(axes.yaxis)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def batch_sizes(table: pd.DataFrame) -> Figure:
    """NMSE against learning rate, one line per batch size; columns batch, lr, seed, nmse."""
    figure, (axes,) = _panels(1, figsize=(5.6, 3.8))
    for (batch, cell), marker in zip(table.groupby("batch"), MARKERS, strict=False):
        shade = _shades(table.batch)[batch]
        _band(axes, cell, "lr", "nmse", "lr", color=shade, marker=marker, label=f"{batch:,} tokens a batch")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="learning rate", ylabel="NMSE")
    axes.legend()
    return figure


def sources(table: pd.DataFrame) -> Figure:
    """NMSE against n, one line per source of activations; columns source, d_sae, seed, nmse. Noise is grey."""
    figure, (axes,) = _panels(1, figsize=(5.6, 3.8))
    names = table.source.str.extract(r"model='([^']+)'")[0].fillna("Gaussian noise")
    shades = _shades(names[names != "Gaussian noise"])
    for (name, cell), marker in zip(table.groupby(names), MARKERS, strict=False):
        look = {"color": shades.get(name, CONTROL), "marker": marker, "label": name}
        _band(axes, cell, "d_sae", "nmse", "d_sae", **look)
    axes.set(yscale="log", ylabel="NMSE (1 = predicting the mean)")
    _sizes_axis(axes, table.d_sae)
    _plain_log(axes.yaxis, TICKS)
    axes.legend()
    return figure
