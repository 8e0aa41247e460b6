"""Figures of the page on norms: ZF plots, ratios of norms, half-violins, correlations, and what a gap is made of.

Tables have one row per autoencoder: architecture, layer, seed, and the columns that `measure_norms` gives. `released`
has the published medians of two models, a line per layer; `depth` runs from 0 (first layer) to 1 (last).
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from scipy.stats import gaussian_kde

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, STYLE, _band, _panels

RELEASED_DASHES = {"GPT-2 small": "-", "Gemma Scope 2B": (0, (4, 2))}
ERROR, BOUND = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
WEDGE_SHADES = ("#c3d9ee", "#dbe8f5", "#eef4fa")  # the narrowest wedge is the darkest


def _kinds(rows: pd.DataFrame) -> list[str]:
    return [kind for kind in NAMES if (rows.architecture == kind).any()]


def _grid(lines: int, columns: int, **kwargs) -> tuple[Figure, np.ndarray]:
    plt.style.use(STYLE)
    figure, axes = plt.subplots(lines, columns, squeeze=False, **kwargs)
    plt.close(figure)
    return figure, axes


def _ours(axes, rows: pd.DataFrame, column: str) -> None:
    """One line per kind over depth: mean over seeds, the range shaded."""
    for kind in _kinds(rows):
        look = {"color": COLOURS[kind], "marker": "o", "markersize": 4, "label": NAMES[kind]}
        _band(axes, rows[rows.architecture == kind], "depth", column, "layer", **look)


def _published(axes, released: pd.DataFrame, column: str) -> None:
    for model, lines in released.groupby("model"):
        look = {"color": PUBLISHED, "linestyle": RELEASED_DASHES[model], "linewidth": 1.3}
        axes.plot(lines.depth, lines[column], **look, label=f"{model} (released)")


def _control(axes, rows: pd.DataFrame, column: str, label: str, dashes: str) -> None:
    """Mean over kinds and seeds of a control, in grey."""
    cells = rows.groupby("depth")[column].mean()
    axes.plot(cells.index, cells, color=CONTROL, linestyle=dashes, linewidth=1.4, label=label)


def _legend(figure: Figure, panels, columns: int = 3) -> None:
    entries = {}
    for axes in panels:
        entries |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, handlelength=2.6)


def _depth_axis(axes) -> None:
    axes.set(xlabel="depth (0: first layer, 1: last)", xlim=(-0.03, 1.03))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def zf_plot(rows: pd.DataFrame, slopes: dict[float, tuple[float, float]]) -> Figure:
    """|f| against |z| of some tokens of the first seed, a panel per kind, a colour per layer.

    Upper line: the bias as a feature and z raw (columns points_z, points_f); lower: without it and z centred (the same
    with `centred_`). `slopes`: c -> the edges of its wedge.
    """
    kinds, layers = _kinds(rows), sorted(rows.layer.unique())
    shades = dict(zip(layers, sns.color_palette("viridis", len(layers)), strict=True))
    figure, grid = _grid(2, len(kinds), figsize=(8, 6.4))
    first = rows[rows.seed == rows.seed.min()].sort_values("layer")
    for line, view, names in zip(grid, ("", "centred_"), (("z", "f"), ("z − b", "f without b")), strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            mine = first[first.architecture == kind]
            most = 1.04 * max(np.max(mine[f"{view}points_{name}"].tolist()) for name in "zf")
            for (_, (low, high)), shade in reversed(list(zip(slopes.items(), WEDGE_SHADES, strict=True))):
                axes.fill([0, most, most, 0], [0, low * most, min(high, 999) * most, 0], color=shade, linewidth=0)
            for c, (low, _) in slopes.items():
                angle = np.degrees(np.arctan(low))
                at = {"rotation": angle, "rotation_mode": "anchor", "ha": "right", "va": "top", "fontsize": 7}
                axes.text(0.985 * most, 0.985 * low * most, f"c = {c:g}", color="#5b7fa6", **at)
            axes.plot([0, most], [0, most], color="#c0392b", linestyle="--", linewidth=1.2)
            for row in mine.itertuples():
                z, f = getattr(row, f"{view}points_z"), getattr(row, f"{view}points_f")
                axes.scatter(z, f, s=5, color=shades[row.layer], alpha=0.6, linewidths=0)
            axes.set(xlim=(0, most), ylim=(0, most), aspect="equal", xlabel=f"‖{names[0]}‖")
            axes.grid(visible=False)
        line[0].set_ylabel(f"‖{names[1]}‖")
    for axes, kind in zip(grid[0], kinds, strict=True):
        axes.set_title(NAMES[kind])
    marks = [
        Line2D([], [], color=shades[one], marker="o", linestyle="", markersize=5, label=f"layer {one}")
        for one in layers
    ]
    marks += [Line2D([], [], color="#c0392b", linestyle="--", linewidth=1.2, label="‖f‖ = ‖z‖")]
    marks += [Patch(color=WEDGE_SHADES[0], label="wedges of c = ε(h − 1)")]
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    return figure


def ratios(rows: pd.DataFrame, released: pd.DataFrame, slopes: dict[float, tuple[float, float]]) -> Figure:
    """Median |f| / |z| with the bias (left) and without (middle), and the share of over-activated tokens (right)."""
    figure, panels = _panels(3, figsize=(8, 4))
    left, middle, right = panels
    for axes, view in ((left, ""), (middle, "centred_")):
        for (low, high), shade in reversed(list(zip(slopes.values(), WEDGE_SHADES, strict=True))):
            axes.axhspan(low, min(high, 9), color=shade, linewidth=0)
        axes.axhline(1, color="#c0392b", linestyle="--", linewidth=1)
        _control(axes, rows, f"untrained_{view}r", "before training", ":")
        _ours(axes, rows, f"{view}r")
        highest = rows[[f"{view}r", f"untrained_{view}r"]].max().max()
        axes.set(ylim=(0, max(1.2, 1.05 * highest)))
    _published(left, released, "r")
    _published(right, released, "over")
    _control(right, rows, "untrained_over", "before training", ":")
    _control(right, rows, "strangers_over", "codes of other tokens of the layer", "--")
    _ours(right, rows, "over")
    right.axhline(0.25, color=CONTROL, linewidth=0.8)
    left.set(ylabel="median ‖f‖ / ‖z‖", title="bias as a feature")
    middle.set(ylabel="median ‖f‖ / ‖z − b‖", title="without the bias")
    right.set(ylabel="tokens with ‖f‖ > ‖z‖", title="over-activated", ylim=(-0.02, 1.02))
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in panels:
        _depth_axis(axes)
    _legend(figure, (left, right))
    return figure


def _half_violin(axes, values: np.ndarray, at: float, side: int, colour) -> None:
    """Density of values to one side of `at`, its median as a dot and its quartiles as a bar."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    grid = np.linspace(values.min(), values.max(), 120)
    width = gaussian_kde(values)(grid) if np.ptp(values) > 0 else np.ones_like(grid)
    axes.fill_betweenx(grid, at, at + side * 0.42 * width / width.max(), color=colour, alpha=0.45, linewidth=0)
    inside = at + side * 0.09
    axes.plot([inside, inside], [low, high], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot(inside, middle, "o", color="white", markeredgecolor=colour, markersize=4.5, zorder=4)


def half_violins(rows: pd.DataFrame) -> Figure:
    """NMSE (left halves and axis) and (h - 1) eps_LBO (right ones) of the tokens of each layer, a panel per kind.

    From the quantiles of the first seed; clipped above at the 99 % quantile over all layers. Best and worst: the layer
    with the lowest and the highest median.
    """
    kinds = _kinds(rows)
    figure, grid = _grid(len(kinds), 1, figsize=(7.6, 2.6 * len(kinds)), sharex=True)
    first = rows[rows.seed == rows.seed.min()].sort_values("layer")
    for axes, kind in zip(grid[:, 0], kinds, strict=True):
        mine, other = first[first.architecture == kind], axes.twinx()
        for here, column, side, colour in ((axes, "nmse", -1, ERROR), (other, "gap", 1, BOUND)):
            values = np.stack(mine[f"{column}_quantiles"].tolist())
            values = values.clip(max=np.quantile(values, 0.99))
            for layer, of_layer in zip(mine.layer, values, strict=True):
                _half_violin(here, of_layer, layer, side, colour)
            top = 1.22 * values.max()
            here.set_ylim(0, top)
            medians = np.median(values, axis=1)
            marks = {"best": mine.layer.iloc[medians.argmin()], "worst": mine.layer.iloc[medians.argmax()]}
            for word, layer in marks.items():
                place = {"ha": "right" if side < 0 else "left", "va": "top", "fontsize": 8}
                here.text(layer + side * 0.06, 0.985 * top, word, color=colour, **place)
            here.tick_params(axis="y", colors=colour)
        other.grid(visible=False)
        other.spines["right"].set_visible(True)
        axes.set_title(NAMES[kind])
        axes.set_ylabel("NMSE of a token", color=ERROR)
        other.set(ylabel="(h − 1) ε_LBO", xlabel="layer")
        other.yaxis.label.set_color(BOUND)
    grid[-1, 0].set(xlabel="layer", xticks=sorted(rows.layer.unique()))
    for axes in grid[:-1, 0]:
        axes.set_xlabel("")
    return figure


def correlations(rows: pd.DataFrame, released: pd.DataFrame, pooled: pd.DataFrame) -> Figure:
    """Pearson of |z| and |f| within layers over depth, and of all layers together on the right of each panel.

    `pooled`: columns architecture, seed, view, pooled, layers.
    """
    figure, panels = _panels(2, figsize=(8, 4.2), sharey=True)
    for axes, view in zip(panels, ("", "centred_"), strict=True):
        axes.axhline(0, color=CONTROL, linewidth=0.8)
        _control(axes, rows, f"untrained_{view}corr", "before training, within a layer", ":")
        _ours(axes, rows, f"{view}corr")
        mine = pooled[pooled["view"] == view].groupby("architecture")[["pooled", "layers"]].mean()
        for place, kind in enumerate(_kinds(rows)):
            at = 1.12 + 0.07 * place
            axes.plot(at, mine["pooled"][kind], "D", color=COLOURS[kind], markersize=6)
            axes.plot(at, mine["layers"][kind], "D", color=COLOURS[kind], markersize=6, fillstyle="none")
        axes.axvline(1.06, color=CONTROL, linewidth=0.8)
        axes.set(xlabel="depth (0: first layer, 1: last)", xlim=(-0.03, 1.31))
        axes.set_xticks([0, 0.5, 1, 1.19], ["0", "0.5", "1", "pooled"])
    left, right = panels
    _published(left, released, "corr")
    left.set(ylabel="Pearson of the two norms", title="‖z‖ and ‖f‖, bias as a feature")
    left.set_ylim(min(-0.15, rows[["corr", "centred_corr"]].min().min() - 0.05), 1.05)
    right.set_title("‖z − b‖ and ‖f‖ without the bias")
    for fill, label in (("full", "pooled over layers"), ("none", "pooled, codes of other tokens")):
        left.plot([], [], "D", color=PUBLISHED, fillstyle=fill, markersize=6, label=label)
    _legend(figure, (left,))
    return figure


def gap_parts(rows: pd.DataFrame, released: pd.DataFrame) -> Figure:
    """Medians of interference and of shrinkage over |f|^2, and of their sum's size, over depth."""
    figure, panels = _panels(3, figsize=(8, 4), sharey=True)
    titles = {"gap_interference": "interference", "gap_shrinkage": "shrinkage", "gap": "both: (h − 1) ε_LBO"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        axes.axhline(0, color=CONTROL, linewidth=0.8)
        _control(axes, rows, f"shuffled_{column}", "rows of the dictionary shuffled", "--")
        _ours(axes, rows, column)
        _published(axes, released, column)
        axes.set_title(title)
        _depth_axis(axes)
    panels[0].set_ylabel("median over tokens, in units of ‖f‖²")
    _legend(figure, panels)
    return figure


def scores(rows: pd.DataFrame, released: pd.DataFrame, means: dict[str, float]) -> Figure:
    """Left: Spearman of NMSE and eps_LBO over the tokens of a layer; `means` are the published means over layers.
    Right: the medians of layers, lines in the order of the layers, the worst layer by each score marked."""
    figure, (left, right) = _panels(2, figsize=(8, 4.2))
    left.axhspan(-0.3, 0.3, color="#efefef", linewidth=0)
    left.axhline(0, color=CONTROL, linewidth=0.8)
    _ours(left, rows, "lbo_nmse")
    for model, mean in means.items():
        look = {"color": PUBLISHED, "linestyle": RELEASED_DASHES[model], "linewidth": 1.3}
        left.axhline(mean, **look, label=f"{model} (released)")
    left.set(ylabel="Spearman of NMSE and ε_LBO", title="over the tokens of a layer", ylim=(-1, 1))
    _depth_axis(left)
    lines = [
        (mine.groupby("layer")[["token_nmse", "gap"]].mean(), {"color": COLOURS[kind], "marker": "o"})
        for kind, mine in rows.groupby("architecture")
    ]
    lines += [
        (mine.set_index("layer")[["token_nmse", "gap"]], {"color": PUBLISHED, "linestyle": RELEASED_DASHES[model]})
        for model, mine in released.groupby("model")
    ]
    for medians, look in lines:
        right.plot(medians.token_nmse, medians.gap, **({"linewidth": 1.3, "markersize": 4} | look))
        for column, marker in (("token_nmse", ">"), ("gap", "^")):
            worst = medians.loc[medians[column].idxmax()]
            right.plot(worst.token_nmse, worst.gap, marker, color=look["color"], markersize=9, fillstyle="none")
    right.set(xlabel="median NMSE of a layer", ylabel="median (h − 1) ε_LBO", title="medians of layers")
    for marker, label in ((">", "worst layer by NMSE"), ("^", "worst layer by ε_LBO")):
        left.plot([], [], marker, color=PUBLISHED, fillstyle="none", markersize=9, label=label)
    _legend(figure, (left,))
    return figure
