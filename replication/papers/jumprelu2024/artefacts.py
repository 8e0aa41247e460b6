"""The files of Gemma Scope: the suite and its arithmetic (Lieberum et al. 2024, table 1 and sec. 3.3; G13), and small
SAEs sent through every format of `replication.formats` and back.

Nothing here is trained. Each number that the paper states is computed from its ingredients; what is not in
the paper is named where it enters.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from replication.claims import Claim, Evidence
from replication.formats import FORMATS, load, save, verify
from replication.papers.jumprelu2024.grid import KEY, SEEDS
from replication.results import Study
from replication.sae import ARCHITECTURES, SAE, architecture

BATCH = 4096  # activations per step (sec. 3.2)
WIDTHS = {  # d_in by model and site; attention: heads x head width, 8 x 256 and 16 x 256
    "2B": {"attn": 2048, "mlp": 2304, "res": 2304, "transcoder": 2304},
    "9B": {"attn": 4096, "mlp": 3584, "res": 3584},
    "9B-IT": {"res": 3584},
    "27B": {"res": 4608},
}
LAYERS = {"2B": 26, "9B": 42, "27B": 46}
GPT3_FLOPS = 3.14e23  # training compute of GPT-3 175B as usually cited; from memory
TPU_V3_PEAK = 123e12  # flop/s of one chip in bfloat16; from its maker's documentation, not in the paper


class Part(NamedTuple):
    """SAEs of one model, site and width: a line of table 1. Transcoders stand as a site of their own."""

    model: str
    site: str
    log2_width: int
    layers: int
    """How many layers have SAEs of this width."""
    tokens: float
    """Training tokens of each SAE."""
    files: int
    """Released SAEs, several sparsities a layer: counted in the registry of SAELens 6.54, not in the paper."""


def tokens_of(log2_width: int) -> float:
    """4e9 for 2^14, 16e9 for 2^20, 8e9 between (table 1)."""
    return {14: 4e9, 20: 16e9}.get(log2_width, 8e9)


_COUNTED = {  # (model, site) -> (log2 width, layers, files)
    ("2B", "attn"): ((14, 26, 130), (16, 26, 130)),
    ("2B", "mlp"): ((14, 26, 130), (16, 26, 130)),
    ("2B", "res"): ((14, 26, 135), (15, 1, 6), (16, 26, 135), (17, 1, 6), (18, 1, 6), (19, 1, 6), (20, 3, 18)),
    ("2B", "transcoder"): ((14, 26, 26),),
    ("9B", "attn"): ((14, 42, 240), (17, 42, 252)),
    ("9B", "mlp"): ((14, 42, 240), (17, 42, 252)),
    ("9B", "res"): ((14, 42, 248), (15, 1, 3), (16, 1, 3), (17, 42, 254), (18, 1, 3), (19, 1, 3), (20, 3, 18)),
    ("9B-IT", "res"): ((14, 3, 15), (17, 3, 15)),
    ("27B", "res"): ((17, 3, 18),),
}
SUITE = tuple(
    Part(model, site, width, layers, tokens_of(width), files)
    for (model, site), lines in _COUNTED.items()
    for width, layers, files in lines
)
EMBEDDING_FILES = 8  # experimental SAEs of token embeddings, 2^12 wide, outside table 1; same registry


# ---------------------------------------------------------------------------------------------------------- formulas


def d_in(part: Part) -> int:
    return WIDTHS[part.model][part.site]


def parameters(d_in: int, d_sae: int) -> int:
    """W_enc and W_dec, b_enc and threshold, b_dec: 2 d n + 2 n + d."""
    return 2 * d_in * d_sae + 2 * d_sae + d_in


def npz_bytes(d_in: int, d_sae: int) -> int:
    """Size of params.npz: float32 parameters, and what NumPy and zip put around five arrays (below 4 GiB).

    Per array a header of 128 bytes, a local zip entry of 30 + 20 and a central one of 46, each with the file's name;
    22 bytes at the end.
    """
    names = ("W_enc.npy", "W_dec.npy", "b_enc.npy", "b_dec.npy", "threshold.npy")
    return 4 * parameters(d_in, d_sae) + sum(128 + 30 + 20 + 46 + 2 * len(name) for name in names) + 22


def steps(tokens: float) -> int:
    """Batches of 4,096 activations."""
    return ceil(tokens / BATCH)


def training_flops(d_in: int, d_sae: int, tokens: float) -> float:
    """12 d n per token: a multiply-add each in encoder and decoder forward, twice that backward."""
    return 12.0 * d_in * d_sae * tokens


def flops_that_train(d_in: int, d_sae: int, tokens: float) -> float:
    """10 d n per token: without the gradient on the input of the encoder, which only b_dec asks for."""
    return training_flops(d_in, d_sae, tokens) * 10 / 12


def utilisation(d_in: int, d_sae: int, seconds: float, chips: int, peak: float) -> float:
    """Model flop utilisation: flops of one step over what the chips could do in its time."""
    return training_flops(d_in, d_sae, BATCH) / (seconds * chips * peak)


def activation_bytes(width: int, tokens: float) -> float:
    """float32, as raw bytes."""
    return 4.0 * width * tokens


def stored_once(model: str) -> float:
    """Bytes of 8e9 activations at all three sites of all layers."""
    return LAYERS[model] * activation_bytes(sum(WIDTHS[model][site] for site in ("attn", "mlp", "res")), 8e9)


def stored_in_all() -> float:
    """2B and 9B, and our reading of the extras: 27B and 9B-IT at their layers, 8e9 more tokens for 2^20 latents, 4e9
    inputs of every transcoder."""
    extras = 3 * (activation_bytes(WIDTHS["27B"]["res"], 8e9) + activation_bytes(WIDTHS["9B-IT"]["res"], 8e9))
    extras += 3 * sum(activation_bytes(WIDTHS[model]["res"], 8e9) for model in ("2B", "9B"))
    extras += LAYERS["2B"] * activation_bytes(WIDTHS["2B"]["transcoder"], 4e9)
    return stored_once("2B") + stored_once("9B") + extras


def total_flops() -> float:
    """Of every released SAE; those that were trained and not released are not in it."""
    return sum(part.files * training_flops(d_in(part), 2**part.log2_width, part.tokens) for part in SUITE)


def all_layer_saes() -> int:
    """One per site, layer and width where a width is there for every layer, sparsities counted once."""
    return sum(part.layers for part in SUITE if part.layers == LAYERS.get(part.model) and part.site != "transcoder")


def total_latents() -> int:
    """Of one SAE per site, layer and width; transcoders left out."""
    return sum(part.layers * 2**part.log2_width for part in SUITE if part.site != "transcoder")


def total_files() -> int:
    return sum(part.files for part in SUITE) + EMBEDDING_FILES


# ------------------------------------------------------------------------------------------------ against the paper

TEBI, PEBI, GIBI = 2.0**40, 2.0**50, 2.0**30


class Stated(NamedTuple):
    """A number of the paper beside ours."""

    quantity: str
    stated: str
    low: float
    """Smallest value that agrees with the statement."""
    high: float
    """Largest one."""
    computed: float
    unit: str
    ingredients: str


def about(value: float, share: float = 0.1) -> tuple[float, float]:
    """What agrees with "about this": within ten percent, unless said otherwise."""
    return value * (1 - share), value * (1 + share)


def more_than(value: float) -> tuple[float, float]:
    return value, float("inf")


PUBLISHED = (
    Stated("SAEs over all layers", "more than 400", *more_than(400), all_layer_saes(), "", "3 sites x (26 + 42) x 2"),
    Stated(
        "latents", "more than 30 million", *more_than(30), total_latents() / 1e6, "million", "table 1, sparsities once"
    ),
    Stated("released SAEs", "more than 2,000", *more_than(2000), total_files(), "", "counted in SAELens' registry"),
    Stated(
        "model flop utilisation, 9B, 131k wide",
        "about 50.8 %",
        *about(50.8),
        100 * utilisation(3584, 2**17, 0.045, 8, TPU_V3_PEAK),
        "%",
        "12 d n per activation, 4,096 of them in 45 ms, 8 TPUv3 chips of 123 Tflop/s (not in the paper)",
    ),
    Stated(
        "read rate of one 9B SAE",
        "more than 1 GiB/s",
        *more_than(1),
        activation_bytes(3584, BATCH) / 0.045 / GIBI,
        "GiB/s",
        "4,096 activations of 3,584 float32 in 45 ms",
    ),
    Stated(
        "activations of one 9B layer and site",
        "about 100 TiB",
        *about(100),
        activation_bytes(3584, 8e9) / TEBI,
        "TiB",
        "8e9 x 3,584 x 4 bytes",
    ),
    Stated(
        "activations of all 2B and 9B sites",
        "about 17 PiB",
        *about(17, 0.15),
        (stored_once("2B") + stored_once("9B")) / PEBI,
        "PiB",
        "8e9 tokens, attention at its own width; within 15 %",
    ),
    Stated(
        "the same with extras",
        "about 20 PiB",
        *about(20, 0.15),
        stored_in_all() / PEBI,
        "PiB",
        "27B, 9B-IT, 16e9 tokens for 1M latents, transcoders (our reading); within 15 %",
    ),
    Stated(
        "one shard on disk",
        "10 to 20 GiB",
        10,
        20,
        activation_bytes(3584, 1e6) / GIBI,
        "GiB",
        "9B, if a shard is a shuffling bucket of 1e6 activations",
    ),
    Stated(
        "training compute",
        "more than 20 % of GPT-3's",
        *more_than(20),
        100 * total_flops() / GPT3_FLOPS,
        "%",
        "12 d n T of every released SAE over 3.14e23 (from memory)",
    ),
)
"""Lieberum et al. 2024, secs. 1 and 3.3, table 1."""

REPORTED_BYTES = 1_208_494_296
"""layer_16/width_65k/average_l0_128/params.npz of the 2B residual stream, as users report it. Not in the paper."""


def agreement() -> pd.DataFrame:
    """Each number of PUBLISHED beside ours, and whether they agree."""
    return pd.DataFrame(
        {
            "quantity": one.quantity,
            "stated": one.stated,
            "computed": f"{_short(one.computed)} {one.unit}".strip(),
            "agrees": "yes" if one.low <= one.computed <= one.high else "no",
            "from": one.ingredients,
        }
        for one in PUBLISHED
    )


@dataclass(frozen=True)
class Statement:
    """A number of PUBLISHED to compute again. Nothing is drawn: the seed is always 0."""

    quantity: str
    seed: int = 0


def recompute(runs: list[Statement]) -> Iterator[tuple[Statement, dict]]:
    """The number, and whether it agrees with what is stated."""
    stated = {one.quantity: one for one in PUBLISHED}
    for run in runs:
        one = stated[run.quantity]
        agrees = one.low <= one.computed <= one.high
        yield run, {"computed": float(one.computed), "agrees": agrees, "subject": "the paper's Table 1", "seconds": 0.0}


ARITHMETIC = Study(
    KEY,
    "arithmetic",
    "Gemma Scope's arithmetic",
    lambda preset: [Statement(one.quantity) for one in PUBLISHED],
    recompute,
    cost=lambda run: 0.0,
)


def adds_up(rows: pd.DataFrame) -> Evidence:
    """G13: the share of the paper's numbers that come out of their ingredients."""
    share = rows.agrees.mean()
    wrong = ", ".join(rows.quantity[~rows.agrees.astype(bool)])
    return Evidence(
        "replicated" if not wrong else "partly" if share > 0.5 else "not replicated",
        share,
        share,
        share,
        f"{rows.agrees.sum()} of {len(rows)} numbers agree" + (f"; not: {wrong}" if wrong else ""),
    )


STUDIES = (ARITHMETIC,)
FIGURES: dict = {}
CLAIMS = (
    Claim(
        id="jumprelu2024-G13",
        statement="What the suite contains, stores and costs follows from its table and the widths of Gemma 2.",
        rule=(
            "Each stated number lies within 10 % of what its ingredients give (15 % for all stored activations, which "
            "depend on what is counted), or on the stated side of it. Partly, if more than half do."
        ),
        published="over 400 SAEs, 30 million latents, 17 PiB of activations, over 20 % of GPT-3's training compute",
        statistic="share of the stated numbers that agree",
        study=ARITHMETIC,
        test=adds_up,
    ),
)


def by_width() -> pd.DataFrame:
    """Share of the released SAEs, of their bytes and of their training compute at each width, in percent."""
    rows = pd.DataFrame(
        {
            "log2_width": part.log2_width,
            "SAEs": part.files,
            "bytes": part.files * parameters(d_in(part), 2**part.log2_width),
            "training compute": part.files * training_flops(d_in(part), 2**part.log2_width, part.tokens),
        }
        for part in SUITE
    )
    sums = rows.groupby("log2_width").sum()
    return (100 * sums / sums.sum()).reset_index()


def assumption() -> dict[str, str]:
    """What two rows of `agreement` would be with 10 d n in place of 12 d n."""
    step = utilisation(3584, 2**17, 0.045, 8, TPU_V3_PEAK) * flops_that_train(1, 1, 1) / training_flops(1, 1, 1)
    share = total_flops() / GPT3_FLOPS * flops_that_train(1, 1, 1) / training_flops(1, 1, 1)
    return {"utilisation at 10 d n": f"{100 * step:.1f} %", "share of GPT-3 at 10 d n": f"{100 * share:.1f} %"}


def suite_table() -> pd.DataFrame:
    """Table 1, one line per model, site and width, with what follows from it."""
    return pd.DataFrame(
        {
            "model": part.model,
            "site": part.site,
            "latents": f"2^{part.log2_width}",
            "layers": part.layers,
            "tokens": f"{part.tokens / 1e9:.0f}e9",
            "steps": f"{steps(part.tokens):,}",
            "files": part.files,
            "GB each": f"{4 * parameters(d_in(part), 2**part.log2_width) / 1e9:.2f}",
            "GB in all": f"{part.files * 4 * parameters(d_in(part), 2**part.log2_width) / 1e9:,.0f}",
            "flop in all": f"{part.files * training_flops(d_in(part), 2**part.log2_width, part.tokens):.1e}",
        }
        for part in SUITE
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


# ------------------------------------------------------------------------------------------- through every format

D_IN, D_SAE, TOKENS = 64, 512, 1024
DIALS = {"batchtopk": 16, "matryoshka": 16, "topk": 16, "topafa": 0.1}


def activations(seed: int) -> torch.Tensor:
    """(TOKENS, D_IN) float32, correlated and away from 0, with E|x|^2 far from 1 as in a language model."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D_IN, D_IN, generator=generator)
    return torch.randn(TOKENS, D_IN, generator=generator) @ mixing + 5 * torch.randn(D_IN, generator=generator)


@torch.no_grad()
def small_sae(name: str, normalisation: str, seed: int) -> SAE:
    """An untrained SAE of 512 latents whose biases and thresholds are none of them at their start."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "normalisation": normalisation}
    sae = architecture(name)(D_IN, D_SAE, DIALS.get(name, 0.1), **options)
    x = activations(seed)
    sae.fit_normalisation(x)
    sae.initialise(sae.normalise(x).x)
    for parameter in (p for p in sae.parameters() if p.dim() == 1 and p.requires_grad):
        parameter.add_(0.05 * torch.rand(parameter.shape, generator=generator))
    return sae.eval()


def normalisation_for(format: str, name: str) -> str:
    """One that the format keeps: one constant, which is folded; for OpenAI's TopK its layer norm."""
    return "layernorm" if (format, name) == ("openai", "topk") else "gemma"


@torch.no_grad()
def round_trips() -> pd.DataFrame:
    """Every architecture that a format holds, written and read back: one line each, worst of SEEDS.

    Differences are the largest of any entry, over the largest absolute value of the original.
    """
    lines = []
    for format, kind in FORMATS.items():
        for name, called in kind.holds.items():
            measured = [_round_trip(format, name, seed) for seed in SEEDS]
            read, latents, recon, changed = zip(*measured, strict=True)
            lines.append(
                {
                    "format": format,
                    "written": name,
                    "called": called,
                    "read back as": read[0],
                    "latents": max(latents),
                    "reconstructions": max(recon),
                    "latents on or off otherwise": sum(changed),
                }
            )
    return pd.DataFrame(lines)


def scientific(value: float) -> str:
    """One digit and a power of ten, 3×10⁻⁷; 0 is 0."""
    if not value:
        return "0"
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}×10{str(int(power)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def as_grid(trips: pd.DataFrame) -> pd.DataFrame:
    """Architectures against formats: what the file calls it, and the largest difference of reconstructions."""
    cells = trips.assign(cell=[f"{one.called}: {scientific(one.reconstructions)}" for one in trips.itertuples()])
    grid = cells.pivot(index="written", columns="format", values="cell").reindex(sorted(ARCHITECTURES), columns=FORMATS)
    return grid.rename_axis(index="ours", columns=None).reset_index()


def _round_trip(format: str, name: str, seed: int) -> tuple[str, float, float, int]:
    original, x = small_sae(name, normalisation_for(format, name), seed), activations(seed + 1000)
    plain = original if original.normalisation == "layernorm" else original.folded()
    with tempfile.TemporaryDirectory() as folder:
        save(original, Path(folder), format)
        again = load(folder)
    before, after = (sae(sae.normalise(x).x).latents for sae in (plain, again))
    recon = original.reconstruct(x)
    return (
        type(again).__name__,
        ((before - after).abs().max() / before.abs().max()).item(),
        ((recon - again.reconstruct(x)).abs().max() / recon.abs().max()).item(),
        int(((before != 0) != (after != 0)).sum()),
    )


def contents() -> pd.DataFrame:
    """What `save` writes in each format, read from the files of one small SAE: names and shapes."""
    lines = []
    for format, kind in FORMATS.items():
        name = next(one for one in ("jumprelu", "topk") if one in kind.holds)
        with tempfile.TemporaryDirectory() as folder:
            file = save(small_sae(name, normalisation_for(format, name), 0), Path(folder), format)
            files, tensors = sorted(path.name for path in Path(folder).iterdir()), _tensors(file)
        lines.append(
            {
                "format": format,
                "files": ", ".join(files),
                "fields of the weights file": f"{name}: "
                + ", ".join(f"{key} {value}" for key, value in tensors.items()),
                "holds": ", ".join(sorted(kind.holds)),
                "transcoders of": ", ".join(sorted(kind.transcoders)) or "–",
            }
        )
    return pd.DataFrame(lines)


def _tensors(file: Path) -> dict[str, str]:
    """Names in a weights file -> shapes, or the value where it is no tensor; read without this library."""
    if file.suffix == ".npz":
        found = dict(np.load(file))
    elif file.suffix == ".pt":
        found = torch.load(file, weights_only=True)
    else:
        with safe_open(file, framework="np") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    return {
        name: "×".join(map(str, value.shape)) if hasattr(value, "shape") else repr(value)
        for name, value in found.items()
    }


def refusals() -> pd.DataFrame:
    """Files and SAEs that are not what they should be, and the line that each ends with."""
    lines = []

    def attempt(what: str, action) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                action(Path(folder))
                said = "accepted"
            except ValueError as error:
                said = str(error).replace(f"{folder}/", "")
        lines.append({"what": what, "the error": said})

    def npz(**changes):
        def action(folder: Path):
            file = save(small_sae("jumprelu", "gemma", 0), folder, "gemma-scope")
            arrays = dict(np.load(file)) | changes
            np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
            load(folder)

        return action

    def saelens(name: str, check: bool = False, **changes):
        def action(folder: Path):
            config = save(small_sae(name, "gemma", 0), folder, "saelens").with_name("cfg.json")
            config.write_text(json.dumps(json.loads(config.read_text()) | changes))
            sae = load(folder)
            if check:
                verify(sae, activations(1), l0=DIALS[name])

        return action

    attempt("npz with a pickled object in it", npz(b_enc=np.array([print], dtype=object)))
    attempt("encoder stored the other way round", npz(W_enc=np.zeros((D_SAE, D_IN), np.float32)))
    attempt("no thresholds", npz(threshold=None))
    attempt("SAELens, scale kept elsewhere", saelens("relu", normalize_activations="expected_average_only_in"))
    attempt("SAELens, unknown architecture", saelens("relu", architecture="matching_pursuit"))
    attempt("SAELens, TopK taken for ReLU, then verified", saelens("topk", True, architecture="standard"))
    attempt("top-AFA into any format", lambda folder: save(small_sae("topafa", "gemma", 0), folder, "saelens"))
    attempt(
        "per-token scale that cannot be folded", lambda folder: save(small_sae("topk", "gao", 0), folder, "sparsify")
    )
    return pd.DataFrame(lines)
