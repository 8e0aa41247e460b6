"""How far an SAE can be carried from where it was trained: low precision, other text, a fine-tuned model, and from one
side of an MLP to the other (Gemma Scope, sec. 4.4 to 4.6, figures 8 to 11 and 19 to 23; G5 to G9)."""

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice, product
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from replication import language_models, metrics
from replication.activations import LanguageModelActivations, Pairs, spread
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.code_labels import token_labels
from replication.corpora import (
    ROOTS,
    Corpus,
    broken_rule,
    plain_copy,
    published,
    read_source,
    root_folder,
    sha256,
    source_files,
    split_of,
)
from replication.evaluate.downstream import AT_ONCE, subject
from replication.evaluate.reconstruction import passed, reconstruction
from replication.evaluate.splicing import Reconstruct, behind_the_first
from replication.fingerprints import code_fingerprint
from replication.language_models import LanguageModel, Patches, next_token_loss
from replication.papers.gao2024.frontier import late_gain
from replication.papers.jumprelu2024 import scope
from replication.papers.jumprelu2024.frontier import CLOSE
from replication.papers.jumprelu2024.grid import KEY, SEEDS, with_place
from replication.papers.jumprelu2024.scope import MATCHED, log_ratio
from replication.paths import CACHE
from replication.results import Study
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor
from replication.store import trained
from replication.train import Run, estimate_seconds

# ------------------------------------------------------------------------------------------------------------- grids


class Plan(NamedTuple):
    """How much is evaluated and tuned for one subject."""

    contexts: int
    """Contexts of each kind of text and seed: every seed has its own."""
    files: int
    """Held-out files that the kinds of text are taken from."""
    packages: tuple[str, ...]
    """Installed packages that the interactive sessions are taken from, beside the standard library."""
    steps: int
    """Of tuning."""


WITH_SESSIONS = ("networkx", "numpy", "pandas", "scipy", "sklearn", "sympy")
PLANS = {  # subject -> plan
    "pygpt-0.5m": Plan(4, 16, ("numpy",), 4),
    "pygpt-2m": Plan(64, 128, WITH_SESSIONS, 150),
    "pygpt-7m": Plan(128, 1000, WITH_SESSIONS, 400),
    "openai-community/gpt2": Plan(256, 1000, WITH_SESSIONS, 400),
}


def suite_cells(preset: str, sites: tuple[str, ...]) -> list[Run]:
    """SAEs of the suite at one layer, every lambda and seed."""
    plan = scope.PLANS[preset]
    return [
        scope.cell(preset, site, plan.ladder_layer, plan.width, sparsity, seed)
        for seed, site, sparsity in product(SEEDS, sites, plan.lambdas)
    ]


def residual(preset: str) -> list[Run]:
    return suite_cells(preset, ("res",))


def residual_and_mlp(preset: str) -> list[Run]:
    return suite_cells(preset, ("res", "mlp"))


CHEAPER = 1 / 3
"""Lambda of a transcoder over that of the SAE it is compared with: at equal lambda it has half of its L0 or less (seen
in the `smoke` preset), because what it cannot predict is not worth a latent."""


def across_the_mlp(preset: str) -> list[Run]:
    """SAEs of the MLP output, and for each a transcoder from the MLP input to it: the same settings but for lambda."""
    saes = suite_cells(preset, ("mlp",))
    targets = saes[0].source
    pairs = Pairs(replace(targets, hook=targets.hook.replace("hook_mlp_out", "mlp.hook_in")), targets)
    return saes + [replace(run, source=pairs, sparsity=CHEAPER * run.sparsity, tied_init=None) for run in saes]


# ---------------------------------------------------------------------------------------- what all of them measure with


def of_seed(contexts: np.ndarray, seed: int, count: int) -> Int[Tensor, "some context"]:
    """Up to `count` rows of the (n, context) `contexts`, spread over all of them and disjoint from those of other
    seeds: an interval over seeds is then one over texts as well."""
    chosen = spread(len(contexts), count * len(SEEDS))[seed % len(SEEDS) :: len(SEEDS)]
    return torch.from_numpy(contexts[chosen].astype(np.int64))


def heldout_contexts(where: LanguageModelActivations, seed: int) -> Int[Tensor, "some context"]:
    """Contexts of a seed from the held-out text of a source."""
    text = where.corpus.build(subject(where).tokenizer).blocks("heldout", where.context)
    return of_seed(text, seed, PLANS[where.model].contexts)


def in_place(where: LanguageModelActivations, reconstruct: Reconstruct) -> Patches:
    """Reconstructions in place of the activations of a source, those of the positions it skips unchanged."""
    patch = behind_the_first(where, reconstruct)
    return {where.hook: lambda activation: patch(activation.flatten(0, 1)).view_as(activation)}


def across(where: Pairs, predict: Reconstruct) -> Patches:
    """A transcoder in place of what it stands for: it reads at the hook of the inputs, and its prediction replaces the
    activation at the hook of the targets, but at the positions that the source skips."""
    kept: list[Tensor] = []

    def read(activation: Tensor) -> Tensor:
        kept.append(activation.flatten(0, 1))
        return activation

    def write(activation: Tensor) -> Tensor:
        predicted = predict(kept.pop())
        return behind_the_first(where.targets, lambda rows: predicted)(activation.flatten(0, 1)).view_as(activation)

    return {where.inputs.hook: read, where.targets.hook: write}


def loss_behind(
    where: LanguageModelActivations, model: LanguageModel, tokens: Tensor, patches: Patches | None = None
) -> float:
    """Cross-entropy (nats per token) of the predictions made at positions that the source does not skip."""
    parts = [model.loss(part, patches)[:, where.skip_first :] for part in tokens.split(AT_ONCE)]
    return torch.cat(parts).mean().item()


def activations_behind(
    where: LanguageModelActivations, model: LanguageModel, tokens: Tensor
) -> Float[Tensor, "n d_in"]:
    """Float32 activations at the hook of a source, without the positions that it skips."""
    parts = (model.activations(part, [where.hook])[where.hook] for part in tokens.split(AT_ONCE))
    return torch.cat([part[:, where.skip_first :].flatten(0, 1).float() for part in parts])


def fit(sae: SAE, raw: Float[Tensor, "n d_in"]) -> dict[str, float]:
    """L0 and FVU of an SAE on raw activations."""
    x, _, undo = sae.normalise(raw)
    recon, active, _ = passed(sae, x)
    return {"l0": active.float().mean().item(), "fvu": metrics.fvu(raw, undo(recon)).item()}


def at_its_mean(raw: Float[Tensor, "n d_in"]) -> Reconstruct:
    """The control of every splice: all activations at their mean."""
    mean = raw.mean(0)
    return lambda rows: mean.to(rows).expand_as(rows)


# ------------------------------------------------------------------------------------------------------ low precision


@lru_cache(maxsize=1)
def in_bf16(model: str, device: str) -> LanguageModel:
    return language_models.load(model, device=device, dtype=torch.bfloat16, backend="fastest")


def through(sae: SAE) -> Reconstruct:
    """`reconstruct` of an SAE in its own precision, for activations in any."""
    return lambda rows: sae.reconstruct(rows.to(sae.W_dec.dtype)).to(rows.dtype)


@torch.no_grad()
def decisions_that_differ(sae: SAE, low: SAE, raw: Float[Tensor, "n d_in"]) -> float:
    """Latents active in one of the two alone, over those active in `sae`."""
    one = sae.encode(sae.normalise(raw).x) > 0
    two = low.encode(low.normalise(raw.to(low.W_dec.dtype)).x) > 0
    return ((one != two).sum() / one.sum().clamp(min=1)).item()


def measure_precision(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Delta LM loss with everything in float32, with the SAE in bfloat16 (thresholds too), and with the language model
    in bfloat16 as well; each against the language model alone in the same precision."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        tokens = heldout_contexts(where, one.run.seed)
        low = copy.deepcopy(one.sae).to(torch.bfloat16)
        full, half = subject(where, device), in_bf16(where.model, device)
        raw = activations_behind(where, full, tokens)
        ce = {"fp32": loss_behind(where, full, tokens), "bf16": loss_behind(where, half, tokens)}
        harm = {
            name: loss_behind(where, model, tokens, in_place(where, through(sae))) - ce[alone]
            for name, model, sae, alone in (
                ("fp32", full, one.sae, "fp32"),
                ("bf16_sae", full, low, "fp32"),
                ("bf16", half, low, "bf16"),
            )
        }
        theta = one.sae.theta
        live = theta > 0
        yield (
            one.run,
            fit(one.sae, raw)
            | {f"ce_{name}": value for name, value in ce.items()}
            | {f"delta_ce_{name}": value for name, value in harm.items()}
            | {
                "decisions_differ": decisions_that_differ(one.sae, low, raw),
                "theta_rounding": ((low.theta - theta).abs() / theta)[live].max().item() if live.any() else 0.0,
                "contexts": len(tokens),
            }
            | one.log,
        )


def thresholds_in(steps: int = 3000, lr: float = 7e-5, starts: tuple[float, ...] = (0.001, 1.1)) -> pd.DataFrame:
    """A threshold that Adam moves up by `lr` at every step (beta1 = 0, a gradient that does not change), in float32 and
    in bfloat16: precision, start, step, theta."""
    found = []
    for start, (name, dtype) in product(starts, (("float32", torch.float32), ("bfloat16", torch.bfloat16))):
        theta = torch.tensor(start, dtype=dtype)
        for step in range(steps + 1):
            if step % 10 == 0:
                found.append({"precision": name, "start": start, "step": step, "theta": theta.item()})
            theta = theta + torch.tensor(lr, dtype=dtype)
    return pd.DataFrame(found)


# --------------------------------------------------------------------------------------------------------- other text

FORMULAIC, FOREIGN = "tables", "prose"
DOMAINS = {
    "tables": "inside brackets almost everywhere, and a third or more of the tokens numbers or strings",
    "tests": "files in a folder called test or tests, or called test_*",
    "library": "other modules of the standard library",
    "numerical": "packages for numerical computing",
    "web": "packages and modules for networks and the web",
    "prose": "three quarters or more of the tokens in docstrings or comments",
}
NUMERICAL = frozenset({"numpy", "scipy", "pandas", "sklearn"})
WEB = frozenset({"asyncio", "email", "ftplib", "http", "imaplib", "poplib", "smtplib", "socket", "socketserver", "ssl"})
WEB |= {"httpcore", "httpx", "huggingface_hub", "requests", "tornado", "urllib", "urllib3", "wsgiref", "xmlrpc"}
PROSE, DATA, INSIDE = 3 / 4, 1 / 3, 0.9  # shares of the tokens of a context
PER_FILE = 24  # contexts of one domain that one file gives at most


def domain_of_file(name: str) -> str:
    """Of a path below the standard library or the installed packages."""
    path = PurePosixPath(name)
    if {"test", "tests"} & set(path.parts[:-1]) or path.name.startswith("test_"):
        return "tests"
    top = path.parts[0].removesuffix(".py")
    return "numerical" if top in NUMERICAL else "web" if top in WEB else "library"


def domains_of_contexts(labels: dict[str, np.ndarray], context: int, name: str) -> list[str]:
    """The domain of each whole context of one file: its text decides first, then its path."""
    whole = len(labels["number"]) // context * context
    cut = {label: values[:whole].reshape(-1, context) for label, values in labels.items()}
    prose = (cut["in_docstring"] | cut["in_comment"]).mean(1) >= PROSE
    data = (cut["number"] | (cut["in_string"] & ~cut["in_docstring"])).mean(1) >= DATA
    tables = data & ((cut["paren_depth"] > 0).mean(1) >= INSIDE)
    return [
        "prose" if is_prose else "tables" if is_table else domain_of_file(name)
        for is_prose, is_table in zip(prose, tables, strict=True)
    ]


def heldout_files() -> list[tuple[str, Path]]:
    """Held-out files of the standard library and of the packages of NUMERICAL and WEB."""
    return [
        (name, path)
        for root in ROOTS
        for name, path in sorted(source_files(root_folder(root)))
        if split_of(name) == "heldout" and (root == "stdlib" or name.split("/")[0] in NUMERICAL | WEB)
    ]


@lru_cache(maxsize=2)
def domain_contexts(where: LanguageModelActivations) -> dict[str, np.ndarray]:
    """Domain -> (n, context) tokens of held-out files, in the order of DOMAINS; domains with less than one for each
    seed are left out."""
    tokenizer = plain_copy(subject(where).tokenizer)
    found: dict[str, list[np.ndarray]] = {}
    files = heldout_files()
    for place in spread(len(files), PLANS[where.model].files):
        name, path = files[place]
        text = read_source(path)
        if broken_rule(text):
            continue
        ids = np.array([0, *tokenizer.encode(text, add_special_tokens=False).ids])
        try:
            labels = token_labels(ids, tokenizer)
        except ValueError:  # Python of another version, or no Python
            continue
        kinds = np.array(domains_of_contexts(labels, where.context, name))
        rows = ids[: len(kinds) * where.context].reshape(-1, where.context)
        for kind in set(kinds):
            mine = rows[kinds == kind]
            found.setdefault(kind, []).append(mine[spread(len(mine), PER_FILE)])
    whole = {kind: np.concatenate(found[kind]) for kind in DOMAINS if kind in found}
    return {kind: rows for kind, rows in whole.items() if len(rows) >= len(SEEDS)}


def measure_domains(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """L0, FVU and delta LM loss of each SAE on every kind of text; control: the site at its mean over that text."""
    alone: dict[tuple[int, str], tuple[float, float]] = {}
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        model, seed, lines = subject(where, device), one.run.seed, []
        texts = domain_contexts(where)
        for name, contexts in texts.items():
            tokens = of_seed(contexts, seed, PLANS[where.model].contexts)
            raw = activations_behind(where, model, tokens)
            if (seed, name) not in alone:
                ablated = loss_behind(where, model, tokens, in_place(where, at_its_mean(raw)))
                alone[seed, name] = loss_behind(where, model, tokens), ablated
            ce, ablated = alone[seed, name]
            harm = loss_behind(where, model, tokens, in_place(where, one.sae.reconstruct)) - ce
            lines.append(
                {"domain": name, "contexts": len(tokens)}
                | fit(one.sae, raw)
                | {"ce": ce, "delta_ce": harm, "delta_ce_mean": ablated - ce}
            )
        yield (
            one.run,
            {
                "domains": lines,
                "text_fingerprint": sha256(b"".join(np.ascontiguousarray(t).tobytes() for t in texts.values())),
            }
            | one.log,
        )


# -------------------------------------------------------------------------------------------------- a fine-tuned model


@dataclass(frozen=True)
class Sessions(Corpus):
    """Interactive sessions in the docstrings of the standard library and of installed packages: the lines from a `>>>`
    to the next blank line or end of the string, one document per file. Held out as in `PythonSource`, by path."""

    packages: tuple[str, ...] = ()

    heldout_by: ClassVar[Literal["name", "text"]] = "name"

    def documents(self, dropped: Counter | None = None) -> Iterator[tuple[str, str]]:
        dropped = Counter() if dropped is None else dropped
        for root in ROOTS:
            for name, path in sorted(source_files(root_folder(root))):
                if root == "stdlib" or name.split("/")[0] in self.packages:
                    text = read_source(path)
                    found = sessions(text) if text and not broken_rule(text) else []
                    if found:
                        yield name, "\n\n".join(found) + "\n"
                    else:
                        dropped["no_session"] += 1

    def state(self) -> str:
        folder = root_folder("site-packages")
        versions = (path.name for package in self.packages for path in folder.glob(f"{package}*.dist-info"))
        return repr((str(root_folder("stdlib")), sorted(versions)))


def sessions(text: str) -> list[str]:
    """Each run of lines that starts with `>>>` and ends before a blank line, a lesser indentation or closing quotes,
    without its indentation."""
    found: list[str] = []
    lines: list[str] | None = None
    indent = ""
    for line in [*text.split("\n"), ""]:
        bare = line.lstrip()
        if lines is None:
            if bare.startswith(">>> "):
                indent, lines = line[: len(line) - len(bare)], [bare]
        elif bare and line.startswith(indent) and not re.match("\"\"\"|'''", bare):
            lines.append(line[len(indent) :])
        else:
            found.append("\n".join(lines))
            lines = None
    return found


TUNING = {"batch": 32, "lr": 5e-4, "seed": 0}  # contexts per step; a sixth of the rate the smaller subjects began with


def tune(module: nn.Module, blocks: np.ndarray, steps: int, batch: int, lr: float, seed: int) -> list[float]:
    """Train a language model on for `steps` steps of `batch` contexts, as it was trained (AdamW, warm-up, cosine,
    clipping), in float32; returns the loss of every step."""
    device = next(module.parameters()).device
    optimiser = language_models._adamw(module, lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(language_models._schedule, steps=steps))
    losses = []
    for rows in islice(language_models._batches(blocks, batch, seed), steps):
        tokens = torch.from_numpy(rows.astype(np.int64)).to(device)
        loss = next_token_loss(module(input_ids=tokens, use_cache=False).logits, tokens).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@lru_cache(maxsize=2)
def tuned(where: LanguageModelActivations, device: str) -> str:
    """Name of the subject of a source after tuning on sessions; its weights are kept in the cache, never beside the
    embedded models. The name holds a hash over all that made them."""
    model, plan = subject(where, device), PLANS[where.model]
    text = Sessions(plan.packages).build(model.tokenizer)
    made_from = (model.fingerprint, text.fingerprint, plan.steps, where.context, TUNING, code_fingerprint(tune))
    name = f"{where.model.split('/')[-1]}-sessions-{sha256(repr(made_from).encode(), 12)}"
    folder = CACHE / "models" / name
    if not folder.is_dir():
        module = copy.deepcopy(model.module).requires_grad_(True).train()
        losses = tune(module, text.blocks("train", where.context), plan.steps, **TUNING)
        if not np.isfinite(losses).all():
            raise FloatingPointError(f"{name}: the loss of tuning is not finite")
        with published(folder) as unfinished, language_models._no_progress_bars():
            module.save_pretrained(unfinished)
            model.tokenizer.save(str(unfinished / "tokenizer.json"))
    return name


def rescaled(sae: SAE, factor: float) -> Reconstruct:
    """Multiply activations by `factor`, reconstruct, divide by it."""
    return lambda rows: sae.reconstruct(rows * factor) / factor


def root_mean_square_norm(raw: Float[Tensor, "n d_in"]) -> float:
    return raw.square().sum(-1).mean().sqrt().item()


def with_suffix(values: dict[str, float], suffix: str) -> dict[str, float]:
    return {name + suffix: value for name, value in values.items()}


def measure_tuned(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """On held-out sessions: the SAE of the base model on the base model (`_before`), on the tuned one (no suffix), on
    the tuned one with its activations brought to the norm of the base model's (`_rescaled`), and an SAE trained on the
    tuned model's activations, of the same text and as many tokens as the first (`_reference`)."""
    for one in trained(runs):
        run, where, device = one.run, one.run.source, str(one.mean.device)
        there = replace(where, model=tuned(where, device), tokens=min(where.tokens, run.tokens))
        [reference] = trained([replace(run, source=there)])
        base, after = subject(where, device), subject(there, device)
        text = Sessions(PLANS[where.model].packages).build(base.tokenizer).blocks("heldout", where.context)
        tokens = of_seed(text, run.seed, PLANS[where.model].contexts)
        x, y = (activations_behind(where, model, tokens) for model in (base, after))
        factor = root_mean_square_norm(x) / root_mean_square_norm(y)
        ce = {"ce_before": loss_behind(where, base, tokens), "ce": loss_behind(where, after, tokens)}

        def harm(reconstruct: Reconstruct, model: LanguageModel = after, alone: float = ce["ce"]) -> dict[str, float]:
            return {"delta_ce": loss_behind(where, model, tokens, in_place(where, reconstruct)) - alone}  # noqa: B023

        plain = fit(one.sae, y)
        at_norm = fit(one.sae, y * factor)  # FVU does not depend on a common factor
        yield (
            run,
            plain
            | harm(one.sae.reconstruct)
            | with_suffix(fit(one.sae, x) | harm(one.sae.reconstruct, base, ce["ce_before"]), "_before")
            | with_suffix(at_norm | harm(rescaled(one.sae, factor)), "_rescaled")
            | with_suffix(fit(reference.sae, y) | harm(reference.sae.reconstruct), "_reference")
            | with_suffix(harm(at_its_mean(y)), "_mean")
            | ce
            | {"norm_ratio": factor, "moved": metrics.fvu(x, y).item(), "contexts": len(tokens), "tuned": there.model}
            | one.log,
        )


# -------------------------------------------------------------------------------------------------------- transcoders


def measure_across(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Error at the MLP output and delta LM loss of SAEs of that output and of transcoders that predict it; control: the
    output at its mean."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        site = where.targets if isinstance(where, Pairs) else where
        model, tokens = subject(site, device), heldout_contexts(site, one.run.seed)
        splice: Callable = across if isinstance(where, Pairs) else in_place
        ce = loss_behind(site, model, tokens)
        mean = at_its_mean(activations_behind(site, model, tokens))
        harm = loss_behind(site, model, tokens, splice(where, one.sae.reconstruct)) - ce
        ablated = loss_behind(site, model, tokens, in_place(site, mean)) - ce
        yield (
            one.run,
            reconstruction(one, where.heldout(device))
            | {"ce": ce, "delta_ce": harm, "delta_ce_mean": ablated, "contexts": len(tokens)}
            | one.log,
        )


PRECISION = Study(KEY, "robustness-precision", "Everything in bfloat16", residual_and_mlp, measure_precision)
OTHER_TEXT = Study(KEY, "robustness-domains", "Other kinds of text", residual, measure_domains)
TUNED = Study(
    KEY,
    "robustness-tuned",
    "A fine-tuned language model",
    residual,
    measure_tuned,
    cost=lambda run: 2 * estimate_seconds(run),
)
ACROSS = Study(KEY, "robustness-transcoders", "Transcoders and SAEs of the MLP output", across_the_mlp, measure_across)
STUDIES = (PRECISION, OTHER_TEXT, TUNED, ACROSS)


# -------------------------------------------------------------------------------------------------------------- rules

HARMLESS = (0.05, 1e-3)  # G5: share of delta LM loss, nats
TUNED_AT_LEAST = 0.05  # G7, G8: nats by which tuning must lower the loss on sessions
NEARLY = 0.25  # G7
NOT_HELPED = 0.02  # G8
RESCALED_AT_LEAST = 0.01  # G8: |ln| of the factor
SAME = 1e-9


def precision_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per SAE: site, seed, sparsity, l0, delta_ce_fp32, delta_ce_bf16, `difference` of the two, and `excess`:
    the difference in units of what G5 allows, the smaller of difference / (5 % of delta) and difference / 0.001."""
    rows = with_place(rows)
    difference = rows.delta_ce_bf16 - rows.delta_ce_fp32
    relative = difference.abs() / rows.delta_ce_fp32.abs().clip(lower=SAME)
    excess = np.minimum(relative / HARMLESS[0], difference.abs() / HARMLESS[1])
    return rows.assign(difference=difference, relative=relative, excess=excess)


def low_precision_is_harmless(rows: pd.DataFrame) -> Evidence:
    """G5."""
    lines = precision_lines(rows)
    mean, low, high = mean_interval(lines.groupby("seed").excess.max())
    model, sae_alone = (rows.ce_bf16 - rows.ce_fp32).mean(), (rows.delta_ce_bf16_sae - rows.delta_ce_fp32).abs().max()
    return Evidence(
        judge(1 - mean, 1 - high, 1 - low),
        mean,
        low,
        high,
        f"delta LM loss changes by {lines.difference.mean():+.5f} nats on average and by at most "
        f"{lines.difference.abs().max():.5f} (at most {lines.relative.max():.2%} of it); with the SAE alone in "
        f"bfloat16 by at most {sae_alone:.5f}. {rows.decisions_differ.mean():.2%} of the active latents change, and "
        f"the loss of the language model alone by {model:+.5f}",
    )


def domain_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per SAE and domain: seed, sparsity, domain, contexts, l0, fvu, ce, delta_ce, delta_ce_mean, and
    `relative`, delta LM loss over the language model's own loss there."""
    parts = [
        pd.DataFrame(row.domains).assign(seed=row.seed, sparsity=row.sparsity) for row in rows.itertuples(index=False)
    ]
    lines = pd.concat(parts, ignore_index=True)
    return lines.assign(relative=lines.delta_ce / lines.ce)


GRID = 7  # values of L0 at which domains are compared


def at_common_l0(lines: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean of ln `column` over GRID values of L0 that all domains of a seed reach (log-log interpolation), a line per
    seed, a column per domain. NoEvidence where a value is not positive, or no L0 is reached by all."""
    if (lines[column] <= 0).any():
        raise NoEvidence(f"{(lines[column] <= 0).sum()} values of {column} are not positive")
    found = {}
    for seed, here in lines.groupby("seed"):
        spans = here.groupby("domain").l0.agg(["min", "max"])
        lowest, highest = spans["min"].max(), spans["max"].min()
        if lowest >= highest:
            raise NoEvidence("no L0 is reached on every kind of text")
        grid = np.geomspace(lowest, highest, GRID).clip(lowest, highest)
        found[seed] = {
            name: np.log(scope.interpolate_loglog(cell.l0, cell[column], grid)).mean()
            for name, cell in here.groupby("domain")
        }
    return pd.DataFrame(found).T


def margins(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """By seed: how far the formulaic text lies below the lowest other one, and the foreign one above the highest."""
    lowest = table.drop(columns=FORMULAIC).min(axis=1) - table[FORMULAIC]
    highest = table[FOREIGN] - table.drop(columns=FOREIGN).max(axis=1)
    return lowest, highest


def formulaic_is_easy(rows: pd.DataFrame) -> Evidence:
    """G6."""
    lines = domain_lines(rows)
    if missing := set(DOMAINS) - set(lines.domain):
        return Evidence("void", *NOTHING, f"no held-out text of the kinds {', '.join(sorted(missing))}")
    try:
        tables = {column: at_common_l0(lines, column) for column in ("relative", "delta_ce")}
    except NoEvidence as reason:
        return Evidence("void", *NOTHING, str(reason))
    outcomes = {}
    for column, table in tables.items():
        lowest, highest = margins(table)
        outcomes[column] = [judge(*mean_interval(part)) for part in (lowest, highest)]
    outcome = both(*outcomes["relative"])
    if outcome == "replicated" and outcomes["delta_ce"] != outcomes["relative"]:
        outcome = "partly"
    order = np.exp(tables["relative"].mean()).sort_values()
    harm = np.exp(tables["delta_ce"].mean())
    listed = ", ".join(f"{name} {share:.1%} ({harm[name]:.2f} nats)" for name, share in order.items())
    return Evidence(
        outcome,
        *mean_interval(pd.concat(margins(tables["relative"]), axis=1).min(axis=1)),
        f"delta LM loss over the model's own loss at equal L0: {listed}. {FORMULAIC} lowest: "
        f"{outcomes['relative'][0]}, in nats {outcomes['delta_ce'][0]}; {FOREIGN} highest: {outcomes['relative'][1]}, "
        f"in nats {outcomes['delta_ce'][1]}",
    )


KINDS = {"before": "_before", "tuned": "", "rescaled": "_rescaled", "reference": "_reference"}
"""Which SAE on which model -> the suffix of its columns."""


def curve(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """One of KINDS: seed, sparsity, kind, l0, fvu, delta_ce."""
    columns = {f"{name}{KINDS[kind]}": name for name in ("l0", "fvu", "delta_ce")}
    return rows[["seed", "sparsity", *columns]].rename(columns=columns).assign(kind=kind)


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """All KINDS below each other."""
    return pd.concat([curve(rows, kind) for kind in KINDS], ignore_index=True)


def by_seed(upper: pd.DataFrame, lower: pd.DataFrame, column: str) -> pd.Series:
    """Mean of ln(`column` of `upper` / of `lower`) at equal L0, by seed. NoEvidence where fewer than half of the points
    have an L0 that the other curve reaches."""
    ratios = {seed: log_ratio(here, lower[lower.seed == seed], column) for seed, here in upper.groupby("seed")}
    every = np.concatenate(list(ratios.values()))
    matched = int(np.isfinite(every).sum())
    if matched < MATCHED * len(every) or any(np.isnan(values).all() for values in ratios.values()):
        raise NoEvidence(f"only {matched} of {len(every)} points have an L0 that both reach")
    return pd.Series({seed: np.nanmean(values) for seed, values in ratios.items()})


def was_tuned(rows: pd.DataFrame) -> None:
    gain = (rows.ce_before - rows.ce).mean()
    if gain < TUNED_AT_LEAST:
        raise NoEvidence(f"tuning lowered the loss on sessions by {gain:.3f} nats only: there is nothing to transfer")


def base_saes_transfer(rows: pd.DataFrame) -> Evidence:
    """G7."""
    try:
        was_tuned(rows)
        harm, fvu = (by_seed(curve(rows, "tuned"), curve(rows, "reference"), name) for name in ("delta_ce", "fvu"))
    except NoEvidence as reason:
        return Evidence("void", *NOTHING, str(reason))
    mean, low, high = mean_interval(harm)
    bound = np.log1p(NEARLY)
    nearly = judge(bound - mean, bound - high, bound - low)
    larger = judge(*mean_interval(fvu - harm))
    return Evidence(
        both(nearly, larger),
        mean,
        low,
        high,
        f"on the tuned model, at equal L0, delta LM loss with SAEs of the base model is {np.exp(mean):.2f} times "
        f"that of SAEs trained on it ({nearly}), FVU {np.exp(fvu.mean()):.2f} times (the larger gap: {larger}). "
        f"Tuning lowered the loss on sessions from {rows.ce_before.mean():.2f} to {rows.ce.mean():.2f} nats and moved "
        f"activations by {rows.moved.mean():.1%} of their variance",
    )


def rescaling_does_not_help(rows: pd.DataFrame) -> Evidence:
    """G8."""
    try:
        was_tuned(rows)
        factor = np.log(rows.norm_ratio).mean()
        if abs(factor) < RESCALED_AT_LEAST:
            raise NoEvidence(f"tuning changed norms by {np.expm1(-factor):+.2%} only: there is nothing to rescale")
        g = by_seed(curve(rows, "rescaled"), curve(rows, "tuned"), "fvu")
    except NoEvidence as reason:
        return Evidence("void", *NOTHING, str(reason))
    shift = np.log(rows.l0_rescaled / rows.l0).groupby(rows.seed).mean()
    follows = judge(*mean_interval(np.sign(factor) * shift))
    mean, low, high = mean_interval(g)
    no_gain = judge(mean + NOT_HELPED, low + NOT_HELPED, high + NOT_HELPED)
    return Evidence(
        both(follows, no_gain),
        mean,
        low,
        high,
        f"activations are multiplied by {np.exp(factor):.3f}, L0 by {np.exp(shift.mean()):.3f} (the same way: "
        f"{follows}); FVU at equal L0 changes by {np.expm1(mean):+.2%} (no gain: {no_gain})",
    )


def with_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column `kind`: "transcoder" or "sae"."""
    return rows.assign(kind=np.where(rows.source.str.startswith("Pairs("), "transcoder", "sae"))


def transcoders_are_worse(rows: pd.DataFrame) -> Evidence:
    """G9."""
    rows = with_kind(rows)
    transcoders, saes = (rows[rows.kind == kind] for kind in ("transcoder", "sae"))
    try:
        g, fvu = (by_seed(transcoders, saes, column) for column in ("delta_ce", "fvu"))
    except NoEvidence as reason:
        return Evidence("void", *NOTHING, str(reason))
    mean, low, high = mean_interval(g)
    gain = [
        np.mean([late_gain(*one) for one in zip(part.curve_tokens, part.curve_error, strict=True)])
        for part in (transcoders, saes)
    ]
    summary = (
        f"at equal L0 delta LM loss with transcoders is {np.exp(mean):.2f} times that with SAEs of the MLP output, FVU "
        f"{np.exp(fvu.mean()):.2f} times; over the last doubling of tokens ln(training error) fell by {gain[0]:.3f} "
        f"and {gain[1]:.3f}"
    )
    if mean > 0 and gain[0] - gain[1] > CLOSE:
        return Evidence("void", mean, low, high, f"under-trained, and transcoders more so: {summary}")
    return Evidence(judge(mean, low, high), mean, low, high, summary)


# ------------------------------------------------------------------------------------------------------------ figures

FIGURES = {
    "robustness-precision": (
        PRECISION,
        "jumprelu_robustness.precision",
        lambda rows: (precision_lines(rows), HARMLESS),
    ),
    "robustness-domains": (OTHER_TEXT, "jumprelu_robustness.domains", lambda rows: (domain_lines(rows), DOMAINS)),
    "robustness-tuned": (TUNED, "jumprelu_robustness.transfer", lambda rows: (curves(rows),)),
    "robustness-rescaled": (TUNED, "jumprelu_robustness.rescaling", lambda rows: (curves(rows),)),
    "robustness-transcoders": (ACROSS, "jumprelu_robustness.across", lambda rows: (with_kind(rows),)),
}

CLAIMS = (
    Claim(
        id=f"{KEY}-G5",
        statement="Evaluating in bfloat16 instead of float32, language model and SAE alike, changes next to nothing.",
        rule=(
            "For every SAE (residual stream and MLP output of one layer, every lambda) |delta LM loss in bfloat16 - in "
            "float32| is below 5 % of it or below 0.001 nats: the largest over SAEs, in units of that bound, is below "
            "1 with its interval over seeds, each of which has contexts of its own. Thresholds are cast too."
        ),
        published="negligible change (Fig. 10: curves, no numbers)",
        statistic="largest |difference of delta LM loss| over SAEs, in units of the bound",
        study=PRECISION,
        test=low_precision_is_harmless,
    ),
    Claim(
        id=f"{KEY}-G6",
        statement="Delta LM loss differs between kinds of text: lowest on formulaic ones, highest on foreign ones.",
        rule=(
            "Six kinds of held-out text, told apart by path and by Python's lexer. Formulaic: contexts inside brackets "
            "that are a third or more numbers and strings. Foreign, to a model of code: contexts three quarters of "
            "which are prose in docstrings and comments. Mean of ln(delta LM loss / the model's own loss) over the L0 "
            "that all kinds reach: formulaic below every other kind and foreign above every other kind, each with its "
            "interval over seeds, which have contexts of their own. Partly if one of the two holds, or if they do not "
            "hold for delta LM loss in nats; void if a kind has no text or curves do not overlap. The kinds and bounds "
            "were fixed before any of this was computed."
        ),
        published="best on DeepMind mathematics, worst on Europarl (Fig. 9, subsets of the Pile); no numbers",
        statistic="the smaller of the two margins, in ln(delta LM loss / loss)",
        study=OTHER_TEXT,
        test=formulaic_is_easy,
    ),
    Claim(
        id=f"{KEY}-G7",
        statement="SAEs of the base model are almost as faithful on a fine-tuned model as SAEs trained on it; the gap "
        "is larger in FVU than in delta LM loss.",
        rule=(
            "On held-out sessions run through the tuned model, at the L0 of the base model's SAEs: mean of ln(delta LM "
            "loss of base SAEs / of SAEs trained on the tuned model) below ln 1.25 with its interval, and the same for "
            "FVU larger with the interval of the difference. Void if tuning lowered the loss on sessions by less than "
            "0.05 nats, or fewer than half of the points are matched."
        ),
        published="almost as good (Fig. 8); the gap in FVU is larger (Fig. 21); no numbers",
        statistic="mean of ln(delta LM loss of base SAEs / of SAEs of the tuned model) at equal L0",
        study=TUNED,
        test=base_saes_transfer,
    ),
    Claim(
        id=f"{KEY}-G8",
        statement="Scaling the tuned model's activations to the norm of the base model's does not help base SAEs: L0 "
        "moves along, the frontier does not improve.",
        rule=(
            "Activations times one factor that brings their root-mean-square norm on the sessions to that of the base "
            "model: ln L0 changes in the direction of the factor with its interval, and the mean of ln(FVU rescaled / "
            "FVU) at equal L0 is above -0.02 with its interval. Void if the factor is within 1 % of 1, or tuning "
            "lowered the loss by less than 0.05 nats, or fewer than half of the points are matched."
        ),
        published="no benefit: L0 falls, the frontier is very slightly worse (Fig. 23); no numbers",
        statistic="mean of ln(FVU rescaled / FVU) at equal L0",
        study=TUNED,
        test=rescaling_does_not_help,
    ),
    Claim(
        id=f"{KEY}-G9",
        statement="At equal L0 a transcoder from the MLP's input to its output raises the loss more than an SAE of "
        "that output.",
        rule=(
            "One layer, same width, tokens and seeds: mean of ln(delta LM loss of transcoders / of SAEs of "
            "the MLP output) at the L0 of the transcoders above 0 with its interval over seeds, which have contexts of "
            "their own. Void if fewer than half of the points are matched, or if transcoders are worse, but the last "
            "doubling of tokens lowered ln(training error) of theirs by over 0.05 more than that of SAEs: then the gap "
            "may be one of the budget."
        ),
        published="worse at every layer shown (Fig. 11: 2B); the opposite was reported for GPT-2 small by others",
        statistic="mean of ln(delta LM loss of transcoders / of SAEs) at equal L0",
        study=ACROSS,
        test=transcoders_are_worse,
    ),
)
