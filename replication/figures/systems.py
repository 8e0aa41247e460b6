"""Figures of the page on the released code, sharding and kernels."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _legend_below, _panels, _plain_log


def two_metrics(errors: pd.DataFrame, readme: dict[str, float], nmse: tuple[float, float]) -> Figure:
    """Error of the same reconstructions by two formulas, on two kinds of activations, with and without first positions.

    Columns activations, positions, formula, seed, value, mean_predictor. `readme`: label -> published value of the
    released code's formula; `nmse`: the range of the paper's.
    """
    figure, panels = _panels(2, sharey=True, figsize=(8, 4))
    titles = {"centred": "the paper's NMSE", "readme": "the released code's"}
    for axes, (formula, title) in zip(panels, titles.items(), strict=True):
        here = errors[errors.formula == formula]
        settings = list(here.groupby(["activations", "positions"], sort=False))
        for place, (_, cell) in enumerate(settings):
            control, own = ("predicting the mean", "TopK") if place == 0 else (None, None)
            axes.plot([place - 0.3, place + 0.3], [cell.mean_predictor.mean()] * 2, color=CONTROL, label=control)
            axes.plot([place] * len(cell), cell.value, "o", color=COLOURS["topk"], label=own)
        axes.set_xticks(range(len(settings)), [f"{kind},\n{part}" for (kind, part), _ in settings], fontsize=7.5)
        axes.set(yscale="log", title=title, ylim=(0.004, 1.3), xlim=(-0.6, len(settings) - 0.4))
        axes.grid(axis="x", visible=False)
        _plain_log(axes.yaxis)
    panels[0].axhspan(
        *nmse, facecolor="none", edgecolor=PUBLISHED, linestyle="--", label="paper's figures (GPT-2 small)"
    )
    for (label, value), dashes in zip(readme.items(), ("--", ":"), strict=True):
        panels[1].axhline(value, color=PUBLISHED, linestyle=dashes, linewidth=1, label=label)
    panels[0].set_ylabel("normalised error")
    panels[0].legend(loc="lower left", fontsize=8)
    panels[1].legend(loc="lower left", bbox_to_anchor=(0, 0.12), fontsize=8)
    return figure


def averages(changes: pd.DataFrame) -> Figure:
    """What averaging weights does to NMSE, relative to the last weights; columns decay, seed, gain, lag, norms.

    Left: the average taken after each step. Right: what the released order adds, and rows that are not renormalised.
    """
    figure, (left, right) = _panels(2, figsize=(8, 3.8))
    decays = sorted(changes.decay.unique())
    for axes, parts in (
        (left, (("gain", "average after each step", COLOURS["topk"]),)),
        (
            right,
            (
                ("lag", "released order: one step late", COLOURS["jumprelu"]),
                ("norms", "rows left short of unit norm", COLOURS["batchtopk"]),
            ),
        ),
    ):
        axes.axhline(0, color=CONTROL, linewidth=1)
        for shift, (column, label, colour) in zip(np.linspace(-0.1, 0.1, len(parts)), parts, strict=True):
            for place, decay in enumerate(decays):
                values = changes[changes.decay == decay][column]
                axes.plot([place + shift] * len(values), values, "o", color=colour, label=None if place else label)
        axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
        axes.set(xlabel="decay of the average", xlim=(-0.5, len(decays) - 0.5))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    left.set_ylabel("change of NMSE against the last weights")
    right.set_ylabel("further change of NMSE")
    return figure


def speed_up(table: pd.DataFrame, bounds: tuple[float, float]) -> Figure:
    """Left: milliseconds of a step against n, sparse and dense; right: their ratio, the bounds of the rule and the
    ratio of multiplications. Columns d_sae, ms_sparse, ms_dense, ratio, ratio_of_products."""
    figure, (left, right) = _panels(2, figsize=(8, 3.8))
    for column, label, colour, marker in (
        ("ms_dense", "dense products", PUBLISHED, "x"),
        ("ms_sparse", "sparse kernels", COLOURS["topk"], "o"),
    ):
        _band(left, table, "d_sae", column, "d_sae", color=colour, marker=marker, label=label)
    _band(right, table, "d_sae", "ratio", "d_sae", color=COLOURS["topk"], marker="o", label="measured")
    products = table.groupby("d_sae").ratio_of_products.mean()
    right.plot(products.index, products, ":", color=CONTROL, label="multiplications alone")
    right.axhspan(*bounds, color=CONTROL, alpha=0.15, linewidth=0, label="what the rule asks for")
    right.axhline(1, color=CONTROL, linewidth=1)
    sizes = sorted(table.d_sae.unique())
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="n (latents)")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.minorticks_off()
        _plain_log(axes.yaxis)
        axes.legend(loc="upper left" if axes is left else "best")
    left.set_ylabel("time of one step (ms)")
    right.set_ylabel("time dense / time sparse")
    return figure


FLOOR = 1e-6  # a share of zero has no place on a logarithmic axis


def sharding(table: pd.DataFrame, nearly_all: float) -> Figure:
    """Share of the exact top k that is lost, against k, a panel per capacity and a colour per number of shards.

    Columns k, shards, capacity, order, seed, found, expected. Lines: expected by chance; dots: seeds, stored order;
    crosses: seeds, latents shuffled over the shards. Nothing lost is drawn at the bottom.
    """
    capacities = sorted(table.capacity.unique())
    figure, panels = _panels(len(capacities), sharey=True, figsize=(8, 4))
    shards = sorted(table.shards.unique())
    for axes, capacity in zip(panels, capacities, strict=True):
        axes.axhspan(
            FLOOR / 3, 1 - nearly_all, color=CONTROL, alpha=0.15, linewidth=0, label=f"over {nearly_all:.1%} found"
        )
        for colour, count in zip(sns.color_palette("crest", len(shards)), shards, strict=True):
            here = table[(table.capacity == capacity) & (table.shards == count)]
            chance = (1 - here.groupby("k").expected.mean()).clip(lower=FLOOR)
            axes.plot(chance.index, chance, color=colour, linewidth=1.2, label=f"{count} shards, by chance")
            for order, marker in (("stored", "o"), ("shuffled", "x")):
                cell = here[here.order == order]
                label = f"{count} shards, {order}"
                axes.plot(cell.k, (1 - cell.found).clip(lower=FLOOR), marker, color=colour, markersize=4.5, label=label)
        ks = sorted(table.k.unique())
        axes.set(
            xscale="log", yscale="log", xlabel="k (active latents)", title=f"c = {capacity:g}", ylim=(FLOOR / 3, 1)
        )
        axes.set_xticks(ks, [f"{k:g}" for k in ks])
        axes.minorticks_off()
    panels[0].set_ylabel("share of the exact top k that is lost")
    _legend_below(figure, panels[-1])
    return figure
