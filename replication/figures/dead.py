"""Figures of the pages on dead latents, ablations and the released code's departures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from replication.figures import COLOURS, CONTROL, _band, _panels, _plain_log


def dead_latents(table: pd.DataFrame) -> Figure:
    """Dead share and NMSE under transpose initialisation and AuxK on and off; one dot per seed, a bar at the mean."""
    conditions = [
        ((True, True), "transpose\nAuxK"),
        ((True, False), "transpose\nno AuxK"),
        ((False, True), "independent\nAuxK"),
        ((False, False), "independent\nno AuxK"),
    ]
    auxk = table.options == "()"
    figure, panels = _panels(2)
    for axes, (column, label) in zip(panels, (("dead", "dead latents"), ("nmse", "NMSE")), strict=True):
        for place, ((tied, aux), _) in enumerate(conditions):
            values = table[(table.tied_init == tied) & (auxk == aux)][column]
            axes.bar(
                place,
                values.mean(),
                width=0.6,
                color=COLOURS["topk"],
                alpha=0.25 if aux else 0.12,
                edgecolor=COLOURS["topk"],
                linestyle="-" if aux else "--",
            )
            axes.plot([place] * len(values), values, "o", color=COLOURS["topk"], markersize=4)
        axes.set_xticks(range(len(conditions)), [name for _, name in conditions], fontsize=8.5)
        axes.set_ylabel(label)
        axes.grid(axis="x", visible=False)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def ablations(changes: pd.DataFrame, names: Mapping[str, str], tolerance: float | None = None) -> Figure:
    """Relative change of NMSE, a line per condition of `names`; columns condition, seed, change. A dot per seed, a bar
    at the mean; the control is grey, changes within `tolerance` lie in the grey band."""
    shown = [condition for condition in names if (changes.condition == condition).any()]
    figure, (axes,) = _panels(1, figsize=(8, 1.1 + 0.42 * len(shown)))
    if tolerance:
        axes.axvspan(-tolerance, tolerance, color=CONTROL, alpha=0.15, linewidth=0, label=f"within {tolerance:.0%}")
    axes.axvline(0, color=CONTROL, linewidth=1)
    for place, condition in enumerate(shown):
        values = changes[changes.condition == condition].change
        colour = CONTROL if condition == "nudged" else COLOURS["topk"]
        axes.barh(place, values.mean(), height=0.55, color=colour, alpha=0.25)
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=4.5)
    axes.set_yticks(range(len(shown)), [names[condition] for condition in shown])
    axes.set(xlabel="change of NMSE against the unchanged run of the same seed", ylabel="what was changed")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    if tolerance:
        axes.legend(loc="best")
    return figure


def loss_scale(table: pd.DataFrame, changes: pd.DataFrame, tolerance: float) -> Figure:
    """Left: NMSE against Adam's effective eps; columns condition, adam_eps, seed, nmse. Right: relative change of NMSE
    when the loss is multiplied by 1e-3, a column of `changes` per eps, a line per seed."""
    figure, (left, right) = _panels(2, width_ratios=(1.2, 1))
    curve = table[table.condition.isin(["default", "eps"])]
    _band(left, curve, "adam_eps", "nmse", "adam_eps", color=COLOURS["topk"], marker="o")
    left.set(xscale="log", yscale="log", xlabel="eps / scale of the loss", ylabel="NMSE")
    _plain_log(left.yaxis)
    right.axhspan(-tolerance, tolerance, color=CONTROL, alpha=0.15, linewidth=0, label=f"within {tolerance:.0%}")
    right.axhline(0, color=CONTROL, linewidth=1)
    places = np.arange(changes.shape[1])
    right.bar(places, changes.mean(), width=0.55, color=COLOURS["topk"], alpha=0.25)
    for _, seed in changes.iterrows():
        right.plot(places, seed, "o", color=COLOURS["topk"], markersize=4.5)
    right.set_xticks(places, [f"{eps:g}" for eps in changes.columns])
    right.set(xlabel="eps", ylabel="change of NMSE, loss times 1/1000")
    right.set_yscale("symlog", linthresh=tolerance)
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    right.grid(axis="x", visible=False)
    right.legend(loc="upper left")
    return figure
