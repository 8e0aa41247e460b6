"""Figures of the page on released SAEs."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, PUBLISHED, _legend_below, _panels

SHARES = {"SAEs": CONTROL, "bytes": PUBLISHED, "training compute": COLOURS["jumprelu"]}


def shares(rows: pd.DataFrame) -> Figure:
    """Bars over the width: percent of the released SAEs, of their bytes and of their training compute.

    Columns log2_width and one for each of SHARES.
    """
    figure, (axes,) = _panels(1, figsize=(8, 3.4))
    places, step = np.arange(len(rows)), 0.8 / len(SHARES)
    for i, (name, colour) in enumerate(SHARES.items()):
        bars = axes.bar(places + (i - 1) * step, rows[name], step, color=colour, label=name)
        axes.bar_label(bars, [f"{value:.0f}" if value >= 1 else "<1" for value in rows[name]], fontsize=7, padding=1)
    axes.set_xticks(places, [f"$2^{{{width}}}$" for width in rows.log2_width])
    axes.set(xlabel="latents of an SAE", ylabel="share of the suite (%)")
    axes.grid(axis="x", visible=False)
    _legend_below(figure, axes)
    return figure
