"""Figures of the page on how JumpReLU trains: functions and their pseudo-derivatives, the window, what theta does."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _legend_below, _panels, _plain_log

JUMP, OTHER = COLOURS["jumprelu"], COLOURS["topk"]
WRONG = COLOURS["relu"]
KERNEL_LOOKS = {
    "rectangle": (JUMP, "-"),
    "triangle": (OTHER, "--"),
    "gaussian": (COLOURS["batchtopk"], "-."),
    "epanechnikov": (COLOURS["matryoshka"], ":"),
}
VARIANT_LOOKS = {  # colour, marker, line
    "reference": (CONTROL, "o", "-"),
    "triangle": (OTHER, "^", "none"),
    "gaussian": (COLOURS["batchtopk"], "D", "none"),
    "epanechnikov": (COLOURS["matryoshka"], "s", "none"),
    "target L0": (JUMP, "s", "none"),
    "into pre-activations": (WRONG, "X", "none"),
}


def estimators(table: pd.DataFrame) -> Figure:
    """JumpReLU and the step function with their pseudo-derivatives in theta over z; right: all kernels.

    Columns function, kernel, z, value, derivative, theta, bandwidth.
    """
    figure, (left, middle, right) = _panels(3, figsize=(8.4, 3.4))
    theta, bandwidth = table.theta.iloc[0], table.bandwidth.iloc[0]
    for axes, name in ((left, "JumpReLU"), (middle, "step")):
        here = table[(table.function == name) & (table.kernel == "rectangle")]
        axes.axvspan(theta - bandwidth / 2, theta + bandwidth / 2, color=CONTROL, alpha=0.15, linewidth=0)
        below, above = here[here.value == 0], here[here.value > 0]
        axes.plot(below.z, below.value, color=PUBLISHED, linewidth=2.2, label="function of z")
        axes.plot(above.z, above.value, color=PUBLISHED, linewidth=2.2)
        look = {"color": JUMP, "linewidth": 2.2, "label": "pseudo-derivative in θ"}
        axes.step(here.z, here.derivative, where="mid", **look)
        axes.set(xlabel="pre-activation z", xticks=[0, theta], xticklabels=["0", "θ"])
    left.set(ylabel="value", title="z H(z − θ)", ylim=(-5.6, 2.1))
    middle.set(title="H(z − θ)", ylim=(-5.6, 2.1))
    for kernel, (colour, line) in KERNEL_LOOKS.items():
        here = table[(table.function == "step") & (table.kernel == kernel)]
        right.plot(here.z - theta, -here.derivative, color=colour, linestyle=line, label=kernel)
    right.set(xlabel="z − θ", ylabel="K((z − θ) / ε) / ε", title="kernels of one variance", ylim=(0, None))
    right.set_xlim(-2 * bandwidth, 2 * bandwidth)
    handles = [axes.get_legend_handles_labels() for axes in (left, right)]
    figure.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="outside lower center", ncols=3)
    return figure


def sketch(rows: pd.DataFrame) -> Figure:
    """Densities of one pre-activation where its atom is active and where not, and what three rules make of it.

    Columns edges, active, inactive, best_theta, and false_, magnitude_ of relu, lowered, jump; the first seed is drawn.
    """
    row = rows.sort_values("seed").iloc[0]
    edges, theta = np.array(row.edges), row.best_theta
    rules = (
        ("ReLU", "relu", lambda z: np.maximum(z, 0)),
        ("ReLU, lower bias", "lowered", lambda z: np.maximum(z - theta, 0)),
        ("JumpReLU", "jump", lambda z: np.where(z > theta, z, 0)),
    )
    figure, panels = _panels(4, figsize=(8.6, 3.3), sharex=True)
    highest = max(*row.active, *row.inactive)
    for axes in panels:
        for name, colour, label in (("inactive", CONTROL, "atom not in x"), ("active", JUMP, "atom in x")):
            strength = 1.0 if axes is panels[0] else 0.45
            axes.stairs(row[name], edges, fill=True, color=colour, alpha=0.45 * strength, label=label)
        axes.axvline(theta, color=PUBLISHED, linewidth=0.9, linestyle=":", label="θ")
        axes.set(xlabel="pre-activation z", ylim=(0, 1.45 * highest), xlim=(edges[0], 0.9))
        axes.grid(visible=False)
    panels[0].set(ylabel="density", title="truth")
    z = np.linspace(edges[0], 0.9, 601)
    for axes, (title, name, rule) in zip(panels[1:], rules, strict=True):
        axes.plot(z, rule(z) * highest, color=PUBLISHED, linewidth=1.8, label="latent (slope 1 where on)")
        axes.set(title=title, yticks=[])
        passing, size = row[f"false_{name}"], row[f"magnitude_{name}"]
        text = f"lets through {passing:.0%} of the\ninactive; active ones at\n{size:.2f} of their size"
        axes.text(0.02, 0.98, text, transform=axes.transAxes, va="top", fontsize=8)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def window(rows: pd.DataFrame) -> Figure:
    """Left: density of one pre-activation with the window around theta. Right: mean of I over pre, and lambda.

    Columns window_edges, window_density, gain, theta, penalty, bandwidth, gain_on, gain_off; the first seed is drawn.
    """
    row = rows.sort_values("seed").iloc[0]
    edges, theta = np.array(row.window_edges), row.theta
    centres = (edges[1:] + edges[:-1]) / 2
    figure, (left, right) = _panels(2, figsize=(8, 3.6), sharex=True)
    left.stairs(row.window_density, edges, fill=True, color=CONTROL, alpha=0.4)
    at_theta = float(np.interp(theta, centres, row.window_density))
    e = row.bandwidth
    left.axvspan(theta - e / 2, theta + e / 2, color=JUMP, alpha=0.3, linewidth=0, label=f"window, ε = {e:g}")
    left.plot(theta, at_theta, "o", color=PUBLISHED, label="p(θ)")
    left.set(xlabel="pre-activation", ylabel="density p", title="how many samples see θ")
    left.legend(loc="best")
    off = centres < theta
    for side, label, colour in ((off, "latent off", CONTROL), (~off, "latent on", JUMP)):
        right.plot(centres[side], np.array(row.gain)[side], color=colour, label=label)
    middle = (row.gain_on + row.gain_off) / 2
    right.plot(theta, middle, "o", color=PUBLISHED, label="mean of both sides at θ")
    right.axhline(row.penalty, color=WRONG, linestyle="--", label="λ")
    right.axvline(theta, color=PUBLISHED, linewidth=0.9, linestyle=":")
    right.set(
        xlabel="pre-activation",
        ylabel="mean of I = 2 θ d · (x − recon)",
        title="what the latent is worth",
        xlim=(edges[0], edges[-1]),
    )
    right.legend(loc="best")
    return figure


def gradient(rows: pd.DataFrame, earlier: Mapping) -> Figure:
    """Left: relative error of the gradient against the bandwidth, right estimator and wrong one. Right: gradients of
    single latents at the smallest bandwidth. `earlier`: {"difference": number, "ste": {bandwidth: number}}."""
    figure, (left, right) = _panels(2, figsize=(8, 4.2))
    looks = ((False, JUMP, "o", "step of the pre-activations"), (True, WRONG, "X", "control: step after the jump"))
    smallest = rows[rows.bandwidth == rows.bandwidth.min()]
    ends = [np.inf, -np.inf]
    for wrong, colour, marker, label in looks:
        look = {"color": colour, "marker": marker, "label": label}
        _band(left, rows[rows.after_jump == wrong], "bandwidth", "relative_error", "bandwidth", **look)
        here = smallest[smallest.after_jump == wrong]
        exact, found = np.concatenate(here.difference.tolist()), np.concatenate(here.ste.tolist())
        right.plot(exact, found, marker, color=colour, markersize=4, alpha=0.6, linestyle="none")
        ends = [min(ends[0], exact.min(), found.min()), max(ends[1], exact.max(), found.max())]
    left.axhline(rows.noise.mean(), color=CONTROL, linestyle=":", label="noise of the finite difference")
    difference = earlier["difference"]
    errors = {bandwidth: value / difference - 1 for bandwidth, value in earlier["ste"].items()}
    left.plot(errors.keys(), errors.values(), "x", color=PUBLISHED, label="earlier check, one latent")
    left.set(xscale="log", yscale="log", xlabel="bandwidth ε", ylabel="relative error of the gradient")
    _plain_log(left.xaxis)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    right.plot(ends, ends, color=CONTROL, linewidth=1)
    right.set(xlabel="finite difference", ylabel=f"pseudo-derivative, ε = {smallest.bandwidth.iloc[0]:g}")
    right.set_title("∂E[loss] / ∂θ, every latent")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def reach(rows: pd.DataFrame, published: Mapping[float, float]) -> Figure:
    """L0 and the largest thresholds against lambda, raw and logarithmic, at each rate; dashed: `limit`.

    Columns sparsity, lr, log_threshold, l0, theta_90, limit, threshold; `published`: lambda -> L0.
    """
    figure, (left, right) = _panels(2, figsize=(8.2, 4.8))
    rates = sorted(rows.lr.unique(), reverse=True)
    for (log, colour), (rate, marker) in (
        (a, b) for a in ((False, JUMP), (True, OTHER)) for b in zip(rates, "os", strict=False)
    ):
        here = rows[(rows.log_threshold == log) & (rows.lr == rate)]
        look = {"color": colour, "marker": marker, "linestyle": "-" if rate == rates[0] else "--"}
        look["label"] = f"{'log' if log else 'raw'} θ, rate {rate:g}"
        _band(left, here, "sparsity", "l0", "sparsity", **look)
        _band(right, here, "sparsity", "theta_90", "sparsity", **look)
        right.axhline(here.limit.iloc[0], color=colour, linestyle=look["linestyle"], linewidth=0.8, alpha=0.6)
    points = {penalty: l0 for penalty, l0 in published.items() if penalty > 0}
    left.plot(points.keys(), points.values(), "x:", color=PUBLISHED, linewidth=0.9, label="users of SAELens")
    right.axhline(rows.threshold.iloc[0], color=CONTROL, linewidth=1, label="start")
    left.set(xscale="log", yscale="log", xlabel="λ", ylabel="L0 (active latents per sample)")
    right.set(xscale="log", yscale="log", xlabel="λ", ylabel="θ, 90th percentile over latents")
    for axes in (left, right):
        _plain_log(axes.yaxis)
        axes.yaxis.set_major_formatter("{x:g}")
    handles, labels = left.get_legend_handles_labels()
    figure.legend([*handles, right.lines[-1]], [*labels, "start of θ"], loc="outside lower center", ncols=3)
    return figure


def bandwidth(rows: pd.DataFrame) -> Figure:
    """L0 at fixed lambda, thresholds over their start, and NMSE against L0, all by bandwidth.

    Columns bandwidth, sparsity, seed, l0, nmse, theta_10, theta_50, theta_90, threshold.
    """
    base = rows.groupby("bandwidth").sparsity.nunique().idxmax()
    penalties = sorted(rows[rows.bandwidth != base].sparsity.unique())
    cells = rows[rows.sparsity.isin(penalties)]
    figure, (left, middle, right) = _panels(3, figsize=(8.8, 4.2))
    shades = sns.light_palette(JUMP, len(penalties) + 2)[2:]
    for penalty, shade in zip(penalties, shades, strict=True):
        here = cells[cells.sparsity == penalty]
        look = {"color": shade, "marker": "o", "label": f"λ = {penalty:g}"}
        _band(left, here, "bandwidth", "l0", "bandwidth", **look)
        moved = here.assign(**{name: here[name] / here.threshold for name in ("theta_10", "theta_50", "theta_90")})
        _band(middle, moved, "bandwidth", "theta_50", "bandwidth", **look)
        ends = moved.groupby("bandwidth")[["theta_10", "theta_90"]].mean()
        middle.vlines(ends.index, ends.theta_10, ends.theta_90, color=shade, linewidth=1, alpha=0.7)
    middle.axhline(1, color=CONTROL, linewidth=1)
    left.set(ylabel="L0", title="L0 at fixed λ")
    middle.set(ylabel="θ / its start", title="travel of θ")
    for axes in (left, middle):
        axes.set(xscale="log", yscale="log", xlabel="bandwidth ε")
        axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1], ["0.0001", "0.001", "0.01", "0.1"], fontsize=8)
        axes.minorticks_off()
        _plain_log(axes.yaxis)
    widths = sorted(rows.bandwidth.unique())
    colours = sns.color_palette("viridis", len(widths))
    for width, colour in zip(widths, colours, strict=True):
        here = rows[rows.bandwidth == width]
        line = (
            {"color": CONTROL, "marker": ".", "linestyle": "-"}
            if width == base
            else {"color": colour, "marker": "s", "linestyle": "none"}
        )
        _drawn(right, here, "l0", "nmse", "sparsity", **line, label=f"ε = {width:g}")
    right.set(xscale="log", yscale="log", xlabel="L0", ylabel="NMSE", title="error at equal L0")
    _plain_log(right.xaxis)
    _plain_log(right.yaxis)
    handles = [axes.get_legend_handles_labels() for axes in (left, right)]
    figure.legend(handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="outside lower center", ncols=4)
    return figure


def frontier(rows: pd.DataFrame) -> Figure:
    """NMSE against L0, and its ratio to the reference's at equal L0.

    Columns variant, sparsity, target_l0, l0, nmse, and for the logarithm of the ratio g (NaN where L0 is not matched).
    """
    figure, (left, right) = _panels(2, figsize=(8, 4.2))
    _against_l0(left, rows)
    right.axhspan(-0.05, 0.05, color=CONTROL, alpha=0.15, linewidth=0)
    right.axhline(0, color=CONTROL, linewidth=1.2)
    for name, here in rows.dropna(subset="g").groupby("variant"):
        if name != "reference":
            colour, marker, _ = VARIANT_LOOKS[name]
            right.plot(here.l0, here.g, marker, color=colour, alpha=0.75, linestyle="none")
    right.set(xscale="log", xlabel="L0 (active latents per sample)", ylabel="g = ln(NMSE / NMSE of the reference)")
    widest = max(0.1, 1.15 * rows.g.abs().max()) if rows.g.notna().any() else 0.1
    right.set(ylim=(-widest, widest), title="at equal L0, every run")
    _plain_log(right.xaxis)
    right.margins(x=0.1)
    _legend_below(figure, left)
    return figure


def into_pre(rows: pd.DataFrame) -> Figure:
    """NMSE against L0 and the share of dead latents against lambda, with pseudo-derivatives into the pre-activations
    and without, one column of panels per bandwidth; columns variant, bandwidth, sparsity, l0, nmse, dead."""
    widths = sorted(rows.bandwidth.unique())
    figure, panels = _panels(2 * len(widths), figsize=(4.4 * len(widths), 4.0))
    for i, width in enumerate(widths):
        here, (left, right) = rows[rows.bandwidth == width], panels[2 * i : 2 * i + 2]
        _against_l0(left, here)
        left.set(title=f"ε = {width:g}", xlabel="L0")
        for name, cell in here.groupby("variant"):
            colour, marker, line = VARIANT_LOOKS[name]
            look = {"color": colour, "marker": marker, "linestyle": line}
            _drawn(right, cell, "sparsity", "dead", "sparsity", **look)
        right.set(xscale="log", xlabel="λ", ylabel="dead latents", ylim=(0, 1), title=f"ε = {width:g}")
        right.set_xlim(rows.sparsity.min() / 1.5, rows.sparsity.max() * 1.5)
        right.xaxis.set_minor_formatter(NullFormatter())
        right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend_below(figure, panels[0])
    return figure


def _drawn(axes, rows: pd.DataFrame, x: str, y: str, setting: str, **look) -> None:
    """A line with the band over seeds, or, of a look without a line, markers with bars over seeds."""
    if look["linestyle"] != "none":
        _band(axes, rows, x, y, setting, **look)
        return
    cells = rows.groupby(setting)
    at, low, high = cells[x].mean(), cells[y].min(), cells[y].max()
    axes.vlines(at, low, high, color=look["color"], linewidth=1)
    axes.plot(at, cells[y].mean(), **look)


def _against_l0(axes, rows: pd.DataFrame) -> None:
    for name, (colour, marker, line) in VARIANT_LOOKS.items():
        here = rows[rows.variant == name]
        if len(here):
            dial = here.target_l0.fillna(here.sparsity)
            look = {"color": colour, "marker": marker, "linestyle": line, "label": name}
            _drawn(axes, here.assign(dial=dial), "l0", "nmse", "dial", **look)
    axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per sample)", ylabel="NMSE")
    _plain_log(axes.xaxis)
    _plain_log(axes.yaxis)
