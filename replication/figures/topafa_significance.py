"""Differences between methods: across steps of one run, across seeds, and in bits."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, _panels, _plain_log

MARKERS = {"topk": "o", "batchtopk": "s", "topafa": "D"}


def differences(released: pd.DataFrame, ours: pd.DataFrame, over_seeds: pd.DataFrame) -> Figure:
    """NMSE of top-AFA against a baseline: left the relative differences as released, right our ratios.

    `released`: layer, method, dial, gap, reach; `ours`: layer, seed, gap, reach, one mark per seed, bars of 95 % over
    minibatches; `over_seeds`: layer, mean, low, high, as NMSE ratios minus 1, the interval over seeds.
    """
    figure, (left, right) = _panels(2, figsize=(9.2, 3.9))
    released = released.sort_values(["layer", "method"]).reset_index(drop=True)
    for place, row in released.iterrows():
        look = {"color": COLOURS[row.method], "marker": MARKERS[row.method], "capsize": 3}
        left.errorbar(row.gap, place, xerr=row.reach, **look)
    names = [f"layer {row.layer}, {NAMES[row.method]} {row.dial}" for row in released.itertuples()]
    left.set_yticks(range(len(names)), names)
    left.set(title="released: 100 steps of one seed", xlabel="NMSE of top-AFA against the baseline")
    layers = sorted(ours.layer.unique())
    for place, layer in enumerate(layers):
        here = ours[ours.layer == layer].sort_values("seed")
        for number, (shift, row) in enumerate(zip(np.linspace(-0.3, 0.1, len(here)), here.itertuples(), strict=True)):
            look = {"color": COLOURS["topafa"], "marker": "D", "capsize": 3}
            label = "one seed, 95 % over minibatches" if place == number == 0 else None
            right.errorbar(1 + row.gap, place + shift, xerr=row.reach, **look, label=label)
        mean, low, high = 1 + over_seeds[over_seeds.layer == layer].iloc[0][["mean", "low", "high"]]
        look = {"color": PUBLISHED, "marker": "o", "capsize": 4, "linewidth": 2}
        label = "mean, 95 % over seeds" if place == 0 else None
        right.errorbar(mean, place + 0.3, xerr=[[mean - low], [high - mean]], **look, label=label)
    right.set_yticks(range(len(layers)), [f"layer {layer:g}" for layer in layers])
    right.set(
        title="here: held-out tokens, every seed", xlabel="NMSE of top-AFA / NMSE of the best baseline", xscale="log"
    )
    left.axvline(0, color=CONTROL, linewidth=1.2)
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.axvline(1, color=CONTROL, linewidth=1.2)
    _plain_log(right.xaxis)
    right.xaxis.set_major_formatter("{x:g}")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def false_alarms(released: pd.DataFrame, ours: pd.DataFrame, placebo: pd.DataFrame) -> Figure:
    """|t| of Welch's test across minibatches: between methods, and between two seeds of one setting.

    `released`: t; `ours`: t; `placebo`: method, t.
    """
    figure, (axes,) = _panels(1, figsize=(7.6, 3.8))
    lines = [("released: top-AFA against a baseline", released.t, PUBLISHED, "*")]
    lines.append(("here: top-AFA against the best baseline", ours.t, COLOURS["topafa"], "D"))
    for method in MARKERS:
        t = placebo.t[placebo.method == method]
        if len(t):
            lines.append((f"two seeds of {NAMES[method]}, one setting", t, COLOURS[method], MARKERS[method]))
    jitter = np.random.default_rng(0)
    for place, (_, t, colour, marker) in enumerate(lines):
        heights = place + jitter.uniform(-0.22, 0.22, len(t))
        look = {"color": colour, "marker": marker, "s": 70 if marker == "*" else 22, "alpha": 0.75, "linewidths": 0}
        axes.scatter(np.abs(t).clip(lower=0.02), heights, **look)
    axes.axvline(1.96, color=CONTROL, linestyle="--", label="p = 0.05")
    axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axes.set(xscale="log", xlabel="|t| of Welch's test, minibatches as samples")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _plain_log(axes.xaxis, (1, 3))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="best")
    return figure


def lengths(table: pd.DataFrame, picks: pd.DataFrame) -> Figure:
    """NMSE against bits per token, a panel per layer; columns layer, method, dial, bits, lee_nmse.

    `picks`: the same and `kind`; stars for "lowest NMSE" of each method, a ring for "equal tolerance".
    """
    layers = sorted(table.layer.unique())
    figure, panels = _panels(len(layers), sharey=True, figsize=(9.2, 4.2))
    for axes, layer in zip(panels, layers, strict=True):
        for method, marker in MARKERS.items():
            runs = table[(table.layer == layer) & (table.method == method)].sort_values("bits")
            look = {"color": COLOURS[method], "marker": marker, "linestyle": "none", "alpha": 0.8}
            axes.plot(runs.bits / 1000, runs.lee_nmse, **look, label=NAMES[method])
        for row in picks[picks.layer == layer].itertuples():
            if row.kind == "lowest NMSE":
                look = {"marker": "*", "markersize": 14, "color": COLOURS[row.method], "markeredgecolor": "black"}
                axes.plot(row.bits / 1000, row.lee_nmse, **look, markeredgewidth=0.7, zorder=3)
            else:
                look = {"marker": "o", "markersize": 17, "markerfacecolor": "none", "markeredgecolor": PUBLISHED}
                label = "shortest baseline at equal error"
                axes.plot(row.bits / 1000, row.lee_nmse, **look, linestyle="none", zorder=4, label=label)
        axes.set(xscale="log", yscale="log", xlabel="bits per token (thousands)", title=f"layer {layer:g}")
        _plain_log(axes.xaxis, (1, 3))
        axes.xaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("NMSE of standardised tokens")
    entries = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
    for axes in panels[1:]:
        entries |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4)
    return figure
