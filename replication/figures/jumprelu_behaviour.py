"""Figures of the page on how latents behave: frequencies, what the token says, position, uniformity."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from replication.figures import COLOURS, CONTROL, NAMES, PUBLISHED, _band, _legend_below, _panels, _plain_log

MARKERS = {"jumprelu": "o", "topk": "s", "gated": "D"}
SITE_LOOKS = {  # name, colour, marker
    "attn": ("attention heads", sns.color_palette("colorblind")[2], "^"),
    "mlp": ("MLP output", sns.color_palette("colorblind")[1], "s"),
    "res": ("residual stream", COLOURS["jumprelu"], "o"),
}
CONTROLS = {
    "permuted": ((1, 1.5), "control: tokens in a random order"),
    "untrained": ((5, 2), "control: untrained, equal frequency"),
}


def _types(table: pd.DataFrame) -> list[str]:
    return [name for name in MARKERS if (table.architecture == name).any()]


def _look(name: str) -> dict:
    return {"color": COLOURS[name], "marker": MARKERS[name], "label": NAMES[name]}


def frequent(table: pd.DataFrame, published: int) -> Figure:
    """Latents active on more than 10 % and 1 % of the tokens against L0; columns architecture, sparsity, l0, above_0.1,
    above_0.01, d_sae. `published`: the paper's largest count above 10 %."""
    figure, panels = _panels(2, figsize=(8, 4))
    for axes, share in zip(panels, (0.1, 0.01), strict=True):
        for name in _types(table):
            _band(axes, table[table.architecture == name], "l0", f"above_{share:g}", "sparsity", **_look(name))
        axes.set(xscale="log", xlabel="L0 (active latents per token)", title=f"on more than {share:.0%} of tokens")
        l0 = np.geomspace(table.l0.min(), table.l0.max(), 50)
        most = np.minimum(l0 / share, table.d_sae.iloc[0])
        top = 1.08 * max(table[f"above_{share:g}"].max(), published if share == 0.1 else 0)
        axes.plot(l0, most, color=CONTROL, linestyle=(0, (1, 1.5)), label="as many as L0 allows")
        axes.set_ylim(0, top)
        _plain_log(axes.xaxis)
    panels[0].axhline(published, color=PUBLISHED, linewidth=1, linestyle="--", label=f"paper: at most {published}")
    panels[0].set_ylabel(f"latents, of {table.d_sae.iloc[0]:,}")
    _legend_below(figure, panels[0])
    return figure


def histograms(lines: pd.DataFrame) -> Figure:
    """Histograms of log10 frequency, a panel per architecture, a line per dial (mean over seeds, the lighter the
    sparser); columns architecture, sparsity, l0, left, right, latents."""
    names = _types(lines)
    figure, panels = _panels(len(names), sharey=True, sharex=True, figsize=(8.4, 3.4))
    for axes, name in zip(panels, names, strict=True):
        here = lines[lines.architecture == name]
        order = here.groupby("sparsity").l0.mean().sort_values()
        for alpha, (dial, l0) in zip(np.linspace(0.35, 1, len(order)), order.items(), strict=True):
            bins = here[here.sparsity == dial].groupby(["left", "right"]).latents.mean().reset_index()
            edges = np.append(bins.left, bins.right.iloc[-1])
            axes.stairs(bins.latents, edges, color=COLOURS[name], alpha=alpha, linewidth=1.6, label=f"L0 {l0:.0f}")
        axes.axvline(0.1, color=PUBLISHED, linewidth=0.9, linestyle=":")
        axes.set(xscale="log", xlabel="share of tokens with the latent", title=NAMES[name])
        axes.legend(loc="upper left")
    panels[0].set_ylabel("latents per eighth of a decade")
    panels[0].set_xlim(lines[lines.latents > 0].left.min(), 1)
    return figure


def score_by_frequency(lines: pd.DataFrame) -> Figure:
    """Mean score of the latents in each bin of frequency, a panel per architecture, a line per dial, with the controls;
    columns architecture, sparsity, l0, kind, frequency, score."""
    names = _types(lines)
    figure, panels = _panels(len(names), sharey=True, sharex=True, figsize=(8.4, 3.9))
    for axes, name in zip(panels, names, strict=True):
        here = lines[lines.architecture == name]
        for kind, (dashes, label) in CONTROLS.items():
            control = here[here.kind == kind].groupby("frequency").score.mean()
            axes.plot(control.index, control, color=CONTROL, linestyle=(0, dashes), label=label)
        trained = here[here.kind == "trained"]
        order = trained.groupby("sparsity").l0.mean().sort_values()
        for alpha, dial in zip(np.linspace(0.35, 1, len(order)), order.index, strict=True):
            mean = trained[trained.sparsity == dial].groupby("frequency").score.mean()
            look = {"color": COLOURS[name], "alpha": alpha, "marker": MARKERS[name], "markersize": 3.5}
            axes.plot(mean.index, mean, **look, label="trained; light to dark: L0 grows" if alpha == 1 else None)
        axes.axvline(0.1, color=PUBLISHED, linewidth=0.9, linestyle=":", label="a tenth of the tokens")
        axes.set(xscale="log", xlabel="share of tokens with the latent", title=NAMES[name], ylim=(-0.08, 1.02))
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("score: correlation with\nthe token's mean")
    _legend_below(figure, panels[0])
    return figure


def scores(table: pd.DataFrame) -> Figure:
    """Mean score and share of latents that score above 0.9 against L0; columns architecture, sparsity, l0, scored,
    interpretable, score, and their controls _permuted, _untrained."""
    table = table.astype({"score": float, "score_permuted": float, "score_untrained": float})
    for ending in ("", "_permuted", "_untrained"):
        share = table[f"interpretable{ending}"] / table[f"scored{ending}"].clip(lower=1)
        table = table.assign(**{f"share{ending}": share})
    figure, panels = _panels(2, figsize=(8, 4.2))
    for axes, column in zip(panels, ("score", "share"), strict=True):
        for name in _types(table):
            means = table[table.architecture == name].groupby("sparsity").mean(numeric_only=True).sort_values("l0")
            for kind, (dashes, label) in CONTROLS.items():
                look = {"color": CONTROL, "marker": MARKERS[name], "markersize": 3.5, "linewidth": 1.2}
                label = label if name == _types(table)[0] else None
                axes.plot(means.l0, means[f"{column}_{kind}"], linestyle=(0, dashes), label=label, **look)
            _band(axes, table[table.architecture == name], "l0", column, "sparsity", **_look(name))
        axes.set(xscale="log", xlabel="L0 (active latents per token)")
        _plain_log(axes.xaxis)
    panels[0].set(title="mean score", ylabel="correlation with the token's mean")
    panels[1].set(title="share of scores above 0.9")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _legend_below(figure, panels[0])
    return figure


POSITION_BINS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def positions(lines: pd.DataFrame) -> Figure:
    """Error, share of variance unexplained, rise in cross-entropy over the position, a colour per site; columns site,
    seed, position, error, fvu, delta_ce. The last is averaged over the positions of POSITION_BINS."""
    figure, panels = _panels(3, figsize=(8.6, 3.8))
    titles = {
        "error": ("reconstruction error", "mean |x - recon|², E|x|² = 1"),
        "fvu": ("over the variance there", "error / variance at the position"),
        "delta_ce": ("rise in cross-entropy", "nats per token"),
    }
    for axes, (column, (title, label)) in zip(panels, titles.items(), strict=True):
        for site, (name, colour, _) in SITE_LOOKS.items():
            here = lines[(lines.site == site) & lines[column].notna()]
            if column == "delta_ce":
                place = pd.cut(here.position, POSITION_BINS, right=False, labels=False)
                here = here.groupby([place.rename("position"), "seed"])[["position", column]].mean()
                here = here.assign(bin=here.index.get_level_values("position")).reset_index(drop=True)
                _band(axes, here, "position", column, "bin", color=colour, label=name, linewidth=1.4, marker="o")
            elif len(here):
                _band(axes, here, "position", column, "position", color=colour, label=name, linewidth=1.4)
        axes.set(xscale="log", xlabel="position in the context", title=title, ylabel=label)
        _plain_log(axes.xaxis)
        axes.xaxis.set_major_formatter("{x:g}")
    for axes in panels[:2]:
        axes.set_ylim(bottom=0)
    panels[2].axhline(0, color=CONTROL, linewidth=1)
    _legend_below(figure, panels[0])
    return figure


SIDES = {"x": "-", "recon": "--", "other": (0, (1, 1.5))}


def _uniformity(table: pd.DataFrame, groups: dict, published: tuple[float, float]) -> Figure:
    """e^S (left) and r_L0 (right) against L0; `groups`: (column, value) -> label, colour, marker."""
    figure, (left, right) = _panels(2, figsize=(8, 4.6))
    l0 = np.array([table.l0.min(), table.l0.max()])
    left.plot(l0, l0, color=CONTROL, linewidth=1, label="all equal")
    right.axhline(1, color=CONTROL, linewidth=1)
    right.axhspan(*published, color=PUBLISHED, alpha=0.07, linewidth=0, label="axis of the paper's figure")
    for (column, value), (label, colour, marker) in groups.items():
        here = table[table[column] == value]
        for side, line in SIDES.items() if len(here) else ():
            look = {"color": CONTROL if side == "other" else colour, "linestyle": line, "marker": marker}
            look |= {"markersize": 4, "label": label if side == "x" else None}
            for axes, column in ((left, "effective"), (right, "ratio")):
                _band(axes, here, "l0", f"{column}_{side}", "sparsity", **look)
    for axes in (left, right):
        axes.set(xscale="log", xlabel="L0 (active latents per token)")
        _plain_log(axes.xaxis)
    left.set(yscale="log", ylabel="effective number of latents, e^S", title="effective number")
    _plain_log(left.yaxis)
    right.set(ylabel="r_L0 = e^S / L0", title="share of the active ones")
    right.set_ylim(min(0.44, table[[f"ratio_{side}" for side in SIDES]].min(axis=None) - 0.04), 1.03)
    handles, labels = left.get_legend_handles_labels()
    handles += right.get_legend_handles_labels()[0]
    labels += right.get_legend_handles_labels()[1]
    names = ("gradient at x", "gradient at the reconstruction", "control: gradient of another token")
    for (side, line), name in zip(SIDES.items(), names, strict=True):
        colour = CONTROL if side == "other" else PUBLISHED
        handles.append(plt.Line2D([], [], color=colour, linestyle=line))
        labels.append(name)
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3)
    return figure


def uniformity_by_type(table: pd.DataFrame, published: tuple[float, float]) -> Figure:
    """Columns architecture, sparsity, l0, effective_ and ratio_ of x, recon, other."""
    groups = {("architecture", name): (NAMES[name], COLOURS[name], MARKERS[name]) for name in _types(table)}
    return _uniformity(table, groups, published)


def uniformity_by_site(table: pd.DataFrame, published: tuple[float, float]) -> Figure:
    """Columns site, sparsity, l0, effective_ and ratio_ of x, recon, other."""
    return _uniformity(table, {("site", site): look for site, look in SITE_LOOKS.items()}, published)
