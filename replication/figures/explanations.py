"""Figures of the page on explanations, and the patterns of two of them as a table."""

import html
from itertools import groupby

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, NAMES, _band, _panels, _plain_log


def recall_and_precision(table: pd.DataFrame) -> Figure:
    """Recall and precision of explanations against L0, at the sizes at which both architectures were run.

    Columns d_sae, architecture, sparsity, l0, n2g_recall, n2g_precision, density, and of TopK n2g_*_untrained.
    """
    sizes = sorted(set(table.d_sae[table.architecture == "relu"]))
    figure, panels = _panels(2, figsize=(8, 4.6))
    looks = dict(zip(sizes, ("--", "-", ":"), strict=False))
    for axes, name in zip(panels, ("recall", "precision"), strict=True):
        for n, dashes in looks.items():
            here = table[table.d_sae == n]
            for architecture, marker in (("relu", "s"), ("topk", "o")):
                rows = here[here.architecture == architecture]
                style = {"color": COLOURS[architecture], "marker": marker, "linestyle": dashes}
                _band(axes, rows, "l0", f"n2g_{name}", "sparsity", label=f"{NAMES[architecture]}, n = {n:,}", **style)
            topk = here[here.architecture == "topk"]
            style = {"color": CONTROL, "linestyle": dashes, "linewidth": 1.2}
            _band(
                axes, topk, "l0", f"n2g_{name}_untrained", "sparsity", label=f"TopK before training, n = {n:,}", **style
            )
            if name == "precision":
                _band(axes, topk, "l0", "density", "sparsity", marker="|", label=f"chance, n = {n:,}", **style)
        axes.set(xscale="log", xlabel="L0 (active latents per token)", ylim=(0, None), ylabel=name)
        _plain_log(axes.xaxis)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes))
    return figure


def f1(table: pd.DataFrame) -> Figure:
    """F1 of explanations of TopK's latents against n, one line per k; columns d_sae, sparsity, n2g_f1_sparse and the
    same of the untrained SAE."""
    rows = table[table.architecture == "topk"].dropna(subset="n2g_f1_sparse")
    figure, (axes,) = _panels(1, figsize=(6.4, 3.8))
    shades = sns.color_palette("crest", rows.sparsity.nunique())
    for colour, (k, cell) in zip(shades, rows.groupby("sparsity"), strict=True):
        _band(axes, cell, "d_sae", "n2g_f1_sparse", "d_sae", color=colour, marker="o", label=f"k = {k:g}")
    untrained = rows.dropna(subset="n2g_f1_sparse_untrained")
    _band(axes, untrained, "d_sae", "n2g_f1_sparse_untrained", "d_sae", color=CONTROL, label="before training, all k")
    _sizes(axes, rows.d_sae)
    axes.set(ylim=(0, None), ylabel="F1, latents of density ≤ 10 %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


STAND_INS = {  # column -> name and dashes of its line
    "delta_ce_zero": ("zero", (1, 1)),
    "delta_ce_constant": ("mean direction, norms kept", (3, 1, 1, 1)),
    "delta_ce_mean": ("mean activation", (5, 2)),
    "delta_ce_bigram": ("bigram model", None),
    "delta_ce_lookup": ("each token's mean activation", (3, 3)),
}


def downstream(table: pd.DataFrame) -> Figure:
    """Rise in loss against n with simulated latents, one line per k; columns d_sae, sparsity, delta_ce and those of
    its controls."""
    figure, (axes,) = _panels(1, figsize=(7.6, 4.6))
    shades = sns.color_palette("crest", table.sparsity.nunique())
    for colour, (k, cell) in zip(shades, table.groupby("sparsity"), strict=True):
        for column, name, style in (
            ("delta_ce_untrained", "untrained, simulated", {"linestyle": ":", "marker": "x"}),
            ("delta_ce", "simulated latents", {"marker": "o"}),
            ("delta_ce_sae", "true latents", {"linestyle": "--", "marker": "o", "markerfacecolor": "white"}),
        ):
            _band(axes, cell, "d_sae", column, "d_sae", color=colour, label=f"{name}, k = {k:g}", **style)
    for column, (name, dashes) in STAND_INS.items():
        look = {"color": "#111111", "linewidth": 1.6} if dashes is None else {"color": CONTROL, "linewidth": 1.2}
        axes.axhline(table[column].mean(), linestyle=(0, dashes) if dashes else "-", label=name, **look)
    _sizes(axes, table.d_sae)
    axes.set(yscale="log", ylabel="rise in cross-entropy (nats per token)")
    _plain_log(axes.yaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8.5)
    return figure


def _sizes(axes, sizes: pd.Series) -> None:
    """A logarithmic axis of dictionary sizes, each size a tick."""
    known = sorted(sizes.unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(known, [f"{n:,}" for n in known])
    axes.minorticks_off()
    axes.set_xlabel("n (latents)")
    axes.margins(x=0.08)


def worked_examples(table: pd.DataFrame) -> str:
    """Two explanations as HTML: the most and the least precise of the first seed's largest TopK dictionary with the
    smallest k that has two to show; columns high_* and low_* as stored."""
    different = table.high_stats.map(tuple) != table.low_stats.map(tuple)
    rows = table[(table.architecture == "topk") & different]
    if rows.empty:
        return "<p>No two explanations of a run catch half of a latent's activity.</p>"
    row = rows.sort_values(["seed", "d_sae", "sparsity"], ascending=[True, False, True]).iloc[0]
    where = f"n = {row.d_sae:,}, k = {row.sparsity:g}, seed {row.seed}"
    return f"<p>{where}</p>" + "".join(_graph(row, name, title) for name, title in TITLES.items())


TITLES = {"high": "most precise", "low": "least precise"}


def _graph(row: pd.Series, name: str, title: str) -> str:
    latent, density, recall, precision = row[f"{name}_stats"]
    found = sorted(zip(row[f"{name}_values"], row[f"{name}_patterns"], strict=True), key=lambda pair: -pair[0])
    lines = "".join(
        f"<tr><td>{_spelled(pattern)}</td><td style='text-align:right'>{value:.3f}</td></tr>"
        for value, pattern in found
    )
    return (
        f"<p><b>Latent {latent:.0f}, the {title}</b>: precision {precision:.2f}, recall {recall:.2f}, active on "
        f"{100 * density:.2f} % of tokens</p><div class='table-scroll' tabindex='0'><table class='rows'><thead><tr>"
        f"<th>pattern, active at its last token</th><th>value</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _spelled(pattern: list[str | None]) -> str:
    """Tokens as they are, white space made visible; a star for each wildcard, a run of them counted."""
    parts = []
    for token, run in groupby(pattern):
        if token is None:
            many = len(list(run))
            parts.append(f"<span title='any token'>★{f'×{many}' if many > 3 else '★' * (many - 1)}</span>")
        elif token == "":
            parts.append("<i>start of text</i>")
        else:
            shown = html.escape(token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥"))
            parts += [f"<code>{shown}</code>" for _ in run]
    return " ".join(parts)
