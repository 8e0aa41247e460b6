"""Formats of released SAEs: what each file's own library computes from it, round trips, and what is refused."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_folding
import test_sae
import torch
from safetensors.torch import load_file, save_file

from replication import formats
from replication.activations import NORMALISATIONS, Pair
from replication.formats import FORMATS, load, save, verify
from replication.paths import ROOT
from replication.sae import ARCHITECTURES, SAE, JumpReLU, TopK

sys.path.insert(0, str(ROOT / "benchmarks"))
import environments

D_IN, D_SAE = test_sae.D_IN, test_sae.D_SAE
GEMMA_PATH = "layer_3/width_16k/average_l0_7"


def supported() -> list[tuple[str, str, int | None, str]]:
    """(format, architecture, d_out, normalisation) that can be written."""
    found = []
    for name, kind in FORMATS.items():
        for held, widths in ((kind.holds, (None,)), (kind.transcoders, (4, D_IN))):
            found += [(name, architecture, d_out, "gemma") for architecture in held for d_out in widths]
    found = [one for one in found if one[:3] != ("sparsify", "topk", 4) and one[:2] != ("openai", "topk")]
    return [*found, ("openai", "topk", None, "layernorm"), ("saelens", "topk", None, "layernorm")] + [
        ("saelens", "jumprelu", None, "layernorm")
    ]


each_supported = pytest.mark.parametrize("format, name, d_out, normalisation", supported())


def example(name: str, d_out: int | None = None, normalisation: str = "gemma", **options) -> SAE:
    return test_folding.trained_like(name, d_out, normalisation, **options).float()


def inputs(n: int = 200) -> torch.Tensor:
    return test_folding.raw(n, seed=3).float()


def written(folder: Path, name: str, format: str, **options) -> Path:
    save(example(name, **options), folder, format)
    return folder


def edit_json(file: Path, **changes) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (config | changes).items() if value != "absent"}))


def edit_tensors(file: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)


# ---------------------------------------------------------------------------------- what the published code computes


def topk(pre: torch.Tensor, k: int) -> torch.Tensor:
    top = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())


def layer_norm(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return (x - mean) / (std + 1e-5), mean, std


def double(found: dict) -> dict:
    return {name: value.double() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def published_gemma_scope(folder: Path, x: torch.Tensor):
    p = double({name: torch.from_numpy(value) for name, value in np.load(folder / "params.npz").items()})
    pre = x @ p["W_enc"] + p["b_enc"]
    latents = pre.relu() * (pre > p["threshold"])
    return latents, latents @ p["W_dec"] + p["b_dec"]


def published_openai(folder: Path, x: torch.Tensor):
    p = double(torch.load(folder / "autoencoder.pt", weights_only=True))
    normalise = p["activation"] == "TopK"
    x, mean, std = layer_norm(x) if normalise else (x, 0, 1)
    pre = (x - p["pre_bias"]) @ p["encoder.weight"].T + p["latent_bias"]
    latents = topk(pre, p["activation_state_dict"]["k"]) if normalise else pre.relu()
    return latents, (latents @ p["decoder.weight"].T + p["pre_bias"]) * std + mean


def published_saelens(folder: Path, x: torch.Tensor):
    p, cfg = double(load_file(folder / "sae_weights.safetensors")), json.loads((folder / "cfg.json").read_text())
    x, mean, std = layer_norm(x) if cfg["normalize_activations"] == "layer_norm" else (x, 0, 1)
    x = x - p["b_dec"] if cfg["apply_b_dec_to_input"] else x
    if cfg["architecture"] == "gated":
        gate = x @ p["W_enc"] + p["b_gate"]
        latents = (x @ (p["W_enc"] * p["r_mag"].exp()) + p["b_mag"]).relu() * (gate > 0)
    else:
        pre = x @ p["W_enc"] + p["b_enc"]
        latents = topk(pre, cfg["k"]) if cfg["architecture"] == "topk" else pre.relu() * (pre > p.get("threshold", 0))
    return latents, (latents @ p["W_dec"] + p["b_dec"]) * std + mean


def published_sparsify(folder: Path, x: torch.Tensor):
    p, cfg = double(load_file(folder / "sae.safetensors")), json.loads((folder / "cfg.json").read_text())
    x = x if cfg["transcode"] else x - p["b_dec"]
    latents = topk((x @ p["encoder.weight"].T + p["encoder.bias"]).relu(), cfg["k"])
    return latents, latents @ p["W_dec"] + p["b_dec"]


def published_dictionary_learning(folder: Path, x: torch.Tensor):
    p = double(torch.load(folder / "ae.pt", weights_only=True))
    match json.loads((folder / "config.json").read_text())["trainer"]["dict_class"]:
        case "AutoEncoder":
            latents = ((x - p["bias"]) @ p["encoder.weight"].T + p["encoder.bias"]).relu()
            return latents, latents @ p["decoder.weight"].T + p["bias"]
        case "GatedAutoEncoder":
            product = (x - p["decoder_bias"]) @ p["encoder.weight"].T
            latents = (p["r_mag"].exp() * product + p["mag_bias"]).relu() * (product + p["gate_bias"] > 0)
            return latents, latents @ p["decoder.weight"].T + p["decoder_bias"]
        case "JumpReluAutoEncoder":
            pre = x @ p["W_enc"] + p["b_enc"]
            latents = (pre * (pre > p["threshold"])).relu()
            return latents, latents @ p["W_dec"] + p["b_dec"]
        case "AutoEncoderTopK":
            latents = topk(((x - p["b_dec"]) @ p["encoder.weight"].T + p["encoder.bias"]).relu(), int(p["k"]))
            return latents, latents @ p["decoder.weight"].T + p["b_dec"]
        case "BatchTopKSAE":
            latents = ((x - p["b_dec"]) @ p["encoder.weight"].T + p["encoder.bias"]).relu()
            latents = latents * (latents > p["threshold"])
            return latents, latents @ p["decoder.weight"].T + p["b_dec"]
        case "MatryoshkaBatchTopKSAE":
            latents = ((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]).relu()
            latents = latents * (latents > p["threshold"])
            return latents, latents @ p["W_dec"] + p["b_dec"]


PUBLISHED = {
    "gemma-scope": published_gemma_scope,
    "openai": published_openai,
    "saelens": published_saelens,
    "sparsify": published_sparsify,
    "dictionary-learning": published_dictionary_learning,
}


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """To 1e-5 of the largest value, and active in the same places."""
    found, wanted = found.double(), wanted.double()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


@each_supported
def test_what_is_written_and_read_back_computes_the_same(format, name, d_out, normalisation, tmp_path):
    sae, x = example(name, d_out, normalisation), inputs()
    save(sae, tmp_path, format)
    again = load(tmp_path, transcoder=d_out is not None)
    assert (again.d_out is None) == (d_out is None) and not again.training
    plain = sae.folded() if normalisation == "gemma" else sae
    latents, again_latents = (one(one.normalise(x).x).latents for one in (plain, again))
    assert 0 < latents.count_nonzero() < latents.numel() and torch.equal(latents != 0, again_latents != 0)
    close(again_latents, latents)
    close(again.reconstruct(x), sae.reconstruct(x))


@each_supported
def test_files_mean_to_us_what_they_mean_to_the_library_they_belong_to(format, name, d_out, normalisation, tmp_path):
    save(example(name, d_out, normalisation), tmp_path, format)
    sae, x = load(tmp_path, transcoder=d_out is not None), inputs()
    latents, recon = PUBLISHED[format](tmp_path, x.double())
    close(sae(sae.normalise(x).x).latents, latents)
    close(sae.reconstruct(x), recon)


@pytest.mark.parametrize("format", FORMATS)
def test_a_loaded_sae_can_be_written_again_and_saved_as_ours(format, tmp_path):
    normalisation = "layernorm" if format == "openai" else "none"
    name = "topk" if "topk" in FORMATS[format].holds else "jumprelu"
    save(example(name, normalisation=normalisation), tmp_path / "first", format)
    sae = load(tmp_path / "first")
    save(sae, tmp_path / "second", format)
    x = inputs()
    close(load(tmp_path / "second").reconstruct(x), sae.reconstruct(x))
    sae.save(tmp_path / "ours.safetensors")
    assert sae.config()["unit_norm"] and sae.W_enc.T.is_contiguous()


def test_a_loaded_sae_can_be_trained_further(tmp_path):
    sae = load(written(tmp_path, "topk", "sparsify")).train()
    sae.objective(inputs(), test_sae.NONE_DEAD).loss.backward()
    assert sae.W_enc.grad.abs().max() > 0 and sae.k == test_sae.DIALS["topk"]


# ------------------------------------------------------------------------------------------------------ Gemma Scope


def fixture(root: Path, **changes) -> Path:
    """d_in 16, d_sae 64, unit rows, W_enc their transpose, thresholds above 0, in the layout of the hub."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(64, 16, generator=generator), dim=-1)
    arrays = {
        "W_enc": rows.T.numpy(),
        "W_dec": rows.numpy(),
        "b_enc": np.zeros(64, np.float32),
        "b_dec": np.linspace(-1, 1, 16, dtype=np.float32),
        "threshold": np.linspace(0.5, 1.5, 64, dtype=np.float32),
    }
    folder = root / GEMMA_PATH
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(folder / "params.npz", **kept)
    return root


def test_gemma_scope_in_the_layout_of_the_hub(tmp_path):
    sae, x = load(fixture(tmp_path), GEMMA_PATH), 2 * torch.randn(500, 16, generator=torch.Generator().manual_seed(1))
    assert isinstance(sae, JumpReLU) and (sae.d_in, sae.d_sae) == (16, 64)  # of the arrays, whatever the folder says
    assert {value.dtype for value in sae.state_dict().values()} == {torch.float32}
    latents, recon = published_gemma_scope(tmp_path / GEMMA_PATH, x.double())
    close(sae(x).latents, latents)
    close(sae(x).recon, recon)
    active = sae(x).latents
    assert ((active == 0) | (active > sae.theta)).all() and active.count_nonzero() > 100


def test_a_path_says_layer_width_and_l0():
    assert formats.gemma_scope_place("layer_20/width_16k/average_l0_71") == (20, 2**14, 71)
    widths = {"4k": 12, "32k": 15, "65k": 16, "131k": 17, "262k": 18, "524k": 19, "1m": 20}
    for label, exponent in widths.items():
        assert formats.gemma_scope_place(f"x/layer_0/width_{label}/average_l0_9/params.npz").width == 2**exponent
    with pytest.raises(ValueError, match="path must be like"):
        formats.gemma_scope_place("layer_20/average_l0_71")


def test_lower_case_names_and_a_scale_of_one_are_accepted(tmp_path):
    plain = load(fixture(tmp_path / "a"), GEMMA_PATH)
    arrays = dict(np.load(tmp_path / "a" / GEMMA_PATH / "params.npz"))
    lower = {"w_enc": arrays["W_enc"], "w_dec": arrays["W_dec"], "W_enc": None, "W_dec": None}
    other = load(fixture(tmp_path / "b", scaling_factor=np.ones(64, np.float32), **lower), GEMMA_PATH)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="scaling_factor must be 1"):
        load(fixture(tmp_path / "c", scaling_factor=np.full(64, 2, np.float32)), GEMMA_PATH)


def test_a_negative_threshold_is_a_relu(tmp_path):
    root = fixture(tmp_path, threshold=np.full(64, -1, np.float32))
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    close(load(root, GEMMA_PATH)(x).latents, published_gemma_scope(root / GEMMA_PATH, x.double())[0])


def test_folding_of_a_training_scale_by_hand(tmp_path):
    """C = sqrt(32), b_dec = (1, -1), W_enc = (1, 2)^T: the file has b_enc' = C (0.25 - (1 - 2)), theta' = C / 2."""
    sae = JumpReLU(2, 1, 1.0, threshold=0.5, normalisation="gemma")
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0], [2.0]]))
        sae.W_dec.copy_(torch.tensor([[0.6, 0.8]]))
        sae.b_enc.fill_(0.25)
        sae.b_dec.copy_(torch.tensor([1.0, -1.0]))
    sae.fit_normalisation(torch.tensor([[0.0, 0.0], [8.0, 0.0]]))
    save(sae, tmp_path, "gemma-scope")
    file, scale = np.load(tmp_path / "params.npz"), 32**0.5
    np.testing.assert_allclose(file["b_enc"], [scale * 1.25], rtol=1e-6)
    np.testing.assert_allclose(file["threshold"], [scale / 2], rtol=1e-6)
    np.testing.assert_allclose(file["b_dec"], [scale, -scale], rtol=1e-6)
    assert file["W_enc"].tolist() == [[1.0], [2.0]] and {file[name].dtype for name in file} == {np.dtype("float32")}
    x = torch.tensor([[3.0, 4.0], [-3.0, -4.0]])
    torch.testing.assert_close(load(tmp_path)(x).recon, sae.reconstruct(x))
    torch.testing.assert_close(load(tmp_path)(x).latents[:, 0], torch.tensor([11 + scale * 1.25, 0.0]))


def test_embedding_saes_are_refused(tmp_path):
    fixture(tmp_path)
    (tmp_path / "embedding").mkdir()
    (tmp_path / GEMMA_PATH / "params.npz").rename(tmp_path / "embedding" / "params.npz")
    with pytest.raises(ValueError, match="embeddings.*not supported"):
        load(tmp_path, "embedding")


# ------------------------------------------------------------------------------------------ settings of other formats


def test_openai_layer_norm_by_hand():
    """Mean 2, standard deviation 1: (x - 2) / 1.00001 in, times 1 plus 2 out."""
    normal, undo = NORMALISATIONS["layernorm"].apply(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(normal, torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64) / 1.00001)
    torch.testing.assert_close(undo(normal)[0, 2].item(), 2 + 1 / 1.00001)


def test_openai_files_are_numbered_by_layer(tmp_path):
    written(tmp_path, "topk", "openai", normalisation="layernorm")
    (tmp_path / "autoencoder.pt").rename(tmp_path / "8.pt")
    sae = load(tmp_path, "8.pt")
    assert isinstance(sae, TopK) and sae.normalisation == "layernorm"
    with pytest.raises(ValueError, match="must hold one of"):
        load(tmp_path)


def openai_edited(folder: Path, **changes) -> Path:
    written(folder, "topk", "openai", normalisation="layernorm")
    state = torch.load(folder / "autoencoder.pt", weights_only=True) | changes
    torch.save({name: value for name, value in state.items() if value is not None}, folder / "autoencoder.pt")
    return folder


def test_openai_without_an_activation_is_relu_and_others_are_refused(tmp_path):
    old = openai_edited(tmp_path / "a", activation=None, activation_state_dict=None, stats_last_nonzero=None)
    assert type(load(old)).__name__ == "ReLU" and load(old).normalisation == "none"
    with pytest.raises(ValueError, match="activation must be.*'Identity'"):
        load(openai_edited(tmp_path / "b", activation="Identity"))
    with pytest.raises(ValueError, match="activation must be.*Identity"):
        load(openai_edited(tmp_path / "c", activation_state_dict={"k": 3, "postact_fn": "Identity"}))
    with pytest.raises(ValueError, match="unknown.*decoder.linear.weight"):
        load(openai_edited(tmp_path / "d", **{"decoder.linear.weight": torch.zeros(2)}))


def test_saelens_of_before_6_has_its_k_in_a_nested_record(tmp_path):
    """A TopK file of before version 6 calls itself standard; read as ReLU it would have many times the L0."""
    sae = load(written(tmp_path, "topk", "saelens"))
    old = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": sae.k}}
    flat = {"normalize_activations": False, "l1_coefficient": 0.1, "metadata": "absent", "k": "absent"}
    edit_json(tmp_path / "cfg.json", **old, **flat)
    again = load(tmp_path)
    assert isinstance(again, TopK) and again.k == sae.k
    close(again(inputs()).latents, sae(inputs()).latents)


@pytest.mark.parametrize("name", ["relu", "jumprelu", "gated", "topk"])
def test_saelens_without_a_pre_encoder_bias(name, tmp_path):
    edit_json(written(tmp_path, name, "saelens") / "cfg.json", apply_b_dec_to_input=False)
    latents, recon = published_saelens(tmp_path, inputs().double())
    close(load(tmp_path)(inputs()).latents, latents)
    close(load(tmp_path)(inputs()).recon, recon)


def test_saelens_topk_on_norms_of_decoder_rows(tmp_path):
    """latents = TopK(|d_i| pre_i), decoded with unit rows."""
    edit_json(written(tmp_path, "topk", "saelens") / "cfg.json", rescale_acts_by_decoder_norm=True)
    norms = torch.linspace(0.5, 2, D_SAE)
    edit_tensors(tmp_path / "sae_weights.safetensors", lambda p: p.update(W_dec=p["W_dec"] * norms.unsqueeze(-1)))
    p, sae, x = load_file(tmp_path / "sae_weights.safetensors"), load(tmp_path), inputs()
    latents = topk(((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]) * norms, sae.k)
    close(sae(x).latents, latents)
    close(sae(x).recon, (latents / norms) @ p["W_dec"] + p["b_dec"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(dtype, tmp_path):
    written(tmp_path, "jumprelu", "saelens")
    halves = {name: value.to(dtype) for name, value in load_file(tmp_path / "sae_weights.safetensors").items()}
    save_file(halves, tmp_path / "sae_weights.safetensors")
    sae = load(tmp_path)
    assert {value.dtype for value in sae.state_dict().values()} == {torch.float32}
    assert torch.equal(sae.W_dec, halves["W_dec"].float()) and torch.equal(sae.theta, halves["threshold"].float())


def test_sparsify_width_from_the_expansion_factor(tmp_path):
    sae = TopK(4, 8, 2)
    save(sae, tmp_path, "sparsify")
    edit_json(tmp_path / "cfg.json", num_latents=0, expansion_factor=2, signed=False)
    assert torch.equal(load(tmp_path).W_enc, sae.W_enc)
    edit_json(tmp_path / "cfg.json", expansion_factor=3)
    with pytest.raises(ValueError, match=r"encoder.bias must have the shape \(d_sae\) = \(12\), got \(8,\)"):
        load(tmp_path)


def test_dictionary_learning_groups_and_thresholds(tmp_path):
    sae = load(written(tmp_path, "matryoshka", "dictionary-learning"))
    assert type(sae).__name__ == "Matryoshka" and sae.groups == 5 and sae.threshold > 0
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    assert state["group_sizes"].tolist() == [1, 1, 2, 4, 8]
    torch.save(state | {"group_sizes": torch.tensor([4, 12]), "threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    other = load(tmp_path)  # other groups, and a threshold that was never set: all of ReLU
    assert type(other).__name__ == "BatchTopK" and other.threshold == 0
    close(other(inputs()).latents, published_dictionary_learning(tmp_path, inputs().double())[0])
    edit_json(tmp_path / "config.json", trainer={"dict_class": "MatryoshkaBatchTopKSAE", "k": 9})
    with pytest.raises(ValueError, match="k is 3, in config.json 9"):
        load(tmp_path)


def test_dictionary_learning_without_a_pre_encoder_bias(tmp_path):
    state = torch.load(written(tmp_path, "relu", "dictionary-learning") / "ae.pt", weights_only=True)
    state["decoder.bias"] = state.pop("bias")
    torch.save(state, tmp_path / "ae.pt")
    edit_json(tmp_path / "config.json", trainer={"dict_class": "AutoEncoderNew"})
    x, p = inputs(), double(state)
    latents = (x.double() @ p["encoder.weight"].T + p["encoder.bias"]).relu()
    close(load(tmp_path)(x).latents, latents)
    close(load(tmp_path)(x).recon, latents @ p["decoder.weight"].T + p["decoder.bias"])


# ---------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("d_out", [None, 4], ids=["autoencoder", "transcoder"])
def test_what_a_format_cannot_hold_is_refused_by_name(format, name, d_out, tmp_path):
    held = FORMATS[format].holds if d_out is None else FORMATS[format].transcoders
    if name not in held:
        with pytest.raises(ValueError, match=f"format '{format}' holds .*, got '{name}'"):
            save(test_sae.make(name, d_out=d_out), tmp_path, format)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "format, name, options, message",
    [
        ("gemma-scope", "jumprelu", {"normalisation": "gao"}, "normalisation.*'gao'"),
        ("gemma-scope", "jumprelu", {"normalisation": "layernorm"}, "normalisation.*'layernorm'"),
        ("openai", "topk", {"normalisation": "none"}, "'layernorm' for TopK, got 'none'"),
        ("openai", "topk", {"normalisation": "gao"}, "normalisation.*'gao'"),
        ("openai", "relu", {"normalisation": "layernorm"}, "'none' for ReLU, got 'layernorm'"),
        ("saelens", "topk", {"normalisation": "lee"}, "normalisation.*'lee'"),
        ("sparsify", "topk", {"d_out": 4}, "d_out = d_in = 6, got d_out=4"),
        ("gemma-scope", "relu", {"normalisation": "gemma"}, "not finite; was its normalisation fitted"),
        ("huggingface", "relu", {}, "format must be one of.*'huggingface'"),
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(format, name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save(test_sae.make(name, **options), tmp_path, format)


def test_a_fractional_k_is_refused_where_k_is_whole(tmp_path):
    sae = ARCHITECTURES["batchtopk"](D_IN, D_SAE, 2.5)
    with pytest.raises(ValueError, match="sparsity=2.5"):
        save(sae, tmp_path, "dictionary-learning")
    save(sae, tmp_path, "saelens")  # holds thresholds, not k


class Payload:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_never_run(tmp_path):
    mark, payload = tmp_path / "mark", Payload(tmp_path / "mark")
    with pytest.raises(ValueError, match="params.npz: not an npz of plain arrays"):
        load(fixture(tmp_path / "a", b_enc=np.array([payload], dtype=object)), GEMMA_PATH)
    fixture(tmp_path / "b")
    (tmp_path / "b" / GEMMA_PATH / "params.npz").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match="params.npz: not an npz of plain arrays"):
        load(tmp_path / "b", GEMMA_PATH)
    written(tmp_path / "c", "relu", "dictionary-learning")
    torch.save({"bias": payload}, tmp_path / "c" / "ae.pt")
    with pytest.raises(ValueError, match="ae.pt: not a plain state dict"):
        load(tmp_path / "c")
    torch.save(payload, tmp_path / "8.pt")
    with pytest.raises(ValueError, match="8.pt: not a plain state dict"):
        load(tmp_path, "8.pt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(payload))  # the control: this is what would have happened
    assert mark.exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"W_dec": None}, r"params.npz: missing \['W_dec'\]"),
        ({"extra": np.zeros(3, np.float32)}, r"params.npz: unknown \['extra'\]"),
        (
            {"W_enc": np.zeros((64, 16), np.float32)},
            r"W_enc must have the shape \(d_in, d_sae\) = \(16, 64\), got \(64, 16\)",
        ),
        (
            {"threshold": np.zeros(63, np.float32)},
            r"threshold must have the shape \(d_sae\) = \(64\), got \(63,\)",
        ),
        ({"W_dec": np.zeros((64, 8), np.float32)}, r"W_dec .* = \(64, 16\), got \(64, 8\)"),
        ({"b_dec": np.zeros((), np.float32)}, r"b_dec .*got \(\)"),
        ({"b_enc": np.zeros(64, np.int64)}, "b_enc must be float32, float16 or bfloat16, got torch.int64"),
        ({"b_enc": np.full(64, np.nan, np.float32)}, "b_enc holds values that are not finite"),
        ({"b_enc": np.array(["a"] * 64)}, "not an npz of plain arrays"),
    ],
)
def test_a_file_is_checked_before_it_is_believed(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(fixture(tmp_path, **changes), GEMMA_PATH)


def test_a_transcoder_of_gemma_scope_has_to_be_called_one(tmp_path):
    root = fixture(tmp_path, W_dec=np.ones((64, 8), np.float32), b_dec=np.zeros(8, np.float32))
    with pytest.raises(ValueError, match=r"W_enc must have the shape \(d_in, d_sae\) = \(8, 64\)"):
        load(root, GEMMA_PATH)
    sae = load(root, GEMMA_PATH, transcoder=True)
    assert (sae.d_in, sae.d_out) == (16, 8) and not sae.b_pre.any() and not sae.unit_norm


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "matching_pursuit"}, "architecture must be one of.*'matching_pursuit'"),
        ({"architecture": "skip_transcoder"}, "architecture must be one of.*'skip_transcoder'"),
        ({"normalize_activations": "expected_average_only_in"}, "normalize_activations.*'expected_average_only_in'"),
        ({"normalize_activations": "constant_norm_rescale"}, "normalize_activations.*'constant_norm_rescale'"),
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations.*'covariance_whitening'"),
        ({"activation_fn": "tanh-relu"}, "activation_fn must be one of.*'tanh-relu'"),
        ({"l1_coefficient": 1}, r"cfg.json: unknown settings \['l1_coefficient'\]"),
        ({"finetuning_scaling_factor": True, "metadata": "absent"}, "finetuning_scaling_factor"),
        ({"d_in": "absent"}, "cfg.json: d_in must be a whole number of at least 1, got None"),
        ({"d_sae": 17}, r"b_enc must have the shape \(d_sae\) = \(17\), got \(16,\)"),
    ],
)
def test_settings_of_saelens_are_obeyed_or_refused(changes, message, tmp_path):
    edit_json(written(tmp_path, "jumprelu", "saelens") / "cfg.json", **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"activation": "groupmax"}, "activation must be one of.*'groupmax'"),
        ({"skip_connection": True}, "skip_connection"),
        ({"signed": True}, "signed"),
        ({"encoder_halves": 2}, r"unknown settings \['encoder_halves'\]"),
        ({"k": "absent"}, "k must be a whole number"),
    ],
)
def test_settings_of_sparsify_are_obeyed_or_refused(changes, message, tmp_path):
    edit_json(written(tmp_path, "topk", "sparsify") / "cfg.json", **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_settings_of_dictionary_learning_are_obeyed_or_refused(tmp_path):
    file = written(tmp_path, "relu", "dictionary-learning") / "config.json"
    edit_json(file, trainer={"dict_class": "IdentityDict"})
    with pytest.raises(ValueError, match="trainer.dict_class must be one of.*'IdentityDict'"):
        load(tmp_path)
    edit_json(file, trainer="absent")
    with pytest.raises(ValueError, match="config.json: 'trainer' is missing"):
        load(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="config.json: cannot be read"):
        load(tmp_path)


def test_damaged_and_ambiguous_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold one of.*found none"):
        load(tmp_path)
    written(tmp_path, "topk", "sparsify")
    written(tmp_path, "topk", "saelens")
    with pytest.raises(ValueError, match="found .*'sae_weights.safetensors', 'sae.safetensors'"):
        load(tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="sae_weights.safetensors: not a safetensors file"):
        load(tmp_path, "sae_weights.safetensors")
    with pytest.raises(ValueError, match="cfg.json: must be one of"):
        load(tmp_path, "cfg.json")
    with pytest.raises(ValueError, match="where must be a folder that exists or a hub repository"):
        load("no/such/folder")


# --------------------------------------------------------------------------------------------------------------- hub


def test_the_hub_is_asked_for_one_sae_at_a_pinned_revision(tmp_path, monkeypatch):
    fixture(tmp_path)
    asked = {}

    def download(repository, **arguments):
        asked.update(arguments, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(formats, "snapshot_download", download)
    sae = load("google/gemma-scope-2b-pt-res", GEMMA_PATH)
    assert sae.d_out is None and asked["repository"] == "google/gemma-scope-2b-pt-res"
    assert len(asked["revision"]) == 40 and f"{GEMMA_PATH}/params.npz" in asked["allow_patterns"]
    assert not any("*" in pattern for pattern in asked["allow_patterns"])
    transcoder = load("google/gemma-scope-2b-pt-transcoders", GEMMA_PATH, revision="abc")
    assert transcoder.d_out == 16 and asked["revision"] == "abc"
    load("someone/else", GEMMA_PATH)
    assert asked["revision"] == "main"
    load("someone/else", f"{GEMMA_PATH}/params.npz")
    assert f"{GEMMA_PATH}/params.npz" in asked["allow_patterns"]


def test_no_hub_is_one_line_that_names_repository_and_revision(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known\nand so on")

    monkeypatch.setattr(formats, "snapshot_download", unreachable)
    with pytest.raises(
        OSError, match="'a/b' of 'google/x' at revision 'main' from the hub: Name or service not known$"
    ):
        load("google/x", "a/b")


def test_revision_and_transcoder_must_fit_the_place(tmp_path):
    written(tmp_path, "topk", "sparsify")
    with pytest.raises(ValueError, match="revision is for the hub.*'main'"):
        load(tmp_path, revision="main")
    with pytest.raises(ValueError, match="transcoder must be False for this file, got True"):
        load(tmp_path, transcoder=True)


# ------------------------------------------------------------------------------------------------------------ verify


def test_verify_by_hand():
    """Two latents, thresholds 1: (3, 0) and (0, 0.5) have 1 and 0 active; errors 0 and 0.25 of a spread of 4.625."""
    sae = JumpReLU(2, 2, 1.0, threshold=1.0)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    x = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    found = verify(sae.eval(), x, l0=0.5, fvu=0.054)
    assert found.l0 == 0.5 and found.fvu == pytest.approx(0.25 / 4.625)
    with pytest.raises(
        ValueError, match="on 2 activations L0 must be within 10% of 1, got 0.5; FVU .*of 0.5, got 0.054"
    ):
        verify(sae, x, l0=1, fvu=0.5)
    assert verify(sae, x, l0=1, l0_tolerance=0.5).l0 == 0.5
    with pytest.raises(ValueError, match="needs what was stated"):
        verify(sae, x)
    with pytest.raises(ValueError, match="FVU must be within 0.02 of 0.1, got nan"):
        verify(sae, torch.full((2, 2), torch.nan), fvu=0.1)


def test_verify_catches_a_topk_file_that_is_read_as_relu(tmp_path):
    sae = load(written(tmp_path, "topk", "saelens"))
    assert verify(sae, inputs(), l0=sae.k).l0 <= sae.k
    edit_json(tmp_path / "cfg.json", architecture="standard")
    with pytest.raises(ValueError, match="L0 must be within 10% of 3, got"):
        verify(load(tmp_path), inputs(), l0=sae.k)


def test_verify_measures_a_transcoder_on_its_targets(tmp_path):
    sae, x = example("topk", 4), inputs()
    targets = sae.reconstruct(x)
    found = verify(sae, Pair(x, targets), fvu=0)
    assert found.fvu == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------------------------------- the peers

PEERS = {  # what runs in a peer's own environment: load ours, run it, and save it again with the peer's own code
    "saelens": (
        "sae-lens",
        """
        from sae_lens import SAE
        for folder in folders:
            sae = SAE.load_from_disk(folder)
            latents = sae.encode(x)
            report(folder, latents, sae.decode(latents))
            sae.save_model(folder / "again")
        """,
    ),
    "sparsify": (
        "eai-sparsify",
        """
        from sparsify import SparseCoder
        for folder in folders:
            sae = SparseCoder.load_from_disk(folder)
            values, indices, pre = sae.encode(x)
            report(folder, torch.zeros_like(pre).scatter(-1, indices, values), sae.decode(values, indices))
            sae.save_to_disk(folder / "again")
        """,
    ),
    "dictionary-learning": (
        "dictionary-learning",
        """
        import shutil
        from dictionary_learning.utils import load_dictionary
        for folder in folders:
            sae, config = load_dictionary(str(folder), device="cpu")
            latents = sae.encode(x)
            report(folder, latents, sae.decode(latents))
            (folder / "again").mkdir()
            torch.save(sae.state_dict(), folder / "again" / "ae.pt")
            shutil.copy(folder / "config.json", folder / "again")
        """,
    ),
}
HEAD = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
torch.set_grad_enabled(False)
x, folders = load_file(sys.argv[1])["x"], [Path(name) for name in sys.argv[2:]]
def report(folder, latents, recon):
    save_file({"latents": latents.contiguous(), "recon": recon.contiguous()}, folder / "peer.safetensors")
"""


@pytest.mark.parametrize("format", PEERS)
def test_our_saes_load_in_the_library_that_the_format_belongs_to(format, tmp_path):
    """And what that library saves loads here. Environments are never made by a test; `make bench` makes them."""
    peer, script = PEERS[format]
    home = environments.FOLDER / peer
    if not (home / "installed").exists():
        pytest.skip(f"{peer} has no environment here; `make bench` creates it")
    x = inputs()
    save_file({"x": x}, tmp_path / "x.safetensors")
    cases = {"-".join(map(str, one[1:])): one for one in supported() if one[0] == format}
    ours = {}
    for case, (_, name, d_out, normalisation) in cases.items():
        ours[case] = example(name, d_out, normalisation)
        save(ours[case], tmp_path / case, format)
    lines = "\n".join(line[8:] for line in script.splitlines())
    arguments = [str(tmp_path / "x.safetensors"), *(str(tmp_path / case) for case in cases)]
    done = subprocess.run(
        [str(home / "bin" / "python"), "-c", HEAD + lines, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for case, sae in ours.items():
        theirs, again = load_file(tmp_path / case / "peer.safetensors"), load(tmp_path / case / "again")
        close(theirs["recon"], sae.reconstruct(x))
        close(again.reconstruct(x), sae.reconstruct(x))
        close(again(again.normalise(x).x).latents, theirs["latents"])
