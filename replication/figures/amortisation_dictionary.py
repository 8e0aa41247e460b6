"""Figures of the page on inference and dictionary: the matrix, the parts of the gap, and new compositions."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels, _plain_log

INFERENCE, DICTIONARY = COLOURS["gated"], "#56637a"
KNOWN, NEW = "#7aa6c2", "#b3541e"  # compositions
PURSUIT = "#5b3a8c"
LOOKS = {  # colour and line of what is learned from compositions
    "ReLU SAE, untuned": (COLOURS["relu"], ":"),
    "ReLU SAE, tuned": (COLOURS["relu"], "-"),
    "ReLU SAE, λ = 0.1": (COLOURS["relu"], "-"),
    "JumpReLU SAE, tuned": (COLOURS["jumprelu"], "-"),
    "TopK SAE": (COLOURS["topk"], "-"),
    "TopK SAE, rate × 4": (COLOURS["topk"], ":"),
    "MP-SAE": (PURSUIT, "-"),
    "DL-FISTA": (COLOURS["matryoshka"], "-"),
    "DL-FISTA from ReLU": (COLOURS["matryoshka"], ":"),
    "DL-FISTA from TopK": (COLOURS["matryoshka"], "--"),
}
ROWS = ("true", "DL-FISTA", "sparse coding", "TopK", "SAE", "MLP", "random")
COLUMNS = ("own encoder", "ReLU encoder", "per-sample Adam", "matching pursuit", "OMP", "LISTA", "FISTA", "l0 oracle")


def matrix(table: pd.DataFrame) -> Figure:
    """Latent MCC of every dictionary (row) with every inference (column), a panel per size; a number in each field.

    Columns of `table`: n_atoms, d_in, k, dictionary, inference, mcc.
    """
    sizes = list(table.groupby(["n_atoms", "d_in", "k"]))
    figure, panels = _panels(len(sizes), figsize=(9.5, 4.4), sharey=True)
    for axes, ((n, m, k), here) in zip(panels, sizes, strict=True):
        wide = here.pivot(index="dictionary", columns="inference", values="mcc").reindex(index=ROWS, columns=COLUMNS)
        image = axes.imshow(wide, cmap="viridis", vmin=0.2, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            if np.isfinite(value):
                ink = "white" if value < 0.65 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=ink)
        axes.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=40, ha="right")
        axes.set(xlabel="inference", title=f"N = {n}, M = {m}, K = {k}")
        axes.grid(visible=False)
    panels[0].set_yticks(range(len(ROWS)), ROWS)
    panels[0].set_ylabel("dictionary")
    figure.colorbar(image, ax=panels, shrink=0.8).ax.set_ylabel("latent MCC, test samples")
    return figure


def parts(table: pd.DataFrame) -> Figure:
    """Bars of the gap to the oracle: what inference on the same dictionary closes, what the dictionary holds back.

    Columns of `table`: regime, label, inference, dictionary_part; in latent MCC, one line per bar.
    """
    figure, (axes,) = _panels(1, figsize=(8.5, 1.2 + 0.3 * (len(table) + table.regime.nunique())))
    place, ticks = 0.0, []
    for regime, bars in table.groupby("regime", sort=False):
        axes.text(0, place, regime, fontsize=9, fontweight="bold", va="center")
        for row in bars.itertuples():
            place += 1
            ticks.append((place, row.label))
            first = len(ticks) == 1
            axes.barh(place, row.inference, color=INFERENCE, label="inference" if first else None)
            left = max(row.inference, 0)
            axes.barh(place, row.dictionary_part, left=left, color=DICTIONARY, label="dictionary" if first else None)
            share = row.dictionary_part / (row.inference + row.dictionary_part)
            axes.text(left + row.dictionary_part + 0.01, place, f"{share:.0%}", va="center", fontsize=8)
        place += 1.4
    axes.set_yticks(*zip(*ticks, strict=True), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=PUBLISHED, linewidth=0.8)
    axes.set_xlabel("gap to the oracle in latent MCC (number: the dictionary's share)")
    axes.set_ylabel("method")
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def compositions(points: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Latent MCC of known and of new compositions, a panel per n, a row per method; lines: range over data seeds.

    Filled: the encoder's codes; hollow: FISTA on its dictionary; crosses: published, new compositions only.
    """
    atoms = sorted(points.n_atoms.unique())
    labels = [label for label in LOOKS if label in set(points.label)]
    figure, panels = _panels(len(atoms), figsize=(9.5, 1.6 + 0.55 * len(labels)), sharey=True)
    for axes, n in zip(panels, atoms, strict=True):
        here = points[points.n_atoms == n]
        for kind, colour, marker, shift in (("id", KNOWN, "o", -0.18), ("ood", NEW, "s", 0.18)):
            words = "known" if kind == "id" else "new"
            for control, dashes in (("oracle", "--"), ("chance", ":")):
                axes.axvline(
                    here[f"{control}_{kind}"].mean(),
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.2,
                    label=f"{control}, {words}",
                )
            for place, label in enumerate(labels):
                for way, offset in (("encoder", -0.07), ("fista", 0.07)):
                    values = here[(here.label == label) & (here.inference == way)][kind]
                    if values.empty:
                        continue
                    y = place + shift + offset
                    axes.plot([values.min(), values.max()], [y, y], color=colour, linewidth=1.4)
                    face = colour if way == "encoder" else "white"
                    axes.plot(values.mean(), y, marker, color=colour, markerfacecolor=face, markersize=5.5)
                    stored = published.query("n_atoms == @n and label == @label and inference == @way")
                    if kind == "ood" and len(stored):
                        axes.plot(stored.ood, [y], "x", color=PUBLISHED, markersize=6, zorder=4)
        axes.set(title=f"n = {n}", xlabel="latent MCC", xlim=(0, 1.03))
        axes.grid(visible=False, axis="y")
        for place in range(1, len(labels)):
            axes.axhline(place - 0.5, color="#e3e3e3", linewidth=0.7)
    first = panels[0]
    first.set_yticks(range(len(labels)), labels)
    first.set_ylabel("what learned the dictionary")
    first.set_ylim(len(labels) - 0.5, -0.5)
    for face, words in ((CONTROL, "encoder's codes"), ("white", "FISTA, same dictionary")):
        first.plot([], [], "s", color=CONTROL, markerfacecolor=face, label=words)
    first.plot([], [], "x", color=PUBLISHED, label="published, new")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def sparsity(table: pd.DataFrame) -> Figure:
    """MCC of new compositions against the active latents of an SAE, a panel per n; the vertical line is k.

    Solid and filled: the encoder's codes; dashed and hollow: FISTA on the same dictionary.
    """
    atoms = sorted(table.n_atoms.unique())
    figure, panels = _panels(len(atoms), figsize=(9, 4.2), sharey=True)
    names = {"relu": "ReLU", "jumprelu": "JumpReLU"}
    for axes, n in zip(panels, atoms, strict=True):
        here = table[table.n_atoms == n]
        for column, dashes in (("encoder_ood", "-"), ("fista_ood", "--")):
            words = "encoder" if column == "encoder_ood" else "FISTA"
            for method, name in names.items():
                look = {"color": COLOURS[method], "linestyle": dashes, "marker": "o", "markersize": 4}
                look |= {"markerfacecolor": None if dashes == "-" else "white"}
                rows = here[here.method == method]
                _band(axes, rows, "encoder_active_id", column, "lam", **look, label=f"{name}, {words}")
            topk = here[here.method == "topk"]
            face = COLOURS["topk"] if dashes == "-" else "white"
            look = {"color": COLOURS["topk"], "markerfacecolor": face, "label": f"TopK, {words}"}
            axes.plot(topk.encoder_active_id.mean(), topk[column].mean(), "D", **look)
        axes.axhline(here.oracle_ood.mean(), color=PUBLISHED, linestyle="--", linewidth=1, label="oracle")
        axes.axhline(here.chance_ood.mean(), color=CONTROL, linestyle="-.", label="chance")
        axes.axvline(here.k.iloc[0], color=PUBLISHED, linewidth=0.8, label="k")
        axes.set(xscale="log", xlabel="active latents per sample", title=f"n = {n}", ylim=(0, 1.03))
        _plain_log(axes.xaxis)
    panels[0].set_ylabel("latent MCC, new compositions")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def samples(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """MCC of new compositions and dictionary cosine against training samples per atom; bands: range over data seeds.

    Crosses, in the colour of the method: published at the same n.
    """
    figure, panels = _panels(2, figsize=(9, 4.2))
    stored = published[published.n_atoms == table.n_atoms.iloc[0]]
    for axes, column, control in zip(panels, ("mcc_ood", "dict_cosine"), ("chance_ood", "chance_cosine"), strict=True):
        for label, (colour, dashes) in LOOKS.items():
            here = table[table.label == label]
            if len(here):
                look = {"color": colour, "linestyle": dashes, "marker": "o", "markersize": 4, "label": label}
                _band(axes, here, "per_atom", column, "train", **look)
                beside = stored[stored.label == label]
                axes.plot(beside.per_atom, beside[column], "x", color=colour, markersize=7, markeredgewidth=1.8)
        level = table.oracle_ood.mean() if column == "mcc_ood" else 1.0
        axes.axhline(level, color=PUBLISHED, linestyle="--", linewidth=1, label="oracle")
        axes.axhline(table[control].mean(), color=CONTROL, linestyle="-.", label="chance")
        axes.set(xscale="log", xlabel="training samples in which an atom is active", ylim=(0, 1.03))
        _plain_log(axes.xaxis)
    panels[0].plot([], [], "x", color=PUBLISHED, label="published")
    panels[0].set(ylabel="latent MCC, new compositions", title=f"codes, n = {table.n_atoms.iloc[0]}")
    panels[1].set(ylabel="mean |cosine| with the atoms", title="dictionary")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def variations(tables: dict[str, pd.DataFrame]) -> Figure:
    """MCC of new compositions against lam and iterations of FISTA, and dictionary cosine against training done.

    `tables` as `papers.amortisation2024.compositions.variations` makes them; lines are means, bands ranges over seeds.
    """
    figure, panels = _panels(3, figsize=(11, 4.4))
    sweep, warm, learning = tables["sweep"], tables["warm"], tables["learning"]
    for label, (colour, dashes) in LOOKS.items():
        look = {"color": colour, "linestyle": dashes}
        for axes, table, x, y in ((panels[0], sweep, "lam", "ood"), (panels[2], learning, "done", "cosine")):
            here = table[table.label == label]
            if len(here):
                _band(axes, here, x, y, x, **look, label=label)
        for begin, marker in (("cold", "o"), ("warm", "s")):
            here = warm[(warm.label == label) & (warm.begin == begin)]
            if len(here):
                line = here.groupby("iterations").ood.mean()
                face = "white" if begin == "cold" else colour
                panels[1].plot(line.index, line, **look, marker=marker, markersize=4.5, markerfacecolor=face)
    for axes in panels[:2]:
        axes.axhline(sweep.oracle_ood.mean(), color=PUBLISHED, linestyle="--", linewidth=1, label="oracle (λ = 0.1)")
        axes.axhline(sweep.chance_ood.mean(), color=CONTROL, linestyle="-.", label="chance (λ = 0.1)")
        axes.set(xscale="log", ylim=(0, 1.03))
    panels[2].axhline(learning.chance_cosine.mean(), color=CONTROL, linestyle="-.")
    panels[1].set_xticks(ticks := sorted(warm.iterations.unique()), [f"{tick:g}" for tick in ticks])
    panels[1].minorticks_off()
    panels[0].set(xlabel="λ of FISTA", ylabel="latent MCC, new compositions", title="penalty of the inference")
    panels[1].set(xlabel="iterations of FISTA", title="start: zero (hollow), encoder (filled)")
    panels[2].set(
        xlabel="share of training done", ylabel="mean |cosine| with the atoms", title="learning", ylim=(0, 1.03)
    )
    handles = {}
    for axes in (panels[2], panels[0]):
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def phase(table: pd.DataFrame) -> Figure:
    """Latent MCC of known and of new compositions against d_in / (k ln(n/k)); bands: range over data seeds.

    Columns of `table`: n_atoms, k, ratio, label, id, ood. Markers tell sizes (n, k) apart where there are several.
    """
    figure, panels = _panels(2, figsize=(9, 4.2), sharey=True)
    looks = {"oracle": (PUBLISHED, "--")} | LOOKS | {"chance": (CONTROL, "-.")}
    sizes = list(table.groupby(["n_atoms", "k"]))
    for axes, column in zip(panels, ("id", "ood"), strict=True):
        for label, (colour, dashes) in looks.items():
            for ((n, k), rows), marker in zip(sizes, "osD^v", strict=False):
                here = rows[rows.label == label]
                if len(here):
                    words = label if (n, k) == sizes[0][0] else None
                    look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4, "label": words}
                    _band(axes, here, "ratio", column, "ratio", **look)
        for at, dashes in ((1, ":"), (2, "-")):
            axes.axvline(at, color=PUBLISHED, linestyle=dashes, linewidth=0.8)
        axes.set(xlabel="M / (k ln(n/k))", ylim=(0, 1.03))
    panels[0].set(ylabel="latent MCC", title="known compositions")
    panels[1].set(title="new compositions")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
