"""Figures of a suite of SAEs over layers, sites and widths; columns site, layer, d_sae, sparsity, seed and measures."""

from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from replication.figures import CONTROL, PUBLISHED, STYLE, _band, _legend_below, _panels, _plain_log
from replication.figures.scaling import TICKS, _shades, _sizes_axis

SITES = {  # name in a legend, colour, marker
    "attn": ("attention, before $W_O$", "#3b7ea1", "s"),
    "mlp": ("MLP output", "#d98c21", "^"),
    "res": ("residual stream", "#7a3b8f", "o"),
}
COLUMNS = 4  # panels beside each other
L0 = "L0 (active latents per token)"


def _look(site: str) -> dict:
    label, colour, marker = SITES[site]
    return {"label": label, "color": colour, "marker": marker}


def _layers(table: pd.DataFrame, height: float) -> tuple[Figure, dict]:
    """A panel per layer, up to COLUMNS in a row."""
    layers = sorted(table.layer.unique())
    rows, columns = -(-len(layers) // COLUMNS), min(len(layers), COLUMNS)
    plt.style.use(STYLE)
    figure, grid = plt.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True, figsize=(max(2.1 * columns, 6), 0.8 + height * rows)
    )
    plt.close(figure)
    for spare in grid.flat[len(layers) :]:
        spare.remove()
    panels = dict(zip(layers, grid.flat, strict=False))
    for place, (layer, axes) in enumerate(panels.items()):
        axes.set(xscale="log", yscale="log", title=f"layer {layer}")
        if place + columns >= len(layers):
            axes.set_xlabel("L0")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    return figure, panels


def harm_by_site(table: pd.DataFrame, published: dict | None = None) -> Figure:
    """Delta LM loss against L0, a panel per layer, a line per site; dashed in its colour: the site set to its mean.

    `published`: {"l0": (low, high), "delta_ce": (low, high), "label": text}, the range of the paper's figure.
    """
    figure, panels = _layers(table, 3.0)
    for layer, axes in panels.items():
        if published:
            (x0, x1), (y0, y1) = published["l0"], published["delta_ce"]
            edge = {"edgecolor": PUBLISHED, "linewidth": 0.9, "linestyle": (0, (2, 3)), "label": published["label"]}
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="none", **edge))
        for site in SITES:
            here = table[(table.layer == layer) & (table.site == site)]
            mean = here.delta_ce_mean.mean()
            axes.axhline(mean, color=SITES[site][1], linestyle=(0, (5, 2)), linewidth=1)
            _band(axes, here[here.delta_ce > 0], "l0", "delta_ce", "sparsity", **_look(site))
        axes.plot([], [], color=CONTROL, linestyle=(0, (5, 2)), linewidth=1, label="site set to its mean (its colour)")
        _plain_log(axes.xaxis, (1,))  # three decades of the paper's range
        axes.yaxis.set_major_formatter("{x:g}")
    next(iter(panels.values())).set_ylabel("ΔLM loss (nats per token)")
    _legend_below(figure, next(iter(panels.values())))
    return figure


def error_by_site(table: pd.DataFrame) -> Figure:
    """FVU against L0, a panel per layer, a line per site; dotted in its colour: as many principal components as L0."""
    figure, panels = _layers(table, 2.6)
    for layer, axes in panels.items():
        for site in SITES:
            here = table[(table.layer == layer) & (table.site == site)]
            control = here[here.nmse_pca > 0].groupby("sparsity")[["l0", "nmse_pca"]].mean()
            axes.plot(control.l0, control.nmse_pca, color=SITES[site][1], linestyle=(0, (1, 1.5)), linewidth=1.3)
            _band(axes, here, "l0", "fvu", "sparsity", **_look(site))
        axes.plot([], [], color=CONTROL, linestyle=(0, (1, 1.5)), label="principal components, as many as L0")
    next(iter(panels.values())).set_ylabel("FVU (1 = predicting the mean)")
    _legend_below(figure, next(iter(panels.values())))
    return figure


def harm_by_depth(table: pd.DataFrame) -> Figure:
    """Delta LM loss against L0, a panel per site, a line per layer."""
    figure, panels = _panels(len(SITES), sharey=True, figsize=(8, 4.2))
    shades, markers = _shades(table.layer), cycle("osD^vP")
    looks = {layer: {"color": shades[layer], "marker": next(markers)} for layer in shades}
    for axes, site in zip(panels, SITES, strict=True):
        for layer, here in table[(table.site == site) & (table.delta_ce > 0)].groupby("layer"):
            _band(axes, here, "l0", "delta_ce", "sparsity", label=f"layer {layer}", **looks[layer])
        axes.set(xscale="log", yscale="log", title=SITES[site][0], xlabel=L0)
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
        axes.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("ΔLM loss (nats per token)")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def harm_by_width(table: pd.DataFrame) -> Figure:
    """Delta LM loss and FVU against L0 at one layer and site, a line per width."""
    figure, panels = _panels(2, figsize=(8, 4.2))
    shades = _shades(table.d_sae)
    labels = {"delta_ce": "ΔLM loss (nats per token)", "fvu": "FVU (1 = predicting the mean)"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        for width, here in table[table[column] > 0].groupby("d_sae"):
            look = {"color": shades[width], "marker": "o", "label": f"{width:,} latents"}
            _band(axes, here, "l0", column, "sparsity", **look)
        axes.set(xscale="log", yscale="log", xlabel=L0, ylabel=label)
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis, TICKS)
        axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def frequencies(table: pd.DataFrame, bins: np.ndarray) -> Figure:
    """Left: histogram of log10 firing frequency, a line per width, at the middle lambda of the first seed. Middle: the
    median over live latents, dotted L0 / live latents. Right: number of latents above 10 %. Columns also live,
    frequency_median, frequency_histogram, above_0.1."""
    figure, (shape, median, count) = _panels(3, figsize=(8, 4.2))
    shades, lambdas = _shades(table.d_sae), sorted(table.sparsity.unique())
    chosen = table[(table.seed == table.seed.min()) & (table.sparsity == lambdas[len(lambdas) // 2])]
    for row in chosen.sort_values("d_sae").itertuples():
        share = np.asarray(row.frequency_histogram) / row.live
        shape.stairs(share, 10.0**bins, color=shades[row.d_sae], linewidth=1.5, label=f"{row.d_sae:,} latents")
    for line in (0.01, 0.1):
        shape.axvline(line, color=CONTROL, linewidth=1, linestyle=":")
    shape.set(xscale="log", xlabel="share of tokens a latent fires on", ylabel="share of live latents")
    shape.set_title(f"λ = {lambdas[len(lambdas) // 2]:g}")
    shape.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    fired = table[table.frequency_histogram.map(sum) > 0].frequency_histogram.map(lambda h: np.flatnonzero(h)[0]).min()
    shape.set_xlim(10.0 ** bins[fired], 1)
    marks = dict(zip(lambdas, "osD^vP", strict=False))
    colours = dict(zip(lambdas, sns.color_palette("flare", len(lambdas)), strict=True))
    values = table.assign(median=10**table.frequency_median, mean=table.l0 / table.live)
    for sparsity, here in values.groupby("sparsity"):
        look = {"color": colours[sparsity], "marker": marks[sparsity], "label": f"λ = {sparsity:g}"}
        _band(median, here, "d_sae", "median", "d_sae", **look)
        means = here.groupby("d_sae")["mean"].mean()
        median.plot(means.index, means, color=colours[sparsity], linestyle=":", linewidth=1.3)
        _band(count, here, "d_sae", "above_0.1", "d_sae", **look)
    median.plot([], [], color=CONTROL, linestyle=":", label="L0 / live latents")
    median.set(yscale="log", title="median frequency", ylabel="share of tokens")
    _plain_log(median.yaxis)
    median.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    count.set_yscale("symlog", linthresh=1)  # 0 has a place, and 1 of 2,048 can be seen
    count.set(title="latents above 10 %", ylabel="number of latents", ylim=(0, None))
    count.yaxis.set_major_formatter("{x:g}")
    for axes in (median, count):
        _sizes_axis(axes, table.d_sae)
    entries = [axes.get_legend_handles_labels() for axes in (shape, median)]
    figure.legend(*(entries[0][i] + entries[1][i] for i in (0, 1)), loc="outside lower center", ncols=4)
    return figure


def one_setting(table: pd.DataFrame) -> Figure:
    """L0 of every layer and site at the same settings, a colour per lambda; crosses: without normalisation."""
    figure, (axes,) = _panels(1, figsize=(7.6, 4.2))
    table = table[table.d_sae.isin(table[table.site == "attn"].d_sae)]
    places = [(layer, site) for layer in sorted(table.layer.unique()) for site in SITES]
    at = table.apply(lambda row: places.index((row.layer, row.site)), axis=1)
    lambdas = sorted(table.sparsity.unique())
    colours = dict(zip(lambdas, sns.color_palette("flare", len(lambdas)), strict=True))
    for kind, look in {"gemma": {"marker": "o"}, "none": {"marker": "X", "s": 60, "edgecolors": "white"}}.items():
        for sparsity, here in table[table.normalisation == kind].groupby("sparsity"):
            scale = r"$\mathbb{E}|x|^2=1$" if kind == "gemma" else "raw activations"
            axes.scatter(at[here.index], here.l0, color=colours[sparsity], label=f"λ = {sparsity:g}, {scale}", **look)
    before = table[table.normalisation == "gemma"].l0_untrained.groupby(at).mean()
    axes.plot(before.index, before, "_", color=CONTROL, markersize=12, label="before training")
    axes.set(yscale="log", ylabel="L0", xlabel="layer and site")
    axes.set_xticks(range(len(places)), [f"{layer}\n{site}" for layer, site in places])
    _plain_log(axes.yaxis)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
