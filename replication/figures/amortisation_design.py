"""Figures of the pages on what inference costs and on sparsity and design, for O'Neill et al. 2024."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from replication.figures import COLOURS, CONTROL, PUBLISHED, STYLE, _band, _legend_below, _panels

COLOUR_OF = {
    "sae": COLOURS["relu"],
    "sae, codes known": COLOURS["relu"],
    "mlp": COLOURS["gated"],
    "sparse coding": COLOURS["jumprelu"],
    "optimisation": COLOURS["jumprelu"],
    "fista": COLOURS["topk"],
    "oracle": COLOURS["topk"],
    "omp": COLOURS["matryoshka"],
    "lista": COLOURS["batchtopk"],
}
NAMES = {"sae": "SAE", "mlp": "MLP", "sparse coding": "sparse coding"}
THRESHOLD_DASHES = {"l0_above_0": ":", "l0_above_1e5": "-.", "l0_above_1e4": "-", "l0_above_1e3": "--"}
THRESHOLD_NAMES = {
    "l0_above_0": "above 0",
    "l0_above_1e5": "above 1e-5",
    "l0_above_1e4": "above 1e-4",
    "l0_above_1e3": "above 1e-3",
}


def compute_optimal(rows: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Latent MCC against operations per sample, a panel per size; columns method, name, effort, lr, flops_sample, mcc,
    mcc_best, chance, n_atoms, d_in, k, data_seed. Lines are methods with a dial, points are methods without one."""
    sizes = list(rows.groupby(["n_atoms", "d_in", "k"], sort=True))
    figure, panels = _panels(len(sizes), sharey=True, figsize=(8, 4.8))
    for axes, (size, here) in zip(panels, sizes, strict=True):
        axes.axhspan(here.chance.min(), here.chance.max(), color=CONTROL, alpha=0.3, linewidth=0)
        axes.axhline(here.chance.mean(), color=CONTROL, linestyle="--", label="chance: FISTA, random dictionary")
        shuffled = here[here.method == "shuffled codes"].mcc.mean()
        axes.axhline(shuffled, color=CONTROL, linestyle=":", label="chance: shuffled codes")
        for (method, lr), line in here[here.flops_sample.notna()].groupby(["method", "lr"], sort=False):
            if method not in COLOUR_OF:
                continue
            look = {"color": COLOUR_OF[method], "marker": "o", "markersize": 4}
            if method == "oracle":
                look |= {"marker": "*", "markersize": 11}
            if method == "sae, codes known":
                look |= {"marker": "D", "markerfacecolor": "none", "markersize": 6}
            label = line.name.iloc[0]
            if method == "optimisation":
                look |= {"linestyle": "-" if lr == line.lr.max() == 1e-3 else "--"}
                label += f", Adam {lr:g}"
            _band(axes, line, "flops_sample", "mcc", "effort", label=label, **look)
            if method in ("sae", "mlp"):
                best = line.groupby("effort")[["flops_sample", "mcc_best"]].mean()
                axes.plot(best.flops_sample, best.mcc_best, "^", color=COLOUR_OF[method], markerfacecolor="none")
        if size == (16, 8, 3):
            axes.plot(
                published.flops_sample, published.mcc, "x", color=PUBLISHED, label="stored results of the authors"
            )
        axes.set(xscale="log", xlabel="operations per sample, from x to codes", title="N={}, M={}, K={}".format(*size))
    panels[0].set(ylabel="latent MCC on test data", ylim=(0, 1.03))
    _legend_below(figure, panels[0])
    return figure


def times(rows: pd.DataFrame) -> Figure:
    """How many times as long as the SAE: a training step (left), the codes of a sample (right), against d_in N; columns
    method, effort, n_atoms, d_in, ms_step_ratio, us_sample_ratio."""
    figure, panels = _panels(2, figsize=(8, 4.6))
    table = rows.assign(size=rows.n_atoms * rows.d_in)
    for axes, column, what in zip(
        panels, ("ms_step_ratio", "us_sample_ratio"), ("a training step", "codes of a sample"), strict=True
    ):
        axes.axhline(1, color=CONTROL, linewidth=1)
        for (method, effort), line in table.dropna(subset=column).groupby(["method", "effort"], sort=False):
            line = line.sort_values("size")
            dashes = "--" if method == "mlp" and effort > 32 else "-"
            label = _labelled(method, effort)
            axes.plot(line["size"], line[column], color=COLOUR_OF[method], marker="o", linestyle=dashes, label=label)
        sizes = table.drop_duplicates("size").sort_values("size")
        axes.set(xscale="log", yscale="log", xlabel="size (N, M)", ylabel=f"time of {what} / the SAE's")
        axes.set_xticks(sizes["size"], [f"({n}, {d})" for n, d in zip(sizes.n_atoms, sizes.d_in, strict=True)])
        axes.minorticks_off()
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter("{x:g}")
    entries = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)
    return figure


def _labelled(method: str, effort: int) -> str:
    return {
        "sae": "SAE",
        "mlp": f"MLP, H = {effort}",
        "sparse coding": "sparse coding",
        "lista": f"LISTA, {effort} steps",
        "fista": f"FISTA, {effort} iterations",
        "optimisation": f"Adam on codes, {effort:,} steps",
        "omp": f"OMP, {effort} atoms",
        "oracle": "l0 oracle",
    }[method]


def counts(rows: pd.DataFrame) -> Figure:
    """Operations of one training step: released, corrected, and matrix products as torch counts them; a panel per size,
    columns n_atoms, d_in, method, step_released, step_corrected, step_counted."""
    sizes = list(rows.groupby(["n_atoms", "d_in"], sort=True))
    figure, panels = _panels(len(sizes), sharey=True, figsize=(8, 3.8))
    kinds = {"step_released": "released formula", "step_corrected": "corrected", "step_counted": "products, counted"}
    for axes, ((n, d), here) in zip(panels, sizes, strict=True):
        for place, method in enumerate(("sae", "sparse coding")):
            line = here[here.method == method]
            for shift, (column, kind) in enumerate(kinds.items()):
                axes.bar(
                    place + 0.27 * (shift - 1),
                    line[column].mean(),
                    width=0.24,
                    color=PUBLISHED if column == "step_released" else COLOUR_OF[method],
                    alpha=1 if column == "step_corrected" else 0.5,
                    label=kind if method == "sparse coding" else None,
                )
        axes.set_xticks((0, 1), ("SAE", "sparse coding"))
        axes.set(yscale="log", title=f"N={n}, M={d}", xlabel="method")
        axes.grid(axis="x", visible=False)
    panels[0].set_ylabel("operations of a training step")
    _legend_below(figure, panels[0])
    return figure


def _controls(axes, rows: pd.DataFrame, truth: bool = True) -> None:
    axes.axhline(rows.mcc_chance.mean(), color=CONTROL, linestyle="--", label="chance: FISTA, random dictionary")
    axes.axhline(rows.mcc_shuffled.mean(), color=CONTROL, linestyle=":", label="chance: shuffled codes")
    if truth:
        axes.axhline(rows.mcc_oracle.mean(), color=COLOUR_OF["oracle"], linestyle=":", label="true dictionary")


def sparsity(rows: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """L0 against MSE and MCC, w against MSE and MCC; columns method, l1, mse, mcc, l0_above_*, true_l0 and controls.

    Sparse coding has a line per threshold of L0; the others have exact zeros. The published points are black."""
    figure, panels = _panels(4, figsize=(11, 4.6))
    for axes, (x, y) in zip(panels, (("l0", "mse"), ("l0", "mcc"), ("l1", "mse"), ("l1", "mcc")), strict=True):
        if y == "mcc":
            _controls(axes, rows)
        for method, here in rows.groupby("method", sort=False):
            look = {"color": COLOUR_OF[method], "marker": "o", "markersize": 3.5}
            if x == "l1":
                _band(axes, here, "l1", y, "l1", label=NAMES[method], **look)
            elif method == "sparse coding":
                for column, dashes in THRESHOLD_DASHES.items():
                    label = f"{NAMES[method]}, {THRESHOLD_NAMES[column]}"
                    _band(axes, here, column, y, "l1", label=label, linestyle=dashes, **look)
            else:
                _band(axes, here, "l0_above_1e4", y, "l1", label=NAMES[method], **look)
        if y == "mcc":
            for method, line in published.dropna(subset=x).groupby("method", sort=False):
                look = {"color": COLOUR_OF[method], "markeredgecolor": PUBLISHED, "markeredgewidth": 0.6}
                look |= {"marker": "X", "markersize": 7, "linestyle": "none"}
                axes.plot(line[x], line.mcc, label=f"{NAMES[method]}, stored results", zorder=4, **look)
        if x == "l0":
            axes.axvline(rows.true_l0.iloc[0], color=PUBLISHED, linewidth=1, label="true L0")
            axes.set_xlabel("L0, share of latents")
        else:
            axes.set(xscale="log", xlabel="weight w of the penalty")
        axes.set_ylabel("latent MCC" if y == "mcc" else "MSE on test data")
        if y == "mse":
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.03)
    _legend_below(figure, panels[1])
    return figure


def kept_latents(rows: pd.DataFrame, true_l0: float) -> Figure:
    """Inference top-k: share of latents kept against MSE and MCC, a panel pair per method and a line per w; columns
    method, l1, l0, mse, mcc."""
    methods = list(rows.groupby("method", sort=False))
    figure, panels = _panels(2 * len(methods), figsize=(11, 4))
    weights = sorted(rows.l1.unique())
    shades = np.linspace(0.2, 1, len(weights))
    for at, (method, here) in enumerate(methods):
        for axes, column in zip(panels[2 * at : 2 * at + 2], ("mse", "mcc"), strict=True):
            for shade, (w, line) in zip(shades, here.groupby("l1", sort=True), strict=True):
                means = line.groupby("l0")[column].mean()
                axes.plot(means.index, means, color=COLOUR_OF[method], alpha=shade, marker=".", label=f"w = {w:g}")
            axes.axvline(true_l0, color=PUBLISHED, linewidth=1)
            axes.set(xlabel="share of latents kept", title=NAMES[method])
            axes.set_ylabel("latent MCC" if column == "mcc" else "MSE on test data")
            axes.set(ylim=(0, 1.03)) if column == "mcc" else axes.set(yscale="log")
    panels[1].legend(fontsize=7.5, loc="best")
    return figure


def choices(table: pd.DataFrame) -> Figure:
    """MCC on the second half of the test data, at the w that each criterion picks on the first; columns method,
    criterion, mcc. A dot per data seed, a bar at the mean."""
    figure, (axes,) = _panels(1, figsize=(8, 3.8))
    criteria = list(dict.fromkeys(table.criterion))
    for place, (method, here) in enumerate(table.groupby("method", sort=False)):
        for shift, criterion in enumerate(criteria):
            values = here[here.criterion == criterion].mcc
            at = place + 0.27 * (shift - (len(criteria) - 1) / 2)
            alpha = 0.25 + 0.25 * shift
            axes.bar(at, values.mean(), width=0.24, color=COLOUR_OF[method], alpha=alpha, edgecolor=COLOUR_OF[method])
            axes.plot([at] * len(values), values, "o", color=COLOUR_OF[method], markersize=4)
    names = list(dict.fromkeys(table.method))
    axes.set_xticks(range(len(names)), [NAMES[name] for name in names])
    axes.set(xlabel="method; bars from light to dark: " + ", ".join(criteria), ylabel="latent MCC", ylim=(0, 1.03))
    axes.xaxis.label.set_fontsize(8.5)
    axes.grid(axis="x", visible=False)
    return figure


def widths(rows: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Hidden width of the MLP against MSE, latent MCC and dictionary MCC; columns hidden, mse, mcc, dictionary_mcc and
    controls."""
    figure, panels = _panels(3, figsize=(10, 4))
    first = rows.iloc[0]
    stored = f"({first.n_atoms}, {first.d_in}, {first.k})"
    for axes, (column, label) in zip(
        panels,
        (("mse", "MSE on test data"), ("mcc", "latent MCC"), ("dictionary_mcc", "dictionary MCC (Pearson)")),
        strict=True,
    ):
        _band(axes, rows, "hidden", column, "hidden", color=COLOUR_OF["mlp"], marker="o", label="MLP, ours")
        if column == "mcc":
            _controls(axes, rows, truth=False)
            if stored in published:
                axes.plot(published.hidden, published[stored], "x-", color=PUBLISHED, label="stored results")
        if column == "dictionary_mcc":
            axes.axhline(rows.dictionary_mcc_chance.mean(), color=CONTROL, linestyle="-.", label="chance: random rows")
        axes.set(xscale="log", xlabel="hidden width H", ylabel=label)
        axes.set_xticks(sorted(rows.hidden.unique()), [str(h) for h in sorted(rows.hidden.unique())])
        axes.minorticks_off()
    entries = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)
    return figure


def biases(rows: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Without and with encoder bias: MSE, latent MCC, dictionary MCC and its cosine version; columns method, bias, mse,
    mcc, dictionary_mcc, dictionary_cosine and controls. A dot per run, a bar at the mean, black bars published."""
    figure, panels = _panels(4, figsize=(11, 3.8))
    measured = {
        "mse": ("MSE on test data", None),
        "mcc": ("latent MCC", "mcc_chance"),
        "dictionary_mcc": ("dictionary MCC (Pearson)", "dictionary_mcc_chance"),
        "dictionary_cosine": ("dictionary MCC (cosine)", "dictionary_cosine_chance"),
    }
    methods = list(dict.fromkeys(rows.method))
    for axes, (column, (label, chance)) in zip(panels, measured.items(), strict=True):
        if chance:
            axes.axhline(rows[chance].mean(), color=CONTROL, linestyle="--", label="chance")
        for place, (method, bias) in enumerate((m, b) for m in methods for b in (False, True)):
            values = rows[(rows.method == method) & (rows.bias == bias)][column]
            look = {"color": COLOUR_OF[method], "alpha": 0.25, "edgecolor": COLOUR_OF[method]}
            axes.bar(place, values.mean(), width=0.6, linestyle="--" if bias else "-", **look)
            axes.plot([place] * len(values), values, "o", color=COLOUR_OF[method], markersize=4)
            stored = f"{column}_bias" if bias else column
            if stored in published:
                value = published[published.method == method][stored].iloc[0]
                axes.plot([place - 0.35, place + 0.35], [value] * 2, color=PUBLISHED, linewidth=2)
        names = [f"{NAMES[m]}\n{b}" for m in methods for b in ("no bias", "bias")]
        axes.set_xticks(range(len(names)), names, fontsize=7.5)
        axes.set_ylabel(label)
        axes.grid(axis="x", visible=False)
    return figure


def grams(rows: pd.DataFrame) -> Figure:
    """Softmax over each row of D D^T: a column per method and the true atoms, a row per number of latents; columns
    method, width, n_atoms, gram, gram_atoms."""
    plt.style.use(STYLE)
    methods, sizes = list(dict.fromkeys(rows.method)), sorted(rows.width.unique())
    figure, axes = plt.subplots(
        len(sizes), len(methods) + 1, squeeze=False, figsize=(2.2 * len(methods) + 2.2, 2.2 * len(sizes))
    )
    plt.close(figure)
    for line, width in zip(axes, sizes, strict=True):
        here = rows[rows.width == width]
        shown = {NAMES[one]: here[here.method == one].gram.iloc[0] for one in methods}
        shown |= {"true atoms": here.gram_atoms.iloc[0]}
        for place, (name, gram) in zip(line, shown.items(), strict=True):
            values = np.exp(np.asarray(gram, dtype=float))
            values /= values.sum(axis=1, keepdims=True)
            drawn = place.imshow(values * len(values), cmap="viridis", vmin=0, vmax=2.7)
            place.set(title=f"{name}, {len(values)} rows", xlabel="row")
            place.grid(visible=False)
            place.title.set_fontsize(9)
            place.tick_params(labelsize=7)
        line[0].set_ylabel("row")
    label = "softmax of a row, times its length: 1 is the same for all"
    figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, label=label)
    return figure
