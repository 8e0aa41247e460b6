"""Codes changed after training: latents refitted on their support, and other numbers of latents at test time."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replication.figures import COLOURS, CONTROL, NAMES, _band, _legend_below, _panels, _plain_log

LOOKS = {  # colour, marker and name of a way of training
    "relu": {"color": COLOURS["relu"], "marker": "s", "label": NAMES["relu"]},
    "topk": {"color": COLOURS["topk"], "marker": "o", "label": NAMES["topk"]},
    "multi": {"color": "#b5338a", "marker": "D", "label": "Multi-TopK"},
}
DASHED = (0, (4, 2))


def refinement(table: pd.DataFrame) -> Figure:
    """Sum of latents after / before the fit and mean |change| of an active latent, against L0; columns architecture,
    sparsity, l0, ratio, change. Shaded: the corridor of claim C21 around no bias."""
    figure, panels = _panels(2, figsize=(8, 3.9))
    panels[0].axhspan(0.95, 1.05, color=CONTROL, alpha=0.25, linewidth=0, label="within 5 % of no bias")
    for axes, column in zip(panels, ("ratio", "change"), strict=True):
        for name in ("relu", "topk"):
            _band(axes, table[table.architecture == name], "l0", column, "sparsity", **LOOKS[name])
        axes.set(xscale="log", xlabel="L0 (active latents per token)")
        _plain_log(axes.xaxis)
    panels[0].set_ylabel("sum of latents, after / before")
    panels[1].set_ylabel("mean |change| of an active latent")
    panels[1].set_ylim(bottom=0)
    _legend_below(figure, panels[0])
    return figure


def refinement_errors(table: pd.DataFrame) -> Figure:
    """NMSE and downstream loss before (solid) and after (dashed) the fit, against L0; columns of `refinement`."""
    figure, panels = _panels(2, figsize=(8, 4.8))
    topk = table[table.architecture == "topk"]
    grey = {"color": CONTROL, "linewidth": 1.4}
    for axes, column in zip(panels, ("nmse", "delta_ce"), strict=True):
        for name in ("relu", "topk"):
            cells, look = table[table.architecture == name], LOOKS[name]
            _band(axes, cells, "l0", column, "sparsity", **look)
            after = look | {"label": f"{look['label']}, refitted", "linestyle": DASHED, "markerfacecolor": "white"}
            _band(axes, cells, "l0", f"{column}_refined", "sparsity", **after)
        axes.axvline(
            table.d_in.iloc[0] / 4, color=CONTROL, linewidth=0.8, linestyle=":", label="a quarter of the width"
        )
        axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per token)")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    for column, style, label in (
        ("nmse_rescaled", (0, (1, 1)), "ReLU + L1, all latents times one factor"),
        ("nmse_pca", "-.", "principal components, as many as L0"),
        ("nmse_untrained", "-", "TopK before training"),
        ("nmse_untrained_refined", DASHED, "TopK before training, refitted"),
    ):
        rows = table[table.architecture == "relu"] if column == "nmse_rescaled" else topk
        line = rows.groupby("sparsity")[["l0", column]].mean().sort_values("l0")
        color = {"color": COLOURS["relu"]} if column == "nmse_rescaled" else {}
        panels[0].plot(line.l0, line[column], linestyle=style, label=label, **(grey | color))
    panels[0].set_ylabel("NMSE (1 = predicting the mean)")
    panels[1].set_ylabel("rise in cross-entropy (nats per token)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=3.2)
    return figure


def test_time(points: pd.DataFrame) -> Figure:
    """NMSE against mean L0 at test time: solid TopK(k'), dashed one threshold; a panel per k of training and one for
    ReLU. A large marker stands at what training used; columns of `papers.gao2024.codes.curves`."""
    ks = sorted(points[points.series == "topk"].sparsity.unique())
    figure, panels = _panels(len(ks) + 1, sharey=True, figsize=(9, 4.3))
    for axes, k in zip(panels, ks, strict=False):
        cells = points[points.sparsity == k]
        for name in ("topk", "multi"):
            _two_rules(axes, cells[cells.series == name], LOOKS[name])
        control = cells[cells.series == "topk"].groupby("k_test")[["nmse_pca", "nmse_untrained"]].mean()
        axes.plot(control.index, control.nmse_pca, color=CONTROL, linestyle="-.", linewidth=1.4)
        axes.plot(control.index, control.nmse_untrained, color=CONTROL, linewidth=1.4)
        axes.set_title(f"trained with k = {k:g}")
    relu = points[points.series == "relu"]
    for shade, (_, cells) in zip((1, 0.7, 0.45, 0.3, 0.2), relu.groupby("sparsity"), strict=False):
        _two_rules(panels[-1], cells, LOOKS["relu"] | {"alpha": shade})
    panels[-1].set_title("trained with ReLU + L1")
    for axes in panels:
        axes.axhline(1, color=CONTROL, linewidth=1, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="mean L0 at test time")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    lowest = points[["nmse_topk", "nmse_jump"]].min(axis=None)
    panels[0].set(ylabel="NMSE (1 = predicting the mean)", ylim=(0.8 * lowest, None))
    handles = [Line2D([], [], **look) for look in LOOKS.values()] + [
        Line2D([], [], color="black", label="TopK(k') at test time"),
        Line2D([], [], color="black", linestyle=DASHED, label="one threshold at test time"),
        Line2D([], [], color=CONTROL, label="TopK before training"),
        Line2D([], [], color=CONTROL, linestyle="-.", label="as many principal components"),
        Line2D([], [], color=CONTROL, linestyle=":", label="mean predictor"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.6)
    return figure


def _two_rules(axes, cells: pd.DataFrame, look: dict) -> None:
    """One series under both rules, with its mark where the number of latents is that of training."""
    plain = {key: value for key, value in look.items() if key not in ("marker", "label")}
    _band(axes, cells, "l0_topk", "nmse_topk", "multiple", **plain)
    _band(axes, cells, "l0_jump", "nmse_jump", "multiple", **plain, linestyle=DASHED)
    trained = cells[cells.multiple == 1]
    axes.plot([trained.l0_topk.mean()], [trained.nmse_topk.mean()], markersize=7, **look)


def test_time_downstream(points: pd.DataFrame) -> Figure:
    """NMSE and downstream loss under TopK(k') at the k of training and at larger k'; columns series, sparsity,
    multiple, nmse, delta_ce."""
    figure, panels = _panels(2, figsize=(8, 3.9))
    for axes, column in zip(panels, ("nmse", "delta_ce"), strict=True):
        for name in ("topk", "multi"):
            for style, (k, cells) in zip(
                ("-", DASHED), points[points.series == name].groupby("sparsity"), strict=False
            ):
                look = LOOKS[name] | {"label": f"{LOOKS[name]['label']}, k = {k:g}", "linestyle": style}
                _band(axes, cells, "multiple", column, "multiple", **look)
        multiples = sorted(points.multiple.unique())
        axes.set(xlabel="latents kept at test time / k of training", xticks=multiples, ylim=(0, None))
    panels[0].set_ylabel("NMSE (1 = predicting the mean)")
    panels[1].set_ylabel("rise in cross-entropy (nats per token)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3.2)
    return figure
