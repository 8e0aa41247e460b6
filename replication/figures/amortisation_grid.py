"""Figures of the page on N, M and K: where other methods lead the SAE, and what chance and the oracle score there."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels

COLOUR = {"sae": COLOURS["relu"], "mlp": COLOURS["gated"], "sc": COLOURS["jumprelu"]}
ORACLE = COLOURS["topk"]
STYLES = {"2 K ln(N/K)": "-", "K ln(N/K)": "--", "M = N": ":"}


def differences(table: pd.DataFrame, lines: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """A map over N and M of MCC minus that of the SAE, for each method and origin; `lines` are drawn over it.

    Columns of `table`: n_atoms, d_in, method, origin, difference; of `lines`: boundary, n_atoms, d_in.
    """
    shown = [
        (method, origin)
        for method in ("sc", "mlp")
        for origin in ("ours", "published")
        if ((table.method == method) & (table.origin == origin)).any()
    ]
    figure, panels = _panels(len(shown), figsize=(9, 3.6), sharey=True)
    for axes, (method, origin) in zip(panels, shown, strict=True):
        cells = table[(table.method == method) & (table.origin == origin)]
        wide = cells.pivot(index="d_in", columns="n_atoms", values="difference")
        x, y = (np.arange(len(one) + 1) - 0.5 for one in (wide.columns, wide.index))
        image = axes.pcolormesh(x, y, wide, cmap="RdBu_r", vmin=-0.45, vmax=0.45, rasterized=True)
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            axes.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=7.5)
        for name, line in lines.groupby("boundary", sort=False):
            place = (
                np.interp(np.log(line[part]), np.log(ticks), range(len(ticks)), left=np.nan, right=np.nan)
                for part, ticks in (("n_atoms", _wider(wide.columns)), ("d_in", _wider(wide.index)))
            )
            across, up = (one - 1 for one in place)
            axes.plot(
                across,
                up,
                color=PUBLISHED,
                linestyle=STYLES[name],
                linewidth=1.2,
                label=f"M = {name}".replace("M = M", "M"),
            )
        axes.set(xlabel="N (atoms)", title=f"{names[method]}, {origin}", xlim=x[[0, -1]], ylim=y[[0, -1]])
        axes.set_xticks(range(len(wide.columns)), wide.columns)
        axes.set_yticks(range(len(wide.index)), wide.index)
        axes.grid(visible=False)
    panels[0].set_ylabel("M (inputs)")
    bar = figure.colorbar(image, ax=panels, orientation="horizontal", shrink=0.5, aspect=40)
    bar.ax.set_xlabel("latent MCC minus that of the SAE")
    bar.ax.axvline(0, color=PUBLISHED, linewidth=0.8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _wider(ticks) -> list[float]:
    """The ticks of a logarithmic axis with one more at either end, by the ratio of the two nearest."""
    ticks = [float(tick) for tick in ticks]
    return [ticks[0] ** 2 / ticks[1], *ticks, ticks[-1] ** 2 / ticks[-2]]


def latents(table: pd.DataFrame, published: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Latent MCC against N, a panel per M: methods, oracle, chance; crosses are published values."""
    figure, panels = _methods(table, "latent_mcc", names)
    for axes, d_in in zip(panels, sorted(table.d_in.unique()), strict=True):
        here = table[table.d_in == d_in]
        _band(axes, here, "n_atoms", "oracle", "n_atoms", color=ORACLE, linestyle="--", label="oracle: FISTA, true")
        _band(axes, here, "n_atoms", "chance", "n_atoms", color=CONTROL, linestyle="-.", label="chance: FISTA, random")
        for method in names:
            known = published[(published.d_in == d_in) & (published.method == method)] if len(published) else published
            if len(known):
                axes.plot(known.n_atoms, known.latent_mcc, "x", color=COLOUR[method], markersize=7, markeredgewidth=1.8)
        if len(published):
            axes.plot([], [], "x", color=PUBLISHED, label="published (same colours)")
    panels[0].set(ylabel="latent MCC, test samples", ylim=(0, 1.03))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def normalised(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """(MCC - chance) / (oracle - chance) against N, a panel per M."""
    figure, panels = _methods(table, "q", names)
    for axes in panels:
        axes.axhline(0, color=CONTROL, linestyle="-.", label="chance")
        axes.axhline(1, color=ORACLE, linestyle="--", label="oracle")
    panels[0].set_ylabel("normalised score q")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def oracle(table: pd.DataFrame, solved: float) -> Figure:
    """Oracle MCC against M / (K ln(N/K)), a dot per cell and data seed, grey dots for chance; the line stands at 2."""
    figure, (axes,) = _panels(1, figsize=(7, 3.6))
    for n_atoms, marker in zip(sorted(table.n_atoms.unique()), "osD^v<>", strict=False):
        here = table[table.n_atoms == n_atoms]
        axes.plot(
            here.ratio, here.oracle, marker, color=ORACLE, markersize=6, alpha=0.7, label=f"oracle, N = {n_atoms}"
        )
        axes.plot(here.ratio, here.chance, marker, color=CONTROL, markersize=4, alpha=0.7)
    axes.plot([], [], "o", color=CONTROL, markersize=4, label="chance, same marks")
    axes.axvline(1, color=PUBLISHED, linestyle="--", linewidth=1, label="M = K ln(N/K)")
    axes.axvline(2, color=PUBLISHED, linewidth=1, label="M = 2 K ln(N/K), published")
    axes.axhline(solved, color=CONTROL, linestyle=":", label=f"MCC {solved:g}")
    axes.set(xscale="log", xlabel="M / (K ln(N/K))", ylabel="latent MCC", ylim=(0, 1.03))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([0.5, 1, 2, 5, 10])
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _methods(table: pd.DataFrame, column: str, names: Mapping[str, str]):
    widths = sorted(table.d_in.unique())
    figure, panels = _panels(len(widths), figsize=(8.5, 3.9), sharey=True)
    for axes, d_in in zip(panels, widths, strict=True):
        for method, name in names.items():
            here = table[(table.d_in == d_in) & (table.method == method)]
            look = {"color": COLOUR[method], "marker": "o", "markersize": 4, "label": name}
            _band(axes, here, "n_atoms", column, "n_atoms", **look)
        axes.set(xscale="log", xlabel="N (atoms)", title=f"M = {d_in}")
        axes.set_xticks(sorted(table.n_atoms.unique()), sorted(table.n_atoms.unique()))
        axes.minorticks_off()
    return figure, panels
