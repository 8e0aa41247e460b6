"""One function per figure: a tidy table in, a matplotlib figure out. Nothing is computed here that a claim reads.

Bands run from the lowest to the highest seed around the mean over seeds. Every architecture has one colour in every
chapter; controls are grey, published values black.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

STYLE = Path(__file__).with_name("style.mplstyle")
_PALETTE = sns.color_palette("colorblind")
NAMES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "matryoshka": "Matryoshka BatchTopK",
    "relu": "ReLU + L1",
    "gated": "Gated",
    "jumprelu": "JumpReLU",
    "prolu": "ProLU",
    "topafa": "top-AFA",
}
COLOURS = dict(zip(NAMES, (_PALETTE[i] for i in (0, 9, 2, 3, 1, 4, 5, 8)), strict=True))
CONTROL, PUBLISHED = "#8a8a8a", "#111111"


def named(name: str) -> Callable[..., Figure]:
    """The function a paper means: "frontier" is one of this module, "scaling.joint_law" one of `figures.scaling`."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(f"{__name__}.{module}" if module else __name__), function)


def _panels(count: int, **kwargs) -> tuple[Figure, list]:
    plt.style.use(STYLE)
    figure, axes = plt.subplots(1, count, squeeze=False, **kwargs)
    plt.close(figure)  # out of pyplot's list: a notebook shows the returned figure once, not twice
    return figure, list(axes[0])


def _plain_log(axis, ticks=(1, 2, 5)) -> None:
    """A logarithmic axis labelled 0.1, 0.2, 0.5 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=ticks))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _band(axes, rows: pd.DataFrame, x: str, y: str, setting: str, **style) -> None:
    """Mean of x and y at each setting of the dial, the range over seeds shaded."""
    cells = rows.groupby(setting)
    at, mean = cells[x].mean(), cells[y].mean()
    order = at.sort_values().index
    axes.fill_between(
        at[order], cells[y].min()[order], cells[y].max()[order], color=style["color"], alpha=0.2, linewidth=0
    )
    axes.plot(at[order], mean[order], **style)


def frontier(table: pd.DataFrame, published: dict | None = None) -> Figure:
    """NMSE against L0, one panel per dictionary size; columns d_sae, architecture, sparsity, l0, nmse and controls.

    `published`: {"l0": (low, high), "nmse": (low, high), "label": text}, the range of the paper's figure.
    """
    sizes = sorted(table.d_sae.unique())
    figure, panels = _panels(len(sizes), sharey=True, figsize=(8, 4.3))
    for axes, n in zip(panels, sizes, strict=True):
        here = table[table.d_sae == n]
        if published:
            (x0, x1), (y0, y1) = published["l0"], published["nmse"]
            axes.add_patch(
                Rectangle(
                    (x0, y0),
                    x1 - x0,
                    y1 - y0,
                    facecolor="none",
                    edgecolor=PUBLISHED,
                    linewidth=1,
                    linestyle=(0, (4, 3)),
                    label=published["label"],
                )
            )
        axes.axhline(1, color=CONTROL, linewidth=1, label="mean predictor")
        topk = here[here.architecture == "topk"]
        for column, dashes, label in (
            ("nmse_pca", (1, 1.5), "principal components, as many as L0"),
            ("nmse_untrained", (5, 2), "TopK before training"),
        ):
            control = topk.groupby("sparsity")[["l0", column]].mean()
            control = control[control[column] > 0]
            axes.plot(control.l0, control[column], color=CONTROL, linestyle=(0, dashes), linewidth=1.4, label=label)
        for name, marker in (("relu", "s"), ("topk", "o")):
            _band(
                axes,
                here[here.architecture == name],
                "l0",
                "nmse",
                "sparsity",
                color=COLOURS[name],
                marker=marker,
                label=NAMES[name],
            )
        axes.set(xscale="log", yscale="log", xlabel="L0 (active latents per token)", title=f"n = {n:,} latents")
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
    panels[0].set_ylabel("NMSE (1 = predicting the mean)")
    _legend_below(figure, panels[0])
    return figure


def error_gap(gap: pd.DataFrame) -> Figure:
    """NMSE of ReLU over NMSE of TopK at equal L0, against dictionary size; columns d_sae, seed, k, l0, gap (a log)."""
    figure, (axes,) = _panels(1, figsize=(5.4, 3.6))
    shades = sns.color_palette("crest", gap.k.nunique())
    for colour, (k, cell) in zip(shades, gap.dropna().groupby("k"), strict=False):
        ratio = cell.assign(ratio=np.exp(cell.gap))
        _band(axes, ratio, "d_sae", "ratio", "d_sae", color=colour, marker="o", label=f"L0 = k = {k:g}")
    axes.axhline(1, color=CONTROL, linewidth=1, label="no gap")
    axes.set(xlabel="n (latents)", ylabel="NMSE of ReLU / NMSE of TopK")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(gap.d_sae.unique()), [f"{n:,}" for n in sorted(gap.d_sae.unique())], minor=False)
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def training_curves(table: pd.DataFrame) -> Figure:
    """Training error (over the variance of the first sample) against tokens, one line per run; columns curve_*."""
    figure, panels = _panels(2, sharey=True, figsize=(8, 4.6))
    for axes, name in zip(panels, ("topk", "relu"), strict=True):
        rows = table[table.architecture == name].drop_duplicates(["d_sae", "sparsity"])
        for n, style in zip(sorted(rows.d_sae.unique()), ("-", "--", ":", "-."), strict=False):
            cells = rows[rows.d_sae == n].sort_values("sparsity")
            for alpha, row in zip(np.linspace(0.35, 1, len(cells)), cells.itertuples(), strict=True):
                symbol = "k" if name == "topk" else "λ"
                axes.plot(
                    row.curve_tokens,
                    row.curve_error,
                    style,
                    color=COLOURS[name],
                    alpha=alpha,
                    linewidth=1.3,
                    label=f"n={n:,}, {symbol}={row.sparsity:g}",
                )
        axes.set(xscale="log", yscale="log", xlabel="training tokens", title=NAMES[name])
        _plain_log(axes.yaxis)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0].set_ylabel("training error / variance")
    return figure


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


STEP_PANELS = (("topk", 0.1), ("batchtopk", 0.1), ("jumprelu", 0.0))  # method, share of dead latents
STEP_LOOKS = {  # colour and marker; this library has the colour of the method
    "replication": (None, "o"),
    "plain autograd": (PUBLISHED, "x"),
    "eai-sparsify": ("#5f5f5f", "s"),
    "dictionary-learning": ("#7d7d7d", "^"),
    "sae-lens": ("#9b9b9b", "D"),
}
STEP_DASHES = {"fp32": "--", "tf32": "-.", "bf16": "-"}
PART_COLOURS = dict(
    zip(
        ("encoder product", "top-k", "decode", "gradients", "Adam, projection", "rest", "AuxK"),
        [*sns.color_palette("crest", 5), "#d0d0d0", COLOURS["jumprelu"]],
        strict=True,
    )
)


def step_times(table: pd.DataFrame) -> Figure:
    """Milliseconds of a step against n, a panel per method; columns implementation, method, dead, precision, n, d, ms.

    Solid lines are products in bf16, dashed ones in fp32, dash-dotted ones in TF32.
    """
    shown = [panel for panel in STEP_PANELS if ((table.method == panel[0]) & (table.dead == panel[1])).any()]
    figure, panels = _panels(len(shown), sharey=True, figsize=(8, 4.4))
    floor = table[table.implementation == "floor"].sort_values("n")
    for axes, (method, dead) in zip(panels, shown, strict=True):
        axes.plot(floor.n, floor.ms, color=CONTROL, linestyle=":", label="floor (TopK, no AuxK)")
        here = table[(table.method == method) & (table.dead == dead)]
        for name, (colour, marker) in STEP_LOOKS.items():
            for precision, line in here[here.implementation == name].sort_values("n").groupby("precision"):
                look = {"color": colour or COLOURS[method], "marker": marker, "linestyle": STEP_DASHES[precision]}
                label = "this library" if name == "replication" else name
                axes.plot(line.n, line.ms, **look, zorder=3 if colour is None else 2, label=f"{label}, {precision}")
        title = NAMES[method] + (f", {dead:.0%} dead" if dead else "")
        axes.set(xscale="log", yscale="log", xlabel="n (latents)", title=title)
        sizes = table.dropna(subset="n").drop_duplicates("n").sort_values("n")
        axes.set_xticks(sizes.n, [f"{int(n):,}\nd={int(d)}" for n, d in zip(sizes.n, sizes.d, strict=True)])
        axes.minorticks_off()
        _plain_log(axes.yaxis)
        axes.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("time of one step (ms)")
    entries = {}
    for axes in panels:  # this library stands once, in the first panel's colour
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)
    return figure


def step_table(table: pd.DataFrame) -> pd.DataFrame:
    """Our steps, a line per method (with AuxK where latents are dead) and n, and how many times as long others take.

    Of an implementation in several precisions the fastest counts; `in floors` is this library's step over the floor.
    """
    keys, ours = ["method", "dead", "n"], "replication"
    rows = table[table.implementation.isin(STEP_LOOKS) & table.method.isin(NAMES)].dropna(subset="ms").sort_values("ms")
    rows = rows.astype({"n": int}).drop_duplicates([*keys, "implementation"])
    rows["method"] = pd.Categorical(rows.method, [name for name in NAMES if name in set(rows.method)], ordered=True)
    wide = rows.pivot(index=keys, columns="implementation", values="ratio_to_ours").sort_index()
    wide = wide[[name for name in STEP_LOOKS if name in wide and name != ours]]
    wide = wide.map(lambda ratio: f"{ratio:.1f}×", na_action="ignore")
    mine = rows[rows.implementation == ours].set_index(keys)
    wide.insert(0, "ours, ms", mine.ms.map("{:.1f}".format))
    wide.insert(1, "in floors", mine.ratio_to_floor.map("{:.1f}".format))
    wide = wide.rename_axis(columns=None).reset_index()
    names = [NAMES[name] + " + AuxK" * (dead > 0) for name, dead in zip(wide.method, wide.dead, strict=True)]
    return wide.assign(method=names, n=wide.n.map("{:,}".format)).drop(columns="dead")


def step_parts(parts: pd.DataFrame) -> Figure:
    """Where a step goes: one bar per size, the share of each part; columns part, d, n, ms."""
    sizes = list(parts.groupby(["n", "d"], sort=True))
    figure, (axes,) = _panels(1, figsize=(8, 0.9 + 0.65 * len(sizes)))
    names = []
    for place, ((n, d), rows) in enumerate(sizes):
        ms, left = rows.set_index("part").ms, 0.0
        for part, colour in PART_COLOURS.items():
            share = ms[part] / ms.sum()
            axes.barh(place, share, left=left, height=0.62, color=colour, label=part if place == 0 else None)
            if share > 0.045:
                ink = "black" if sum(to_rgb(colour)) > 1.4 else "white"
                axes.text(left + share / 2, place, f"{ms[part]:.2g}", ha="center", va="center", fontsize=8.5, color=ink)
            left += share
        names.append(f"n={n:,}, d={d}\n{ms.sum():.3g} ms")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1), xlabel="share of the step (numbers: ms)", ylabel="size, time of the step")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _legend_below(figure: Figure, axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
