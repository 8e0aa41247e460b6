"""Train, load, hook and patch one language model.

A site is a point of the forward pass with TransformerLens' name: `blocks.{l}.hook_resid_pre`, `blocks.{l}.attn.hook_z`
(attention before W_O, heads concatenated), `blocks.{l}.mlp.hook_in` (what the MLP reads, behind its layer norm),
`blocks.{l}.hook_mlp_out`, `blocks.{l}.hook_resid_post`. Two backends resolve the names: TransformerBridge (any
architecture it knows) and, where transformer_lens is not installed, the plain modules of a GPT-2-architecture model.
Both give a table name -> `Site`; everything after the table is the same code.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from replication.corpora import TokenFile
from replication.paths import CACHE, MODELS
from replication.shapes import Float, Int, Tensor

SITES = (
    "blocks.{l}.hook_resid_pre",
    "blocks.{l}.attn.hook_z",
    "blocks.{l}.mlp.hook_in",
    "blocks.{l}.hook_mlp_out",
    "blocks.{l}.hook_resid_post",
)

RECIPES = {
    "pygpt-0.5m": {"d_model": 64, "layers": 2, "heads": 1, "peak_lr": 4e-3, "tokens": 300_000_000},
    "pygpt-2m": {"d_model": 128, "layers": 4, "heads": 2, "peak_lr": 3e-3, "tokens": 600_000_000},
    "pygpt-7m": {"d_model": 256, "layers": 6, "heads": 4, "peak_lr": 2e-3, "tokens": 1_105_000_000},
    "pygpt-23m": {"d_model": 512, "layers": 6, "heads": 8, "peak_lr": 1.2e-3, "tokens": 663_000_000},
}
VOCAB = 8192
CONTEXT = 256
WARMUP_STEPS = 300
VALIDATION_MARKS = 12

Patches = Mapping[str, Callable[[Tensor], Tensor]]


class Site(NamedTuple):
    """Where a hook name lives: the `side` ("in" or "out") of an ordinary module, and the width of the activation."""

    module: nn.Module
    side: str
    width: int


class _Stop(Exception):
    """Raised by a hook once the last requested site has fired: nothing after it is computed."""


@dataclass(eq=False)
class LanguageModel:
    """A frozen causal language model whose sites can be read and replaced. Made by `load`."""

    name: str
    backend: str
    """"bridge" (TransformerBridge) or "plain" (transformers' GPT-2)."""
    device: torch.device
    dtype: torch.dtype
    d_model: int
    n_layers: int
    n_ctx: int
    d_vocab: int
    tokenizer: Tokenizer | None = field(repr=False)
    """None where a local folder comes without one."""
    fingerprint: str
    """12 hexadecimal digits of sha256 over config.json and the weights; for a hub model its revision."""
    module: nn.Module = field(repr=False)
    table: Mapping[str, Site] = field(repr=False)

    def sites(self) -> list[str]:
        """Every hook name, in the order of the forward pass."""
        return list(self.table)

    def width(self, hook: str) -> int:
        """Number of dimensions of the activation at `hook`."""
        return self._site(hook).width

    @torch.no_grad()
    def activations(
        self, tokens: Int[Tensor, "batch pos"], hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch pos width"]]:
        """Activations at `hooks`. The forward pass ends at the last of them: later blocks cost nothing."""
        found: dict[str, Tensor] = {}

        def read(name: str, activation: Tensor) -> None:
            found[name] = activation
            if len(found) == len(set(hooks)):
                raise _Stop

        with self._hooked({name: partial(read, name) for name in hooks}), contextlib.suppress(_Stop):
            self._forward(tokens)
        return {name: found[name] for name in hooks}

    def logits(
        self, tokens: Int[Tensor, "batch pos"], patches: Patches | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits with the activation at each named site replaced by `patches[name](activation)`.

        Gradients flow through the patches when the caller has them enabled; the model's own parameters are frozen.
        Raises ValueError if a patch changes the shape or the dtype.
        """
        with self._hooked({name: partial(_checked, name, patch) for name, patch in (patches or {}).items()}):
            return self._forward(tokens)

    @torch.no_grad()
    def loss(self, tokens: Int[Tensor, "batch pos"], patches: Patches | None = None) -> Float[Tensor, "batch pred"]:
        """Next-token cross-entropy in nats, float32; [b, p] is for predicting tokens[b, p + 1], so pred = pos - 1."""
        return next_token_loss(self.logits(tokens, patches), tokens)

    def _site(self, name: str) -> Site:
        if name not in self.table:
            raise ValueError(f"unknown hook {name!r} of {self.name}; known: {_abbreviated(self.n_layers)}")
        return self.table[name]

    @contextlib.contextmanager
    def _hooked(self, actions: Mapping[str, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
        """Call each action with its site's (batch, pos, width) activation; a result other than None replaces it."""
        sites = {name: self._site(name) for name in actions}
        with contextlib.ExitStack() as stack:
            for name, site in sites.items():
                stack.callback(_attach(site, actions[name]).remove)
            yield

    def _forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > self.n_ctx:
            raise ValueError(f"{tokens.shape[1]} tokens in a sequence, but the context of {self.name} is {self.n_ctx}")
        tokens = tokens.to(self.device, torch.long)
        return self.module(input_ids=tokens, use_cache=False, output_attentions=False).logits


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pred"]:
    """-log p(tokens[:, 1:]) in nats, computed in float32; differentiable. log(d_vocab) = a uniform guess."""
    targets = tokens[:, 1:].to(logits.device, torch.long)
    losses = cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.view(targets.shape)


def _abbreviated(n_layers: int) -> str:
    return ", ".join(site.format(l="{l}") for site in SITES) + f" with l = 0 to {n_layers - 1}"


def _attach(site: Site, action: Callable[[Tensor], Tensor | None]) -> torch.utils.hooks.RemovableHandle:
    """Register `action` on a site. Heads that an architecture keeps apart at hook_z are flattened and restored."""

    def act(activation: Tensor) -> Tensor | None:
        new = action(activation.flatten(2))
        return None if new is None else new.reshape(activation.shape)

    def before(_module, args):
        new = act(args[0])
        return None if new is None else (new, *args[1:])

    if site.side == "in":
        return site.module.register_forward_pre_hook(before)
    return site.module.register_forward_hook(lambda _module, _args, output: act(output))


def _checked(name: str, patch: Callable[[Tensor], Tensor], activation: Tensor) -> Tensor:
    new = patch(activation)
    if new.shape != activation.shape or new.dtype != activation.dtype:
        raise ValueError(
            f"the patch at {name!r} must return {tuple(activation.shape)} {activation.dtype}, "
            f"not {tuple(new.shape)} {new.dtype}"
        )
    return new


# Loading


def load(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> LanguageModel:
    """An embedded model ("pygpt-2m"), a folder in Hugging Face format, or a hub id ("owner/name@revision").

    `backend`: "bridge"; "plain" (GPT-2 architectures only, with fused attention: 1.2 to 1.9 times as fast on a CPU);
    "fastest" of the two for this architecture; None for the bridge wherever transformer_lens is installed.
    Raises ValueError for a name that can be none of these, OSError (one line) for a hub model that cannot be fetched.
    """
    source, revision = _resolve(str(name))
    backend = backend or ("bridge" if importlib.util.find_spec("transformer_lens") else "plain")
    if backend not in [*_BACKENDS, "fastest"]:
        raise ValueError(f"unknown backend {backend!r}; known: {', '.join(_BACKENDS)}, fastest")
    with _no_progress_bars(), _one_line_errors(str(name), is_local=isinstance(source, Path)):
        config = AutoConfig.from_pretrained(source, revision=revision)
        if backend == "fastest":
            backend = "plain" if config.model_type == "gpt2" else "bridge"
        tokenizer = _tokenizer(source, revision)
        module, table, sizes = _BACKENDS[backend](source, revision, config, tokenizer, device, dtype)
    return LanguageModel(
        name=str(name),
        backend=backend,
        device=torch.device(device),
        dtype=dtype,
        **sizes,
        tokenizer=tokenizer,
        fingerprint=_fingerprint(source, revision, config),
        module=module.eval().requires_grad_(False),
        table=table,
    )


def embedded() -> list[dict]:
    """One row per embedded model: sizes, training tokens, held-out loss (nats/token), weights on disk (bytes)."""
    return [
        _row(folder) for folder in sorted(MODELS.iterdir(), key=_weights_size) if (folder / "config.json").is_file()
    ]


def _row(folder: Path) -> dict:
    config, log = (json.loads((folder / file).read_text()) for file in ("config.json", "train_log.json"))
    return {
        "name": folder.name,
        "d_model": config["n_embd"],
        "layers": config["n_layer"],
        "heads": config["n_head"],
        "params": log["params"],
        "tokens": log["tokens"],
        "loss": log["val_loss"],
        "bytes": _weights_size(folder),
    }


def _weights_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _resolve(name: str) -> tuple[Path | str, str | None]:
    """(folder, None) or (hub id, revision). A model trained here is found by its bare name if none is embedded."""
    for folder in (MODELS / name, CACHE / "models" / name, Path(name).expanduser()):
        if (folder / "config.json").is_file():
            return folder, None
    hub_id, _, revision = name.partition("@")
    if hub_id.count("/") != 1 or not all(hub_id.split("/")) or hub_id[0] in "./~":
        known = ", ".join(row["name"] for row in embedded())
        raise ValueError(
            f"unknown language model {name!r}; embedded: {known}; otherwise give a folder that holds config.json "
            "or a hub id as owner/name@revision"
        )
    return hub_id, revision or None


def _tokenizer(source: Path | str, revision: str | None) -> Tokenizer | None:
    """The embedded models share one tokenizer.json, which lies next to their folders."""
    if isinstance(source, str):
        return AutoTokenizer.from_pretrained(source, revision=revision).backend_tokenizer
    files = [folder / "tokenizer.json" for folder in (source, source.resolve().parent)]
    return next((Tokenizer.from_file(str(file)) for file in files if file.is_file()), None)


def _fingerprint(source: Path | str, revision: str | None, config) -> str:
    if isinstance(source, str):
        return getattr(config, "_commit_hash", None) or revision or "main"
    digest = hashlib.sha256()
    for file in [source / "config.json", *sorted(source.glob("*.safetensors"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _bridge(source, revision, config, tokenizer, device, dtype) -> tuple[nn.Module, dict[str, Site], dict[str, int]]:
    """The modules inside a TransformerBridge. Its hook points are identity modules: ordinary torch hooks work."""
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge computes attention scores in the model's dtype. A constant offset does not matter to a softmax, but
    # pygpt-7m has scores above 1,000, where bf16 steps by 8: its loss rises from 2.1 to 3.8 unless scores are float32.
    upcast = None if dtype == torch.float32 else {"reorder_and_upcast_attn": True}
    # The bridge wants a tokenizer of its own and would look for it inside the folder; it is never asked to use it.
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer) if tokenizer else None
    bridge = TransformerBridge.boot_transformers(
        str(source),
        device=device,
        dtype=dtype,
        tokenizer=wrapped,
        revision=revision,
        hf_config_overrides=upcast,
    )
    cfg, points = bridge.cfg, bridge.hook_dict
    names = [site.format(l=layer) for layer in range(cfg.n_layers) for site in SITES]
    width = {name: cfg.n_heads * cfg.d_head if name.endswith("hook_z") else cfg.d_model for name in names}
    table = {name: Site(points[name], "out", width[name]) for name in names if name in points}
    sizes = {"d_model": cfg.d_model, "n_layers": cfg.n_layers, "n_ctx": cfg.n_ctx, "d_vocab": cfg.d_vocab}
    return bridge.original_model, table, sizes


def _plain(source, revision, config, tokenizer, device, dtype) -> tuple[nn.Module, dict[str, Site], dict[str, int]]:
    """transformers' own GPT-2, for a machine without transformer_lens."""
    if config.model_type != "gpt2":
        raise ValueError(
            f"{source} is a {config.model_type} model: the plain backend reads gpt2, install transformer-lens"
        )
    model = GPT2LMHeadModel.from_pretrained(source, revision=revision, dtype=dtype).to(device)
    table = {}
    for layer, block in enumerate(model.transformer.h):
        if config.activation_function == "gelu_new":
            block.mlp.act = nn.GELU(approximate="tanh")  # the same function in one pass over memory instead of eight
        modules = ((block, "in"), (block.attn.c_proj, "in"), (block.mlp, "in"), (block.mlp, "out"), (block, "out"))
        table |= {name.format(l=layer): Site(*at, config.n_embd) for name, at in zip(SITES, modules, strict=True)}
    sizes = {
        "d_model": config.n_embd,
        "n_layers": config.n_layer,
        "n_ctx": config.n_positions,
        "d_vocab": config.vocab_size,
    }
    return model, table, sizes


_BACKENDS = {"bridge": _bridge, "plain": _plain}


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silence the bar over the weight tensors, and leave the caller's setting as it was."""
    was_enabled = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers.utils.logging.enable_progress_bar()


@contextlib.contextmanager
def _one_line_errors(name: str, is_local: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = "from its folder" if is_local else "from the hub (no network, or no such model or revision)"
        raise OSError(f"cannot load language model {name!r} {place}: {str(error).strip().splitlines()[0]}") from error


# Training


def train(
    name: str,
    corpus: TokenFile,
    tokens: int | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    folder: Path | None = None,
    batch: int = 256,
    context: int = CONTEXT,
    validation_tokens: int = 2**19,
    tokenizer: Path = MODELS / "tokenizer.json",
) -> dict:
    """Retrain `RECIPES[name]` on `corpus` and save it in Hugging Face format (fp16); returns its log.

    AdamW (0.9, 0.95), weight decay 0.1 on matrices, warm-up, cosine to 5 % of the peak, gradient clip 1, bf16 autocast.
    `folder` is CACHE/models/name unless given; `tokens` is rounded down to whole steps of batch x context tokens.
    Held-out loss (nats per token) is measured at 12 geometric marks.
    Raises FloatingPointError at a loss that is not finite; nothing is saved then.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    steps = (tokens or recipe["tokens"]) // (batch * context)
    blocks, held_out = corpus.blocks("train", context), corpus.blocks("heldout", context)
    held_out = held_out[: max(1, validation_tokens // context)]
    if steps < 1 or len(blocks) < batch:
        raise ValueError(f"{name} needs at least one step of {batch} x {context} tokens, got tokens={tokens}")

    model = _fresh(recipe, seed).to(device)
    optimizer = _adamw(model, recipe["peak_lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_schedule, steps=steps))
    mean_loss = torch.compile(_mean_loss) if device.type == "cuda" else _mean_loss
    marks, log, unchecked, start = _marks(steps), [], [], time.perf_counter()
    progress = tqdm(_batches(blocks, batch, seed), name, steps, unit="step", mininterval=10, file=sys.stderr)
    for step, rows in enumerate(itertools.islice(progress, steps), start=1):
        loss = mean_loss(model, _on(device, rows))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        unchecked.append(loss.detach())
        if step in marks or step % 100 == 0:  # reading a loss waits for the GPU: seldom, but every loss is looked at
            _refuse_non_finite(name, step, unchecked)
            unchecked.clear()
        if step in marks:
            val_loss = _held_out_loss(partial(mean_loss, model), held_out, batch, device)
            row = {"step": step, "tokens": step * batch * context, "val_loss": val_loss}
            log.append(row | {"seconds": time.perf_counter() - start})
    record = _record(name, model, corpus, batch * context, device, seed, log)
    _save(folder or CACHE / "models" / name, model, tokenizer, record)
    return record


def compare(log: dict, stored_log: dict) -> str:
    """One line: the final loss of a retrained model against the stored curve at equal tokens (log-log interpolation).

    A shorter run has finished its learning-rate decay where the stored curve has not, so it may end below the curve.
    """
    tokens, loss = log["tokens"], log["val_loss"]
    curve = _curve(stored_log)
    first, last = curve[0, 0], curve[-1, 0]
    said = f"{log['name']}: held-out loss {loss:.3f} nats/token after {tokens / 1e6:,.1f} M tokens"
    if not first <= tokens <= last * 1.01:  # 1 %: the last step of two batch sizes need not fall on the same token
        return f"{said}; the stored curve covers {first / 1e6:,.1f} M to {last / 1e6:,.1f} M tokens, nothing to compare"
    stored = math.exp(np.interp(math.log(tokens), *np.log(curve).T))
    return f"{said}; the stored curve has {stored:.3f} there ({100 * (loss / stored - 1):+.1f} %)"


def _curve(log: dict) -> np.ndarray:
    """(tokens, loss) rows of a train log. That of pygpt-7m holds rows [step, tokens, training loss, seconds], and
    the held-out loss at the end only."""
    rows = [(row["tokens"], row["val_loss"]) if isinstance(row, dict) else (row[1], row[2]) for row in log["log"]]
    end = (log["tokens"], log["val_loss"])
    return np.array([row for row in rows if row[0] < end[0]] + [end])


def _fresh(recipe: dict, seed: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=CONTEXT,
        n_embd=recipe["d_model"],
        n_layer=recipe["layers"],
        n_head=recipe["heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():  # the initialisation of transformers draws from the global generator
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def _adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def _schedule(step: int, steps: int) -> float:
    """Factor on the peak learning rate: linear warm-up (300 steps, a tenth of a short run), then cosine to 5 %."""
    warmup = max(1, min(WARMUP_STEPS, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))) / 2


def _marks(steps: int) -> set[int]:
    """Steps at which held-out loss is measured: the last one, and back from it by factors of 2^(2/3)."""
    return {max(1, int(steps * 2 ** (-2 * i / 3))) for i in range(VALIDATION_MARKS)}


def _batches(blocks: np.ndarray, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of the (n, context) `blocks`, each once per epoch, ordered by `seed`; incomplete batches are dropped."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(blocks))
        for start in range(0, len(order) - batch + 1, batch):
            yield blocks[np.sort(order[start : start + batch])]


def _on(device: torch.device, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64)).to(device)


def _mean_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.autocast(tokens.device.type, torch.bfloat16):
        return next_token_loss(model(input_ids=tokens, use_cache=False).logits, tokens).mean()


@torch.no_grad()
def _held_out_loss(
    mean_loss: Callable[[Tensor], Tensor], blocks: np.ndarray, batch: int, device: torch.device
) -> float:
    parts = [blocks[start : start + batch] for start in range(0, len(blocks), batch)]
    return sum(mean_loss(_on(device, part)).item() * len(part) for part in parts) / len(blocks)


def _refuse_non_finite(name: str, step: int, losses: list[Tensor]) -> None:
    """`losses` are those of the steps up to and including `step`."""
    values = torch.stack(losses).tolist()
    for i, value in enumerate(values):
        if not math.isfinite(value):
            raise FloatingPointError(f"{name}: training loss is {value} at step {step - len(values) + 1 + i}")


def _record(
    name: str, model: nn.Module, corpus: TokenFile, batch_tokens: int, device: torch.device, seed: int, log: list[dict]
) -> dict:
    return {
        "name": name,
        "params": sum(p.numel() for p in model.parameters()),
        "n_layer": model.config.n_layer,
        "d_model": model.config.n_embd,
        "n_ctx": model.config.n_positions,
        "vocab": model.config.vocab_size,
        "batch_tokens": batch_tokens,
        "peak_lr": RECIPES[name]["peak_lr"],
        "val_loss": log[-1]["val_loss"],
        "tokens": log[-1]["tokens"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "seed": seed,
        "corpus": corpus.fingerprint,
        "log": log,
    }


def _save(folder: Path, model: GPT2LMHeadModel, tokenizer: Path, record: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _no_progress_bars():
        model.half().save_pretrained(folder)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    (folder / "train_log.json").write_text(json.dumps(record, indent=1))
