"""Figures of the page on SAE encoder, MLP encoder and sparse inference on a language model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.figures import COLOURS, CONTROL, PUBLISHED, _band, _panels, _plain_log

ENCODERS = {  # encoder -> name, colour, marker
    "sae": ("SAE", COLOURS["relu"], "s"),
    "mlp": ("MLP encoder", "#1b7f8c", "^"),
    "fista": ("FISTA", "#7a3b9a", "D"),
}


def interpretability(latents: pd.DataFrame, at_equal_l0: pd.DataFrame, chance: float) -> Figure:
    """Macro-F1 of single latents per encoder, with means at equal L0, their intervals and the published means.

    `latents`: columns name, f1; `at_equal_l0`: name, f1, low, high, published.
    """
    figure, (axes,) = _panels(1, figsize=(8, 4.4))
    names, jitter = list(dict.fromkeys(latents.name)), np.random.default_rng(0)
    colours = {name: colour for name, colour, _ in ENCODERS.values()}
    for place, name in enumerate(names):
        f1 = latents.f1[latents.name == name].to_numpy(dtype=float)
        colour = colours.get(name, CONTROL)
        axes.scatter(place + jitter.uniform(-0.28, 0.28, len(f1)), f1, s=9, alpha=0.35, color=colour, linewidths=0)
        if len(f1):
            axes.hlines(f1.mean(), place - 0.3, place + 0.3, color=colour, linewidth=2)
    shown = at_equal_l0[at_equal_l0.name.isin(names)]
    places = np.array([names.index(name) for name in shown.name])
    reach = np.array([shown.f1 - shown.low, shown.high - shown.f1])
    look = {"fmt": "o", "color": "#111111", "markerfacecolor": "white", "capsize": 4}
    axes.errorbar(places, shown.f1, yerr=reach, **look, zorder=3, label="mean at equal L0, 95 % interval")
    axes.scatter(
        places + 0.38, shown.published, marker="*", s=70, color=PUBLISHED, label="paper: GPT-2, GPT-4o as judge"
    )
    axes.axhline(chance, color=CONTROL, linestyle=":", label="labels shuffled")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1.02), ylabel="macro-F1 of a latent's explanation", xlabel="encoder (a point per latent)")
    axes.grid(axis="x", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


MEASURES = {
    "fvu": "FVU (share of variance unexplained)",
    "delta_ce": "ΔCE (nats per token)",
    "f1": "macro-F1 of explanations",
}


def fidelity(table: pd.DataFrame) -> Figure:
    """FVU, rise in loss and macro-F1 against L0; columns encoder, sparsity, l0, target, fvu, delta_ce, f1."""
    figure, panels = _panels(3, figsize=(9.4, 4.0))
    for axes, (column, label) in zip(panels, MEASURES.items(), strict=True):
        for encoder, (name, colour, marker) in ENCODERS.items():
            rows = table[(table.encoder == encoder) & (table.l0 > 0)].dropna(subset=column).astype({column: float})
            if len(rows):
                _band(axes, rows, "l0", column, "sparsity", color=colour, marker=marker, label=name)
        axes.axvline(table.target.iloc[0], color=CONTROL, linestyle=":", label="compared here")
        axes.set(xscale="log", xlabel="L0 (active latents per token)", ylabel=label, ylim=(0, None))
        _plain_log(axes.xaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
