"""SAEs in the file formats of others, read and written: Gemma Scope, OpenAI, SAELens, sparsify, dictionary_learning.

`load` reads a repository of the Hugging Face hub or a folder of the same layout and returns an SAE of this library that
computes what the file's own library computes with it; `save` writes one of ours; `verify` asserts L0 and FVU on
activations. A file is checked before it is believed: names, shapes, types and finite values, and every setting of its
configuration that changes what is computed is either obeyed or refused by name. Nothing is unpickled: npz without
pickles, .pt as plain containers of tensors only (`weights_only`).

A layout says what a file calls a tensor and how it lies there. Sources: for Gemma Scope the published loading code; for
OpenAI `model.py` of sparse_autoencoder; for the others the packages themselves (SAELens 6.54, sparsify 1.3.3,
dictionary_learning 0.1.0). Released files of OpenAI lie outside the hub: that they hold what `model.py` writes is
assumed.
"""

import copy
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from replication import metrics
from replication.activations import Pair, as_pair
from replication.evaluate.reconstruction import passed
from replication.sae import ARCHITECTURES, SAE, architecture, released_form
from replication.sae.matryoshka import prefix_sizes
from replication.shapes import Float, Tensor

Layout = dict[str, tuple[str, str]]
"""Name in the file -> our name, and the file's axes (none for one number)."""

OURS = {"W_enc": "d_in d_sae", "W_dec": "d_sae d_out"}
NATIVE: Layout = {  # biases first: they fix the sizes, so that a transposed matrix is the one to be named
    "b_enc": ("b_enc", "d_sae"),
    "b_dec": ("b_dec", "d_out"),
    "W_enc": ("W_enc", "d_in d_sae"),
    "W_dec": ("W_dec", "d_sae d_out"),
}
GEMMA_SCOPE: Layout = NATIVE | {"threshold": ("theta_raw", "d_sae")}
OPENAI: Layout = {
    "latent_bias": ("b_enc", "d_sae"),
    "pre_bias": ("b_dec", "d_out"),
    "encoder.weight": ("W_enc", "d_sae d_in"),
    "decoder.weight": ("W_dec", "d_out d_sae"),
}
SPARSIFY: Layout = {
    "encoder.bias": ("b_enc", "d_sae"),
    "b_dec": ("b_dec", "d_out"),
    "encoder.weight": ("W_enc", "d_sae d_in"),
    "W_dec": ("W_dec", "d_sae d_out"),
}
SAELENS: dict[str, Layout] = {  # `architecture` of cfg.json -> layout of sae_weights.safetensors
    "standard": NATIVE,
    "topk": NATIVE,
    "jumprelu": GEMMA_SCOPE,
    "gated": {"b_gate": ("b_enc", "d_sae"), "b_mag": ("b_mag", "d_sae"), "r_mag": ("r_mag", "d_sae")}
    | {name: NATIVE[name] for name in ("b_dec", "W_enc", "W_dec")},
    "transcoder": NATIVE,
    "jumprelu_transcoder": GEMMA_SCOPE,
}
_LINEAR: Layout = {"encoder.weight": ("W_enc", "d_sae d_in"), "decoder.weight": ("W_dec", "d_out d_sae")}
_TOPK: Layout = {"encoder.bias": ("b_enc", "d_sae"), "b_dec": ("b_dec", "d_out")} | _LINEAR
_THRESHOLD: Layout = {"threshold": ("threshold", "")}
DICTIONARY_LEARNING: dict[str, Layout] = {  # `dict_class` of config.json -> layout of ae.pt
    "AutoEncoder": {"encoder.bias": ("b_enc", "d_sae"), "bias": ("b_dec", "d_out")} | _LINEAR,
    "AutoEncoderNew": {"encoder.bias": ("b_enc", "d_sae"), "decoder.bias": ("b_dec", "d_out")} | _LINEAR,
    "GatedAutoEncoder": {"gate_bias": ("b_enc", "d_sae"), "mag_bias": ("b_mag", "d_sae"), "r_mag": ("r_mag", "d_sae")}
    | {"decoder_bias": ("b_dec", "d_out")}
    | _LINEAR,
    "JumpReluAutoEncoder": GEMMA_SCOPE,
    "AutoEncoderTopK": _TOPK | _THRESHOLD,
    "BatchTopKSAE": _TOPK | _THRESHOLD,
    "MatryoshkaBatchTopKSAE": NATIVE | _THRESHOLD,
}

UNKNOWN_DIAL = 1.0
"""`sparsity` of a loaded SAE whose file does not record its penalty; evaluation does not use it."""
OPENAI_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
SAELENS_KEYS = {"d_in", "d_sae", "d_out", "dtype", "device", "metadata", "architecture", "k"} | {
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "rescale_acts_by_decoder_norm",
}
SAELENS_LAYOUT_VERSION = "6.0.0"  # without a version SAELens takes a cfg.json for one of before 6.0
SPARSIFY_KEYS = {"d_in", "k", "num_latents", "expansion_factor", "activation", "normalize_decoder", "multi_topk"} | {
    "skip_connection",
    "transcode",
    "signed",  # of files from before 1.0
}
REVISIONS = {"google/gemma-scope-2b-pt-res": "fd571b47c1c64851e9b1989792367b9babb4af63"}
"""Hub repository -> the commit that `load` reads unless told otherwise."""


def load(
    where: str | Path,
    path: str = "",
    *,
    revision: str | None = None,
    transcoder: bool | None = None,
) -> SAE:
    """The SAE in `path`, a folder or a weights file, of a hub repository or local folder `where`; float32, eval mode.

    load("google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71")

    `revision` is a commit, tag or branch of the hub; by default the commit in REVISIONS, for other repositories "main".
    Only the files of that one SAE are fetched, into the hub's own cache. The format is recognised by the name of the
    weights file (FORMATS). `transcoder` matters for Gemma Scope, whose files do not say what they are: by default it is
    true where the name of the hub repository says so.

    Raises ValueError naming file and field for anything unexpected in a file, OSError where the hub cannot be reached.
    """
    root, name = Path(where).expanduser(), str(where)
    if not root.exists():
        if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
            raise ValueError(f"where must be a folder that exists or a hub repository owner/name, got {name!r}")
        root = _fetched(name, path, revision or REVISIONS.get(name, "main"))
        transcoder = "transcoder" in name if transcoder is None else transcoder
    elif revision is not None:
        raise ValueError(f"revision is for the hub; {name} is a folder here, got revision={revision!r}")
    file = _weights_file(root / path)
    sae = FORMATS[_format_of(file)].read(file, bool(transcoder))
    if transcoder is not None and transcoder != (sae.d_out is not None):
        raise ValueError(f"{file}: transcoder must be {sae.d_out is not None} for this file, got {transcoder}")
    return sae


def save(sae: SAE, folder: Path, format: str) -> Path:
    """Write an SAE into `folder` in the format of that name; returns the weights file.

    Normalisation by one constant and a pre-encoder bias that the format lacks are folded into the weights, exactly
    (`SAE.folded`, `released_form`). ValueError by name for an architecture, a transcoder or a normalisation that the
    format cannot hold.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {sorted(FORMATS)}, got {format!r}")
    kind, name = FORMATS[format], type(sae).__name__.lower()
    held, what = (kind.holds, "SAE") if sae.d_out is None else (kind.transcoders, "transcoder")
    if name not in held or not isinstance(sae, ARCHITECTURES.get(name, ())):
        raise ValueError(f"format {format!r} holds {what}s of {sorted(held) or 'no architecture'}, got {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    kind.write(sae, folder, held[name])
    return folder / kind.weights


class Measured(NamedTuple):
    """What `verify` found."""

    l0: float
    fvu: float


def verify(
    sae: SAE,
    activations: Float[Tensor, "n d_in"] | Pair,
    *,
    l0: float | None = None,
    fvu: float | None = None,
    l0_tolerance: float = 0.1,
    fvu_tolerance: float = 0.02,
) -> Measured:
    """L0 and FVU on raw activations (n, d_in); ValueError where one is not what was stated for this SAE.

    `l0` may be off by the share `l0_tolerance`, `fvu` by `fvu_tolerance`. Both are asked of the *same* activations as
    the statement: special tokens left out, same text, same site. A TopK file read as ReLU or activations on another
    scale end here.
    """
    if l0 is None and fvu is None:
        raise ValueError("verify needs what was stated: l0, fvu or both")
    x, _, undo = sae.normalise(activations)
    recon, active, _ = passed(sae, x)
    found = Measured(active.float().mean().item(), metrics.fvu(as_pair(activations).targets, undo(recon)).item())
    wrong = []
    if l0 is not None and not abs(found.l0 - l0) <= l0_tolerance * l0:
        wrong.append(f"L0 must be within {l0_tolerance:.0%} of {l0:g}, got {found.l0:.4g}")
    if fvu is not None and not abs(found.fvu - fvu) <= fvu_tolerance:
        wrong.append(f"FVU must be within {fvu_tolerance:g} of {fvu:g}, got {found.fvu:.4g}")
    if wrong:
        raise ValueError(f"on {len(x):,} activations {'; '.join(wrong)}")
    return found


class Place(NamedTuple):
    """What the path of a Gemma Scope SAE says."""

    layer: int
    """Counted from 0."""
    width: int
    """Nominal number of latents, a power of two; the shapes in the file decide."""
    l0: int
    """Mean number of active latents per token, rounded."""


def gemma_scope_place(path: str) -> Place:
    """layer_20/width_16k/average_l0_71 -> Place(20, 16384, 71): 16k is 2^14, 1m is 2^20 (Lieberum et al. 2024)."""
    found = re.search(r"layer_(\d+)/width_(\d+)([km])/average_l0_(\d+)", path)
    if found is None:
        raise ValueError(f"path must be like layer_20/width_16k/average_l0_71, got {path!r}")
    layer, number, unit, l0 = found.groups()
    return Place(int(layer), 2 ** round(log2(int(number) * {"k": 1e3, "m": 1e6}[unit])), int(l0))


# ------------------------------------------------------------------------------------------------------ Gemma Scope


def read_gemma_scope(file: Path, transcoder: bool) -> SAE:
    """params.npz: latents = ReLU(pre) H(pre - threshold), pre = x W_enc + b_enc; raw activations, nothing subtracted.

    Also with the lower-case names of some files. A transcoder has the same five tensors, W_dec (d_sae, d_out).
    """
    if "embedding" in file.parts:
        raise ValueError(f"{file}: SAEs of token embeddings are on another scale (no factor sqrt(d_in)): not supported")
    found = {re.sub(r"^w_", "W_", name): value for name, value in _npz(file).items()}
    _drop_scaling_factor(file, found)
    weights = _checked(file, found, GEMMA_SCOPE, transcoder)
    return _assemble("jumprelu", weights if transcoder else _recentred(weights), transcoder=transcoder)


def write_gemma_scope(sae: SAE, folder: Path, _: str) -> None:
    weights = _laid_out(_uncentred(sae), GEMMA_SCOPE)
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in weights.items()})


# ----------------------------------------------------------------------------------------------------------- OpenAI


def read_openai(file: Path, _: bool) -> SAE:
    """The state dict of sparse_autoencoder.Autoencoder: tensors, `activation` and `activation_state_dict`.

    What is called TopK is layer-normalised (its loader decides by this name alone), what is called ReLU is not.
    """
    found = _torch(file)
    name, state = found.pop("activation", "ReLU"), found.pop("activation_state_dict", {})
    for statistic in OPENAI_STATISTICS:
        found.pop(statistic, None)
    weights = _checked(file, found, OPENAI)
    if name == "ReLU":
        return _assemble("relu", weights)
    if name != "TopK" or state.get("postact_fn") != "ReLU":
        raise ValueError(f"{file}: activation must be 'ReLU', or 'TopK' with ReLU, got {name!r} with {dict(state)}")
    return _assemble("topk", weights, sparsity=_k(file, state.get("k")), normalisation="layernorm")


def write_openai(sae: SAE, folder: Path, activation: str) -> None:
    plain, normalised = _plain(sae)
    if normalised != (activation == "TopK"):
        raise ValueError(
            "format 'openai' layer-normalises TopK and nothing else: normalisation must be "
            f"{'layernorm' if activation == 'TopK' else 'none'!r} for {activation}, got {sae.normalisation!r}"
        )
    file: dict[str, Any] = _laid_out(_centred(plain), OPENAI)
    never, always, square = OPENAI_STATISTICS
    file[never] = torch.zeros(sae.d_sae, dtype=torch.int64)
    file[always], file[square] = torch.ones(sae.d_sae), torch.zeros(sae.d_sae)
    file["activation"] = activation
    file["activation_state_dict"] = {"k": int(sae.sparsity), "postact_fn": "ReLU"} if activation == "TopK" else {}
    torch.save(file, folder / "autoencoder.pt")


# ---------------------------------------------------------------------------------------------------------- SAELens


def read_saelens(file: Path, _: bool) -> SAE:
    """sae_weights.safetensors beside cfg.json, of SAELens 6 and, with its settings in one flat record, of before.

    `normalize_activations` is "none" or "layer_norm". The others are refused: the constant of
    "expected_average_only_in" is in no file, SAELens keeps it in a table of its own. `hook_z` is read like any other
    site: heads are to be concatenated before.
    """
    source = file.with_name("cfg.json")
    config = _json(source)
    name, k = config.get("architecture", "standard"), config.get("k")
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if name == "standard" and activation == "topk":
        name, k = "topk", config.get("activation_fn_kwargs", {}).get("k")
    _one_of(source, "architecture", name, SAELENS)
    _one_of(source, "activation_fn", activation, ["relu", "topk"] if name == "topk" else ["relu"])
    if "metadata" in config and (unknown := config.keys() - SAELENS_KEYS):
        raise ValueError(f"{source}: unknown settings {sorted(unknown)}")
    normalisation = config.get("normalize_activations") or "none"  # None and False of before 6.0 are "none"
    _one_of(source, "normalize_activations", normalisation, ["none", "layer_norm"])
    _one_of(source, "finetuning_scaling_factor", config.get("finetuning_scaling_factor", False), [False])

    found = _safetensors(file)
    _drop_scaling_factor(file, found)
    is_transcoder = name.endswith("transcoder")
    sizes = {size: _number(source, config, size) for size in ("d_in", "d_sae", *(("d_out",) if is_transcoder else ()))}
    weights = _checked(file, found, SAELENS[name], is_transcoder, sizes)
    if name == "topk" and config.get("rescale_acts_by_decoder_norm", False):
        norm = weights["W_dec"].norm(dim=-1)
        weights |= {"W_enc": weights["W_enc"] * norm, "b_enc": weights["b_enc"] * norm}
        weights["W_dec"] = weights["W_dec"] / norm.clamp(min=1e-8).unsqueeze(-1)
    if not is_transcoder and not config.get("apply_b_dec_to_input", True):
        weights = _recentred(weights)
    kind = {"standard": "relu", "transcoder": "relu", "jumprelu_transcoder": "jumprelu"}.get(name, name)
    return _assemble(
        kind,
        weights,
        sparsity=_k(source, k) if name == "topk" else UNKNOWN_DIAL,
        normalisation={"layer_norm": "layernorm"}.get(normalisation, normalisation),
        transcoder=is_transcoder,
    )


def write_saelens(sae: SAE, folder: Path, name: str) -> None:
    plain, normalised = _plain(sae)
    config = {
        "architecture": name,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.d_out is None,
        "normalize_activations": "layer_norm" if normalised else "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": SAELENS_LAYOUT_VERSION},
    }
    config |= {"k": int(sae.sparsity), "rescale_acts_by_decoder_norm": False} if name == "topk" else {}
    config |= {} if sae.d_out is None else {"d_out": sae.d_out}
    weights = _centred(plain) if sae.d_out is None else _uncentred(plain)
    save_file(_laid_out(weights, SAELENS[name]), folder / "sae_weights.safetensors")
    _write_json(folder / "cfg.json", config)


# --------------------------------------------------------------------------------------------------------- sparsify


def read_sparsify(file: Path, _: bool) -> SAE:
    """sae.safetensors beside cfg.json: TopK; a transcoder (`transcode`) subtracts nothing and keeps the width."""
    source = file.with_name("cfg.json")
    config = _json(source)
    if unknown := config.keys() - SPARSIFY_KEYS:
        raise ValueError(f"{source}: unknown settings {sorted(unknown)}")
    for setting, only in (("activation", "topk"), ("skip_connection", False), ("signed", False)):
        _one_of(source, setting, config.get(setting, only), [only])
    d_in = _number(source, config, "d_in")
    d_sae = config.get("num_latents") or d_in * config.get("expansion_factor", 32)
    weights = _checked(file, _safetensors(file), SPARSIFY, False, {"d_in": d_in, "d_sae": d_sae})
    dial = _k(source, config.get("k"))
    return _assemble("topk", weights, sparsity=dial, transcoder=bool(config.get("transcode", False)))


def write_sparsify(sae: SAE, folder: Path, activation: str) -> None:
    if sae.d_out not in (None, sae.d_in):
        raise ValueError(f"format 'sparsify' holds transcoders of d_out = d_in = {sae.d_in}, got d_out={sae.d_out}")
    config = {
        "activation": activation,
        "expansion_factor": max(sae.d_sae // sae.d_in, 1),  # num_latents decides
        "normalize_decoder": sae.unit_norm,
        "num_latents": sae.d_sae,
        "k": int(sae.sparsity),
        "multi_topk": False,
        "skip_connection": False,
        "transcode": sae.d_out is not None,
        "d_in": sae.d_in,
    }
    plain = sae.folded()
    weights = _centred(plain) if sae.d_out is None else _uncentred(plain)
    save_file(_laid_out(weights, SPARSIFY), folder / "sae.safetensors")
    _write_json(folder / "cfg.json", config)


# ---------------------------------------------------------------------------------------------- dictionary_learning


def read_dictionary_learning(file: Path, _: bool) -> SAE:
    """ae.pt beside config.json, whose trainer.dict_class says what it is. Biases are saved on the scale of the raw
    activations, so there is no constant to undo.

    Latents are those of the file; the library itself rescales those of an `AutoEncoder` on loading to unit decoder
    norms, which leaves its reconstructions as they are. The groups of a Matryoshka SAE do nothing in evaluation: where
    they are not ours, which double, a BatchTopK is returned.
    """
    source = file.with_name("config.json")
    trainer = _json(source).get("trainer")
    if not isinstance(trainer, dict):
        raise ValueError(f"{source}: 'trainer' is missing")
    name, found = trainer.get("dict_class"), _torch(file)
    _one_of(source, "trainer.dict_class", name, DICTIONARY_LEARNING)
    k, groups = found.pop("k", None), found.pop("group_sizes", None)
    stated = {"d_in": trainer.get("activation_dim"), "d_sae": trainer.get("dict_size")}
    sizes = {size: value for size, value in stated.items() if value is not None}
    weights = _checked(file, found, DICTIONARY_LEARNING[name], False, sizes)
    threshold = weights.pop("threshold", torch.zeros(())).clamp(min=0)  # -1 until it is first set
    match name:
        case "AutoEncoder":
            return _assemble("relu", weights)
        case "AutoEncoderNew":  # subtracts nothing
            return _assemble("relu", _recentred(weights))
        case "GatedAutoEncoder":
            return _assemble("gated", weights)
        case "JumpReluAutoEncoder":  # subtracts nothing
            return _assemble("jumprelu", _recentred(weights))
    dial = _k(source, trainer.get("k"))
    if _k(file, k) != dial:
        raise ValueError(f"{file}: k is {_k(file, k)}, in config.json {dial}")
    if name == "AutoEncoderTopK":  # its threshold is a by-product, not used unless asked for
        return _assemble("topk", weights, sparsity=dial)
    ours = _group_sizes(weights["b_enc"].shape[0], 0 if groups is None else len(groups))
    if name == "MatryoshkaBatchTopKSAE" and groups is not None and groups.tolist() == ours:
        return _assemble("matryoshka", weights | {"threshold": threshold}, sparsity=dial, groups=len(groups))
    return _assemble("batchtopk", weights | {"threshold": threshold}, sparsity=dial)


def write_dictionary_learning(sae: SAE, folder: Path, name: str) -> None:
    plain = sae.folded()
    trainer: dict[str, Any] = {"dict_class": name, "activation_dim": sae.d_in, "dict_size": sae.d_sae}
    weights = _uncentred(plain) if name == "JumpReluAutoEncoder" else _centred(plain)
    extra = {}
    if DICTIONARY_LEARNING[name].items() >= _THRESHOLD.items():
        if sae.sparsity != int(sae.sparsity):
            raise ValueError(f"format 'dictionary-learning' keeps k as a whole number, got sparsity={sae.sparsity}")
        trainer["k"] = int(sae.sparsity)
        extra["k"] = torch.tensor(trainer["k"], dtype=torch.int32)
        weights["threshold"] = getattr(plain, "threshold", torch.tensor(-1.0))
    if name == "MatryoshkaBatchTopKSAE":
        trainer["group_sizes"] = _group_sizes(sae.d_sae, sae.groups)
        extra["group_sizes"] = torch.tensor(trainer["group_sizes"])
    torch.save(_laid_out(weights, DICTIONARY_LEARNING[name]) | extra, folder / "ae.pt")
    _write_json(folder / "config.json", {"trainer": trainer})


def _group_sizes(d_sae: int, groups: int) -> list[int]:
    return [end - begin for begin, end in pairwise([0, *prefix_sizes(d_sae, groups)])]


# --------------------------------------------------------------------------------------------------------- registry


class Format(NamedTuple):
    """How one library stores an SAE."""

    weights: str
    """Name of the weights file, by which `load` recognises the format."""
    config: str | None
    """Name of the file beside it that says what the weights are."""
    holds: Mapping[str, str]
    """Our architectures that it can hold -> what they are called in it."""
    transcoders: Mapping[str, str]
    """The same for transcoders."""
    read: Callable[[Path, bool], SAE]
    write: Callable[[SAE, Path, str], None]


WITH_THRESHOLD = ("batchtopk", "gated", "jumprelu", "matryoshka", "prolu", "relu")
"""Architectures whose evaluation is a JumpReLU (`SAE.threshold_form`); ReLU with thresholds of 0."""
_AS_JUMPRELU = dict.fromkeys(WITH_THRESHOLD, "jumprelu")

FORMATS: dict[str, Format] = {
    "gemma-scope": Format("params.npz", None, _AS_JUMPRELU, _AS_JUMPRELU, read_gemma_scope, write_gemma_scope),
    "openai": Format("autoencoder.pt", None, {"relu": "ReLU", "topk": "TopK"}, {}, read_openai, write_openai),
    "saelens": Format(
        "sae_weights.safetensors",
        "cfg.json",
        _AS_JUMPRELU | {"relu": "standard", "gated": "gated", "topk": "topk"},
        dict.fromkeys(WITH_THRESHOLD, "jumprelu_transcoder") | {"relu": "transcoder"},
        read_saelens,
        write_saelens,
    ),
    "sparsify": Format(
        "sae.safetensors", "cfg.json", {"topk": "topk"}, {"topk": "topk"}, read_sparsify, write_sparsify
    ),
    "dictionary-learning": Format(
        "ae.pt",
        "config.json",
        {
            "relu": "AutoEncoder",
            "gated": "GatedAutoEncoder",
            "jumprelu": "JumpReluAutoEncoder",
            "prolu": "JumpReluAutoEncoder",
            "topk": "AutoEncoderTopK",
            "batchtopk": "BatchTopKSAE",
            "matryoshka": "MatryoshkaBatchTopKSAE",
        },
        {},
        read_dictionary_learning,
        write_dictionary_learning,
    ),
}


# -------------------------------------------------------------------------------------------------- from ours, to ours


def _assemble(
    kind: str,
    weights: dict[str, Tensor],
    *,
    sparsity: float = UNKNOWN_DIAL,
    normalisation: str = "none",
    transcoder: bool = False,
    **options,
) -> SAE:
    """An SAE around tensors, without drawing weights first. Its encoder subtracts b_dec, a transcoder's nothing."""
    (d_in, d_sae), d_out = weights["W_enc"].shape, weights["W_dec"].shape[1]
    unit_norm = bool(((weights["W_dec"].norm(dim=-1) - 1).abs() < 1e-3).all())
    with torch.device("meta"):
        sae = architecture(kind)(
            d_in,
            d_sae,
            sparsity,
            d_out=d_out if transcoder else None,
            tied_init=False,
            unit_norm=unit_norm,
            normalisation=normalisation,
            **options,
        )
    weights = weights | {"W_enc": weights["W_enc"].T.contiguous().T}  # latent-major, as everywhere
    if "theta_raw" in weights:
        weights["theta_raw"] = weights["theta_raw"].clamp(min=0)  # the ReLU before the jump makes 0 of what is below
    if transcoder:
        weights["b_pre"] = torch.zeros(d_in)
    if "scale" in sae.state_dict():
        weights["scale"] = torch.ones(())  # unit of a training loss, which no file records
    sae.load_state_dict(weights, assign=True)
    return sae.eval()


def _recentred(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """x W_enc + b = (x - b_dec) W_enc + (b + b_dec W_enc): an encoder that subtracts nothing as one that subtracts
    b_dec. The sum is rounded once."""
    blocks = weights["W_enc"].split(2**14, dim=1)  # of the widest SAEs a copy in double would take 30 GB
    shift = torch.cat([weights["b_dec"].double() @ block.double() for block in blocks])
    moved = {"b_enc": (weights["b_enc"].double() + shift).float()}
    if "b_mag" in weights:
        moved["b_mag"] = (weights["b_mag"].double() + weights["r_mag"].double().exp() * shift).float()
    return weights | moved


def _plain(sae: SAE) -> tuple[SAE, bool]:
    """The SAE without its normalisation, and whether the file must state a layer norm; else it is folded or refused."""
    if sae.normalisation != "layernorm":
        return sae.folded(), False
    sae = copy.deepcopy(sae)
    sae.normalisation = "none"
    return sae, True


@torch.no_grad()
def _centred(sae: SAE) -> dict[str, Tensor]:
    """Tensors of an encoder that subtracts b_dec. A gated one keeps its two halves; others have thresholds too."""
    weights = {"W_dec": sae.W_dec, "b_dec": sae.b_dec}
    if hasattr(sae, "r_mag"):
        return weights | {name: getattr(sae, name) for name in ("W_enc", "b_enc", "b_mag", "r_mag")}
    W_enc, b_enc, theta = sae.threshold_form()
    return weights | {"W_enc": W_enc, "b_enc": b_enc, "theta_raw": torch.zeros_like(b_enc) if theta is None else theta}


def _uncentred(sae: SAE) -> dict[str, Tensor]:
    """Tensors of an encoder that subtracts nothing (`released_form`), rounded once."""
    form = released_form(sae.folded().double())
    form["theta_raw"] = form.pop("threshold", torch.zeros_like(form["b_enc"]))
    return form


def _laid_out(weights: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our tensors under the names and with the axes of a file, float32."""
    written = {}
    for name, (ours, axes) in layout.items():
        value = weights[ours].detach().cpu()
        value = value.T if axes != OURS.get(ours, axes) else value
        if not value.isfinite().all():
            raise ValueError(f"{ours} of this SAE is not finite; was its normalisation fitted?")
        written[name] = value.float().contiguous().clone()
    return written


# ---------------------------------------------------------------------------------------------------------- checks


def _checked(
    file: Path,
    found: Mapping[str, Any],
    layout: Layout,
    transcoder: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a file by our names and with our axes, float32. `sizes` are those that a configuration states."""
    if missing := layout.keys() - found.keys():
        raise ValueError(f"{file}: missing {sorted(missing)}; found {sorted(found)}")
    if unknown := found.keys() - layout.keys():
        raise ValueError(f"{file}: unknown {sorted(unknown)}; wanted {sorted(layout)}")
    sizes, weights = dict(sizes or {}), {}
    for name, (ours, axes) in layout.items():
        value = found[name]
        if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{file}: {name} must be float32, float16 or bfloat16, got {kind}")
        named = axes.split() if transcoder else axes.replace("d_out", "d_in").split()
        wanted = tuple(sizes.get(axis, axis) for axis in named)
        if value.dim() != len(named) or any(
            sizes.setdefault(a, n) != n for a, n in zip(named, value.shape, strict=True)
        ):
            raise ValueError(
                f"{file}: {name} must have the shape ({', '.join(named)}) = ({', '.join(map(str, wanted))}), "
                f"got {tuple(value.shape)}"
            )
        if not value.isfinite().all():
            raise ValueError(f"{file}: {name} holds values that are not finite")
        value = value.T if axes != OURS.get(ours, axes) else value
        weights[ours] = value.float()
    return weights


def _drop_scaling_factor(file: Path, found: dict[str, Any]) -> None:
    """Old files carry a factor per latent; one that is not 1 everywhere is refused."""
    factor = found.pop("scaling_factor", None)
    if factor is not None and not bool((factor == 1).all()):
        raise ValueError(f"{file}: scaling_factor must be 1 everywhere: a fine-tuned scale is not supported")


def _one_of(file: Path, setting: str, value: Any, known) -> None:
    if value not in known:
        raise ValueError(f"{file}: {setting} must be one of {sorted(known)}, got {value!r}")


def _number(file: Path, config: dict[str, Any], setting: str) -> int:
    value = config.get(setting)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{file}: {setting} must be a whole number of at least 1, got {value!r}")
    return value


def _k(file: Path, value: Any) -> int:
    return _number(file, {"k": value.item() if isinstance(value, Tensor) else value}, "k")


# ----------------------------------------------------------------------------------------------------------- files


def _weights_file(place: Path) -> Path:
    """The one weights file in a folder, or the file itself."""
    if place.is_file():
        return place
    known = [kind.weights for kind in FORMATS.values()]
    found = [place / name for name in known if (place / name).is_file()]
    if len(found) != 1:
        raise ValueError(f"{place}: must hold one of {known}, found {[file.name for file in found] or 'none'}")
    return found[0]


def _format_of(file: Path) -> str:
    """Files of OpenAI are numbered by layer, so any other .pt is one."""
    named = {kind.weights: name for name, kind in FORMATS.items()}
    name = named.get(file.name, "openai" if file.suffix == ".pt" else None)
    if name is None:
        raise ValueError(f"{file}: must be one of {sorted(named)} or another .pt")
    return name


def _fetched(repository: str, path: str, revision: str) -> Path:
    """The hub's local snapshot, with the files of one SAE."""
    folder = Path(path).parent if Path(path).suffix in (".npz", ".pt", ".safetensors") else Path(path)
    names = [name for kind in FORMATS.values() for name in (kind.weights, kind.config) if name]
    patterns = [(folder / name).as_posix() for name in names] + [path] * (folder != Path(path))
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"cannot fetch {path!r} of {repository!r} at revision {revision!r} from the hub: {reason}"
        ) from error


def _npz(file: Path) -> dict[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: not an npz of plain arrays ({_first_line(error)})") from error


def _torch(file: Path) -> dict[str, Any]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{file}: not a plain state dict; nothing else is unpickled ({_first_line(error)})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: must hold a state dict, got {type(found).__name__}")
    return dict(found)


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: not a safetensors file ({_first_line(error)})") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({_first_line(error)})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: must hold one record, got {type(found).__name__}")
    return found


def _write_json(file: Path, config: dict[str, Any]) -> None:
    file.write_text(json.dumps(config, indent=2) + "\n")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
