"""One function per figure: a tidy table in, a matplotlib figure out. Nothing is computed here that a claim reads.

Bands run from the lowest to the highest seed around the mean over seeds. Every architecture has one colour in every
chapter; controls are grey, published values black.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
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
    """The function a paper means: "step_times" is one of this module, "frontier.error_gap" of `figures.frontier`."""
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
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, handlelength=3.2)
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
