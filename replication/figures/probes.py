"""Figures of what single latents know and do: probe loss, per task and over n and k; sparsity of effects; density."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _legend_below, _panels, _plain_log

BASE = np.log(2)  # balanced loss of a probe that knows nothing


def probe_loss(table: pd.DataFrame, published: dict) -> Figure:
    """Mean probe loss against n, a line per k, and against k, a line per n; columns d_sae, sparsity, seed, probe_loss*.

    `published`: {"loss": (low, high), "label": text}.
    """
    figure, panels = _panels(2, sharey=True, figsize=(8, 4.6))
    shades = sns.color_palette("crest", table.sparsity.nunique())
    for colour, (k, cell) in zip(shades, table.groupby("sparsity"), strict=True):
        _band(panels[0], cell, "d_sae", "probe_loss", "d_sae", color=colour, marker="o", label=f"k = {k:g}")
    untrained = table.groupby("d_sae").probe_loss_untrained.mean()
    panels[0].plot(untrained.index, untrained, color=CONTROL, linestyle=(0, (5, 2)), label="before training")
    sizes = table.groupby("d_sae").filter(lambda cell: cell.sparsity.nunique() == table.sparsity.nunique())
    greens = sns.light_palette("#4d7c0f", sizes.d_sae.nunique() + 1)[1:]
    for colour, (n, cell) in zip(greens, sizes.groupby("d_sae"), strict=True):
        _band(panels[1], cell, "sparsity", "probe_loss", "sparsity", color=colour, marker="s", label=f"n = {n:,}")
    for axes, label, ticks in zip(panels, ("n (latents)", "k (active latents)"), ("d_sae", "sparsity"), strict=True):
        axes.axhline(BASE, color=CONTROL, linewidth=1, label="knowing nothing (ln 2)")
        axes.axhline(
            table.probe_loss_channels.mean(), color=CONTROL, linestyle=(0, (1, 1.5)), label="channels of the activation"
        )
        axes.axhspan(*published["loss"], facecolor="none", edgecolor=PUBLISHED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set(xlabel=label)
        axes.set_xscale("log", base=2)
        values = sorted(table[ticks].unique())
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    panels[0].set_ylabel("probe loss (nats)")
    handles, labels = panels[0].get_legend_handles_labels()
    more = [pair for pair in zip(*panels[1].get_legend_handles_labels(), strict=True) if pair[1] not in labels]
    box = panels[0].patches[-1]
    figure.legend(
        [*handles, *(handle for handle, _ in more), box],
        [*labels, *(label for _, label in more), published["label"]],
        loc="outside lower center",
        ncols=4,
        fontsize=8,
    )
    return figure


def probe_tasks(tasks: pd.DataFrame) -> Figure:
    """Loss of the best single latent per task, sorted, beside channels and untrained latents; columns task, seed, n, k,
    latents, untrained, channels."""
    mean = tasks.groupby("task")[["latents", "untrained", "channels"]].agg(["mean", "min", "max"]).astype(float)
    mean = mean.sort_values(("latents", "mean"), ascending=False)
    figure, (axes,) = _panels(1, figsize=(8, 1.2 + 0.24 * len(mean)))
    at = np.arange(len(mean))
    for name, marker, colour, label in (
        ("channels", "|", CONTROL, "channel of the activation"),
        ("untrained", "x", CONTROL, "latent before training"),
        ("latents", "o", COLOURS["topk"], f"latent, n = {tasks.n.iloc[0]:,}, k = {tasks.k.iloc[0]:g}"),
    ):
        here = mean[name]
        axes.hlines(at, here["min"], here["max"], color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(here["mean"], at, marker, color=colour, markersize=7 if marker == "|" else 5, label=label)
    axes.axvline(BASE, color=CONTROL, linewidth=1, label="knowing nothing (ln 2)")
    axes.set_yticks(at, mean.index)
    axes.set(xlabel="probe loss on other files (nats)", ylabel="property of the token")
    _legend_below(figure, axes)
    return figure


def effect_sparsity(table: pd.DataFrame, conventions: dict[str, str], published: dict) -> Figure:
    """Sparsity of effects against k / d, over 16 positions and at the token alone; columns sparsity, width, effect_*.

    `published`: {"latents": (low, high), "channels": value}, of effects over 16 positions.
    """
    figure, panels = _panels(2, figsize=(8, 4.6))
    table = table.assign(share=table.sparsity / table.width)
    for axes, suffix, title in zip(
        panels, ("", "_here"), ("token and the 15 after it", "the token alone"), strict=True
    ):
        axes.axhline(2 / np.pi, color=CONTROL, linewidth=1, label="Gaussian effect (2/π)")
        for column, style, label in (
            ("effect_channels", (0, (1, 1.5)), "channel of the activation"),
            ("effect_untrained", (0, (5, 2)), "latent before training"),
        ):
            _band(axes, table, "share", column + suffix, "sparsity", color=CONTROL, linestyle=style, label=label)
        for (column, how), marker, line in zip(conventions.items(), "os", ("-", "--"), strict=True):
            label = f"latent, taken {how}"
            style = {"color": COLOURS["topk"], "marker": marker, "linestyle": line, "label": label}
            _band(axes, table, "share", column + suffix, "sparsity", **style)
        axes.set(xscale="log", xlabel="k / width of the activation", title=title)
        _plain_log(axes.xaxis)
        axes.set_ylim(0, 0.7)
    low, high = published["latents"]
    box = panels[0].axhspan(low, high, facecolor="none", edgecolor=PUBLISHED, linewidth=0.8, linestyle=(0, (4, 3)))
    line = panels[0].axhline(published["channels"], color=PUBLISHED, linewidth=0.8, linestyle=(0, (4, 3)))
    box.set_label(f"paper: latents, {100 * low:.0f} to {100 * high:.0f} %")
    line.set_label(f"paper: channels, {100 * published['channels']:.0f} %")
    panels[0].set_ylabel("sparsity of effects (0 = one logit)")
    _legend_below(figure, panels[0])
    return figure


def densest_latents(table: pd.DataFrame, excess: pd.DataFrame) -> Figure:
    """Mean density of the d densest latents against k / d, with the trend of smaller k; columns sparsity, width, d_sae,
    densest, densest_untrained; `excess`: sparsity, predicted."""
    figure, (axes,) = _panels(1, figsize=(6.4, 4.4))
    width, n = table.width.iloc[0], table.d_sae.iloc[0]
    table = table.assign(share=table.sparsity / width)
    k = np.array(sorted(table.sparsity.unique()))
    axes.plot(k / width, np.minimum(k / width, 1), color=CONTROL, linewidth=1, label="the same d latents always")
    axes.plot(k / width, k / n, color=CONTROL, linestyle=(0, (1, 1.5)), label="all n latents alike")
    _band(
        axes,
        table,
        "share",
        "densest_untrained",
        "sparsity",
        color=CONTROL,
        linestyle=(0, (5, 2)),
        label="before training",
    )
    _band(axes, table, "share", "densest", "sparsity", color=COLOURS["topk"], marker="o", label=f"TopK, n = {n:,}")
    trend = excess.groupby("sparsity").predicted.mean()
    axes.plot(trend.index / width, trend, "_", color=PUBLISHED, markersize=11, label="trend of smaller k")
    axes.axvline(0.5, color=PUBLISHED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xscale="log", yscale="log", xlabel="k / d", ylabel="mean density of the d densest latents")
    _plain_log(axes.xaxis)
    _plain_log(axes.yaxis)
    _legend_below(figure, axes)
    return figure
