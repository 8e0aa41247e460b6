"""top-AFA beside TopK and BatchTopK on a language model. Tables have the columns `layer`, `method` and `dial`."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, _band, _panels, _plain_log

MARKERS = {"topk": ("o", "-"), "batchtopk": ("s", "--"), "topafa": ("D", "-.")}
FLOOR = "ReLU alone"


def _look(method: str) -> dict:
    marker, line = MARKERS[method]
    return {"color": COLOURS[method], "marker": marker, "linestyle": line, "label": NAMES[method]}


def _shades(values) -> dict:
    """A shade of the colour of top-AFA for each value, dark for large ones."""
    values = sorted(values)
    return dict(zip(values, sns.blend_palette([COLOURS["topafa"], "#b07d00", "#4a2c00"], len(values)), strict=True))


def error_against_l0(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """The paper's NMSE against L0/d, a panel per layer, with the released runs of its three layers in grey-black.

    `table`: layer, method, variant, dial, seed, l0_over_d, lee_nmse, step_var; `published`: layer, method, l0_over_d,
    lee_nmse. Stars: the setting with the lowest mean NMSE, with the standard deviation of a minibatch (thin) and the
    range over seeds (thick).
    """
    table = table[table.variant == ""]
    layers, theirs = sorted(table.layer.unique()), sorted(published.layer.unique())
    figure, panels = _panels(len(layers), sharey=True, figsize=(9.2, 4.6))
    for number, (axes, layer) in enumerate(zip(panels, layers, strict=True)):
        here = table[table.layer == layer]
        paper = published[published.layer == theirs[number]]
        for method, (marker, line) in MARKERS.items():
            runs = paper[paper.method == method].sort_values("l0_over_d")
            axes.plot(
                runs.l0_over_d,
                runs.lee_nmse,
                color=PUBLISHED,
                alpha=0.35,
                marker=marker,
                markersize=3.5,
                markerfacecolor="none",
                linestyle=line,
                linewidth=0.8,
                label=f"paper, {NAMES[method]}",
            )
        floor = here[here.method == "floor"]
        if len(floor):
            axes.axhline(floor.lee_nmse.mean(), color=CONTROL, linestyle=(0, (5, 2)), linewidth=1.2, label=FLOOR)
        axes.axvline(1, color=CONTROL, linestyle=":", linewidth=1.2, label="L0 = d")
        for method in MARKERS:
            if len(runs := here[here.method == method]):
                _band(axes, runs, "l0_over_d", "lee_nmse", "dial", **_look(method))
                _star(axes, runs, COLOURS[method])
        axes.set(xscale="log", yscale="log", xlabel="L0 / d", title=f"layer {layer:g} (paper's layer {theirs[number]})")
        _plain_log(axes.xaxis, (1, 3))
        axes.xaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("NMSE of standardised tokens")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _star(axes, runs: pd.DataFrame, colour) -> None:
    """The setting with the lowest mean error: bars of one minibatch's deviation and of the seeds' range."""
    best = runs[runs.dial == runs.groupby("dial").lee_nmse.mean().idxmin()]
    x, y, noise = best.l0_over_d.mean(), best.lee_nmse.mean(), best.step_var.mean() ** 0.5
    axes.vlines(x, y - min(noise, 0.9 * y), y + noise, color="black", linewidth=0.9, zorder=4)
    axes.vlines(x, best.lee_nmse.min(), best.lee_nmse.max(), color="black", linewidth=3, zorder=4)
    axes.plot(x, y, marker="*", markersize=13, color=colour, markeredgecolor="black", markeredgewidth=0.7, zorder=5)


def lambda_sweep(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """L0/d and relative NMSE of top-AFA against lambda d; columns layer, dial, l0_over_d, relative."""
    figure, panels = _panels(2, figsize=(8.6, 3.9))
    markers = ("o", "s", "^", "D")
    for axes, column in zip(panels, ("l0_over_d", "relative"), strict=True):
        for marker, (layer, runs) in zip(markers, published.groupby("layer"), strict=False):
            runs = runs.sort_values("dial")
            look = {"color": PUBLISHED, "alpha": 0.4, "linewidth": 0.8, "markersize": 4, "markerfacecolor": "none"}
            axes.plot(runs.dial, runs[column], marker=marker, **look, label=f"paper, layer {layer}")
        shades = _shades(table.layer.unique())
        for marker, (layer, runs) in zip(markers, table.groupby("layer"), strict=False):
            _band(axes, runs, "dial", column, "dial", color=shades[layer], marker=marker, label=f"layer {layer:g}")
        axes.set(xscale="log", yscale="log", xlabel="λ d")
        ticks = sorted({*table.dial, *published.dial.round(6)})
        axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
        axes.minorticks_off()
    panels[0].axhline(1, color=CONTROL, linestyle=":", linewidth=1.2)
    panels[0].set_ylabel("L0 / d")
    panels[1].set_ylabel("NMSE / NMSE at λ d = 24")
    _plain_log(panels[0].yaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def l0_per_token(table: pd.DataFrame) -> Figure:
    """Quantiles over held-out tokens of L0/d: top-AFA per lambda, TopK and BatchTopK at the nearest mean L0.

    The middle layer; columns layer, method, variant, dial, l0, width, l0_quantiles (21, from 0 to 100 %).
    """
    table = table[
        (table.variant == "") & (table.layer == sorted(table.layer.unique())[(table.layer.nunique() - 1) // 2])
    ]
    figure, (axes,) = _panels(1, figsize=(7.4, 4.2))
    shares = np.linspace(0, 100, 21)
    afa = table[table.method == "topafa"]
    for dial, shade in _shades(afa.dial.unique()).items():
        axes.plot(shares, _quantiles(afa[afa.dial == dial]), color=shade, label=f"top-AFA, λ d = {dial:g}")
    for method in ("topk", "batchtopk"):
        runs = table[table.method == method]
        means = runs.groupby("dial").l0.mean()
        nearest = (np.log(means) - np.log(afa.l0.mean())).abs().idxmin()
        line = _quantiles(runs[runs.dial == nearest])
        look = {"color": COLOURS[method], "linestyle": MARKERS[method][1]}
        axes.plot(shares, line, **look, label=f"{NAMES[method]}, k/d = {nearest:.2g}")
    axes.set(xlabel="share of held-out tokens with at most this L0 (%)", ylabel="L0 / d", ylim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _quantiles(runs: pd.DataFrame) -> np.ndarray:
    """Mean over seeds of the quantiles of L0, over d."""
    return np.mean([np.asarray(one) / width for one, width in zip(runs.l0_quantiles, runs.width, strict=True)], axis=0)


def norms(table: pd.DataFrame) -> Figure:
    """Left: median and quartiles of |f| / |x - b_dec|. Right: L0 over positive pre-activations, at start and end.

    Columns layer, method, dial, ratio_25, ratio_50, ratio_75, kept, kept_start; top-AFA against lambda d, a mark per
    layer.
    """
    afa = table[table.method == "topafa"]
    figure, (left, right) = _panels(2, figsize=(8.6, 3.9))
    layers = sorted(afa.layer.unique())
    for number, (layer, shade) in enumerate(_shades(layers).items()):
        cells = afa[afa.layer == layer].groupby("dial")
        shown = cells[["ratio_25", "ratio_50", "ratio_75", "kept", "kept_start"]].mean()
        at = shown.index * 1.06 ** (number - (len(layers) - 1) / 2)
        reach = np.array([shown.ratio_50 - shown.ratio_25, shown.ratio_75 - shown.ratio_50])
        marker = "os^D"[number]
        left.errorbar(at, shown.ratio_50, yerr=reach, color=shade, marker=marker, capsize=3, label=f"layer {layer:g}")
        right.plot(at, shown.kept, color=shade, marker=marker, label=f"layer {layer:g}")
        right.plot(
            at, shown.kept_start, color=CONTROL, marker=marker, linestyle="--", label=f"layer {layer:g}, untrained"
        )
    left.axhspan(0.95, 1.05, color=CONTROL, alpha=0.15, linewidth=0)
    left.axhline(1, color=CONTROL, linewidth=1)
    right.axhline(1, color=CONTROL, linewidth=1)
    left.set_ylabel("‖f‖ / ‖x − b_dec‖")
    right.set_ylabel("L0 / positive pre-activations")
    right.set_ylim(0, 1.05)
    for axes in (left, right):
        axes.set(xscale="log", xlabel="λ d")
        axes.set_xticks(sorted(afa.dial.unique()), [f"{one:g}" for one in sorted(afa.dial.unique())])
        axes.minorticks_off()
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def controls(shown: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """NMSE against L0/d of top-AFA with one thing changed, over the line of TopK; `shown`: name, layer, l0_over_d,
    lee_nmse; `table`: layer, method, dial, l0_over_d, lee_nmse."""
    figure, (axes,) = _panels(1, figsize=(8, 4.4))
    topk = table[(table.layer == shown.layer.iloc[0]) & (table.method == "topk")]
    _band(axes, topk, "l0_over_d", "lee_nmse", "dial", **_look("topk"))
    axes.axvline(1, color=CONTROL, linestyle=":", linewidth=1.2, label="L0 = d")
    names = [name for name in shown.name.cat.categories if (shown.name == name).any()]
    colours = [COLOURS["topafa"], *sns.color_palette("husl", len(names) - 2), CONTROL]
    for name, colour, marker in zip(names, colours, "*oPXv^<>sDph", strict=False):
        runs = shown[shown.name == name]
        x, y = runs.l0_over_d.mean(), runs.lee_nmse.mean()
        axes.vlines(x, runs.lee_nmse.min(), runs.lee_nmse.max(), color=colour, linewidth=2)
        axes.hlines(y, runs.l0_over_d.min(), runs.l0_over_d.max(), color=colour, linewidth=2)
        size = 14 if marker == "*" else 8
        look = {"color": colour, "marker": marker, "markersize": size, "markeredgecolor": "black"}
        axes.plot(x, y, **look, markeredgewidth=0.6, linestyle="none", label=name, zorder=4)
    axes.set(xscale="log", yscale="log", xlabel="L0 / d", ylabel="NMSE of standardised tokens")
    _plain_log(axes.xaxis)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def training_curves(table: pd.DataFrame) -> Figure:
    """Training error (over the variance of the first sample) against tokens, a panel per method, a line per setting of
    the dial; the middle layer, mean over seeds. Columns layer, method, dial, curve_tokens, curve_error."""
    table = table[table.layer == sorted(table.layer.unique())[(table.layer.nunique() - 1) // 2]]
    figure, panels = _panels(len(MARKERS), sharey=True, figsize=(8.8, 4.0))
    for axes, method in zip(panels, MARKERS, strict=True):
        cells = table[table.method == method].groupby("dial")
        shades = dict(zip(cells.groups, sns.blend_palette([COLOURS[method], "#222222"], len(cells) + 1), strict=False))
        for dial, runs in cells:
            curve = np.mean(runs.curve_error.tolist(), axis=0)
            name = f"λ d = {dial:g}" if method == "topafa" else f"k/d = {dial:.2g}"
            axes.plot(runs.curve_tokens.iloc[0], curve, color=shades[dial], linewidth=1.4, label=name)
        axes.set(xscale="log", yscale="log", title=NAMES[method], xlabel="training tokens")
        axes.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("training error / variance")
    return figure
