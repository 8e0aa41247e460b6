"""What there is to see of every latent of one SAE: where it is active, what it writes, what its removal costs, which
known property of the text it follows. The counterpart of the viewer released with Gao et al. 2024.

Everything is measured on held-out text. Beside the trained SAE stand latents of the same SAE before its first step.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_array
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from replication import train
from replication.activations import LanguageModelActivations, spread
from replication.corpora import PythonSource, TokenFile
from replication.evaluate.downstream import logits_at, subject
from replication.evaluate.explanations import Examples, Explanation, activity, explain, latent_of, pad_token, read
from replication.evaluate.probes import document_labels, task_names
from replication.fingerprints import code_fingerprint
from replication.language_models import LanguageModel
from replication.paths import CACHE
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor
from replication.store import trained
from replication.train import Run, Trained

TOKENS = 2**18
"""Held-out tokens that are read, at most."""
TOP = 6
"""Contexts with the largest activations that are kept for a latent."""
RANDOM = 2
"""Random contexts that are kept from each quarter of a latent's activations."""
LEVELS = 99
"""Activations around a context are whole numbers of this many parts of the latent's largest one."""
BINS = 16
"""Bins of a histogram of activations: half an octave each, below the largest activation of the SAE."""
WRITTEN = 8
"""Tokens that are kept of those a latent promotes most, and of those it suppresses most."""
PATTERNS = 5
"""Patterns that are kept of an explanation: those of the largest activations."""
SHOWN = 3
"""Latents drawn at random: of the trained SAE to look at, of the untrained one as controls."""
ENDING = 8  # of contexts that end in the same tokens one is enough: code repeats itself
EXPLAINED = 4  # top contexts that an explanation is built from
AT_ONCE = 64  # forward passes at a time
SCORED_AT_ONCE = 2**12  # latents whose scores for the whole vocabulary are held at a time

PLAIN_NAMES = {
    "in_string": "string",
    "in_fstring": "f-string",
    "in_docstring": "docstring",
    "in_comment": "comment",
    "keyword": "keyword",
    "builtin_name": "name of a builtin",
    "definition_name": "name being defined",
    "argument_name": "parameter of a signature",
    "keyword_argument": "keyword argument of a call",
    "attribute": "attribute after a dot",
    "decorator": "decorator line",
    "import_statement": "import statement",
    "number": "number",
    "operator": "operator",
    "indentation": "indentation",
    "indent_depth": "blocks around, at least",
    "paren_depth": "brackets around, at least",
}


class Text(NamedTuple):
    """Held-out text with its activations and what is known of its tokens."""

    tokens: Tensor
    """(blocks, context)"""
    x: Tensor
    """(n, d) at the source's hook, a row per token, in the order of the text."""
    document: np.ndarray
    """(n,) number of the document that a token stands in."""
    paths: list[str]
    """Name of each document."""
    labels: np.ndarray
    """(n, tasks) bool, all False in a file that does not parse; no task where the text is not Python."""
    known: np.ndarray
    """(n,) bool: the labels of the token are known."""
    tasks: tuple[str, ...]


class Context(NamedTuple):
    """One token at which a latent is active."""

    kind: int
    """0: among the largest activations; 1 to 4: random, from the lowest to the highest quarter of them."""
    block: int
    position: int
    document: int
    value: float
    """The activation there."""
    active: list[int]
    """Positions of the block at which the latent is active, each followed by its activation in LEVELS."""
    removed: float | None = None
    """What taking the latent away there adds to the loss of the next token, in nats; for kind 0."""
    random: float | None = None
    """The same for a random direction of equal length: the control."""


class Followed(NamedTuple):
    """How well "the latent is active" predicts each property of the text: (d_sae, tasks) each, 0 where undefined."""

    f1: np.ndarray
    chance: np.ndarray
    """F1 of a latent as often active, but independent of the property."""
    precision: np.ndarray
    """Share of the latent's active tokens that have the property; without a relation, the property's share of all."""
    recall: np.ndarray
    """Share of the tokens with the property on which the latent is active."""

    @property
    def gain(self) -> np.ndarray:
        """F1 above chance. By F1 alone a latent that is often active would seem to follow every frequent property."""
        return self.f1 - self.chance


def described(run: Run) -> dict:
    """`describe` of a run's SAE, kept on disk under a name that depends on the run, the code and the data."""
    code = code_fingerprint(describe, *train.dependencies(run))
    identity = repr((run, code, sorted(run.source.fingerprints().items())))
    path = CACHE / "dashboards" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        found = json.dumps(describe(next(trained([run]))), allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(found)
        partial.replace(path)
    return json.loads(path.read_text())


def describe(one: Trained) -> dict:
    """All latents of a trained SAE and, as controls, SHOWN random ones of the same SAE untrained; ready for JSON.

    "tokens": the blocks of text as numbers of "vocabulary"; "files": the documents they are from. "labels": for each
    known property of the text its share of tokens, the latent that follows it best (F1 above chance) with its scores,
    and the F1 above chance of the best latent of the untrained SAE, chosen on the same text. "drawn": SHOWN random
    latents of those that are active. "sae" and "untrained": see `_latents`.
    """
    source, device = one.run.source, str(one.mean.device)
    text, model, rng = held_out(source, device), subject(source, device), np.random.default_rng(0)
    active, control = (activity(sae, text.x) for sae in (one.sae, one.untrained))
    drawn, controls = (np.sort(rng.permutation(np.diff(of.indptr).nonzero()[0])[:SHOWN]) for of in (active, control))
    followed, control_followed = follows(active, text), follows(control, text)
    share = text.labels[text.known].mean(0)
    return {
        "model": source.model,
        "hook": source.hook,
        "architecture": one.run.architecture,
        "sparsity": one.run.sparsity,
        "files": text.paths,
        "vocabulary": token_texts(model.tokenizer, model.d_vocab),
        "tokens": text.tokens.tolist(),
        "labels": [
            {
                "name": plain_name(task),
                "share": _short(share[i]),
                "latent": (best := int(followed.gain[:, i].argmax())),
                "scores": [_short(score[best, i]) for score in followed],
                "untrained": _short(control_followed.gain[:, i].max()),
            }
            for i, task in enumerate(text.tasks)
        ],
        "drawn": drawn.tolist(),
        "sae": _latents(one.sae, source, text, active, followed, range(one.sae.d_sae), device),
        "untrained": _latents(one.untrained, source, text, control, control_followed, controls.tolist(), device),
    }


def _latents(
    sae: SAE,
    source: LanguageModelActivations,
    text: Text,
    active: csc_array,
    followed: Followed,
    chosen: Iterable[int],
    device: str,
) -> dict:
    """ "largest": the SAE's largest activation, which the bins of all histograms hang from. "latents", for each

    number, density       which one it is, and its share of active tokens
    largest, histogram    its largest activation; active tokens per bin, see `histogram`
    contexts              `Context`s, as lists
    removed, random       means over its top contexts (`removal`), null where it has none
    promoted, suppressed  [token, score] pairs (`written`)
    label                 null, or the property it follows best: its number, F1, F1 by chance, precision, recall
    patterns              [activation, [token or "*" or "^", ...]] pairs (`patterns_of`)
    """
    rng, largest = np.random.default_rng(0), float(active.data.max(initial=0))
    contexts = {one: list(contexts_of(active, one, text, rng)) for one in chosen}
    measure_removal(sae, source, text, contexts, device)
    explanations = explained(sae, source, text, contexts, device)
    promoted, suppressed = written(sae, subject(source, device), list(contexts))
    latents = []
    for i, (one, found) in enumerate(contexts.items()):
        values = active.data[slice(*active.indptr[one : one + 2])]
        top = [context for context in found if context.kind == 0]
        best = int(followed.gain[one].argmax()) if followed.f1[one].any() else None
        latents.append(
            {
                "number": one,
                "density": _short(len(values) / len(text.x)),
                "largest": _short(values.max(initial=0)),
                "histogram": histogram(values, largest).tolist(),
                "contexts": found,
                "removed": _short(np.mean([context.removed for context in top])) if top else None,
                "random": _short(np.mean([context.random for context in top])) if top else None,
                "promoted": promoted[i],
                "suppressed": suppressed[i],
                "label": None if best is None else [best, *(_short(score[one, best]) for score in followed)],
                "patterns": patterns_of(explanations[one]) if one in explanations else [],
            }
        )
    return {"largest": _short(largest), "latents": latents}


def _short(value: float | np.floating) -> float:
    """Four digits: nobody reads more, and a page has tens of thousands of numbers."""
    return float(f"{value:.4g}")


# Text


def held_out(source: LanguageModelActivations, device: str = "cpu") -> Text:
    """The held-out split of a source in blocks of its context; evenly spaced ones where it has more than TOKENS."""
    model = subject(source, device)
    built = source.corpus.build(model.tokenizer)
    blocks = built.blocks("heldout", source.context)
    chosen = spread(len(blocks), max(1, TOKENS // source.context))
    at = (chosen[:, None] * source.context + np.arange(source.context)).ravel()
    is_python = isinstance(source.corpus, PythonSource)
    tasks = task_names() if is_python else ()
    labels, known = labels_of(built, model.tokenizer, len(tasks)) if is_python else _unlabelled(built)
    return Text(
        *read(source, torch.from_numpy(blocks[chosen].astype("int64")), device),
        document=np.searchsorted(built.documents("heldout"), at, side="right") - 1,
        paths=[entry["path"] for entry in built.files("heldout")],
        labels=labels[at],
        known=known[at],
        tasks=tasks,
    )


def labels_of(text: TokenFile, tokenizer: Tokenizer, tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, tasks) of every held-out token, and whether they are known (n,)."""
    stream, offsets = text.tokens("heldout"), text.documents("heldout")
    labels, known = np.zeros((len(stream), tasks), dtype=bool), np.zeros(len(stream), dtype=bool)
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        if (found := document_labels(stream[start:end].astype(np.int64), tokenizer)) is not None:
            labels[start:end], known[start:end] = found, True
    return labels, known


def _unlabelled(text: TokenFile) -> tuple[np.ndarray, np.ndarray]:
    n = len(text.tokens("heldout"))
    return np.zeros((n, 0), dtype=bool), np.ones(n, dtype=bool)


def plain_name(task: str) -> str:
    """A property of Python text as one says it: "in_docstring" is a docstring, "paren_depth>=2" two brackets deep."""
    name, _, depth = task.partition(">=")
    return f"{PLAIN_NAMES[name]} {depth}".strip()


def token_texts(tokenizer: Tokenizer, d_vocab: int) -> list[str]:
    """What every token stands for; of a token that is no whole characters, its bytes as \\xNN."""
    byte = _byte_alphabet()
    texts = []
    for piece in (tokenizer.id_to_token(token) or "" for token in range(d_vocab)):
        raw = bytes(byte[character] for character in piece) if set(piece) <= byte.keys() else piece.encode()
        texts.append(raw.decode(errors="backslashreplace"))
    return texts


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte, as byte-level tokenizers (GPT-2's) write bytes: printable ones stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


# Where a latent is active


def histogram(values: Float[np.ndarray, " n"], largest: float) -> Int[np.ndarray, " bins"]:
    """Active tokens per bin of BINS, from small to large activations: bin j from the top holds the activations from
    largest 2^(-(j + 1) / 2) to largest 2^(-j / 2); the lowest one also holds all below it."""
    from_top = np.floor(2 * np.log2(largest / values)).clip(0, BINS - 1).astype(int)
    return np.bincount(from_top, minlength=BINS)[::-1]


def contexts_of(active: csc_array, latent: int, text: Text, rng: np.random.Generator) -> Iterator[Context]:
    """The TOP largest activations of a latent and RANDOM ones from each quarter of its activations, from low to high.

    Of a block the top contexts hold one token, and of equal endings of ENDING tokens one. The last position of a block
    is left out: what follows it was not part of the language model's text.
    """
    places, values = (of[slice(*active.indptr[latent : latent + 2])] for of in (active.indices, active.data))
    tokens, context = text.tokens.numpy(), text.tokens.shape[1]
    rising = np.argsort(values, kind="stable")
    rising = rising[places[rising] % context < context - 1]

    def seen_at(entry: int, kind: int) -> Context:
        block, position = divmod(int(places[entry]), context)
        around = slice(*np.searchsorted(places, [block * context, (block + 1) * context]))
        levels = np.ceil(LEVELS * (values[around] / values.max())).astype(int)
        pairs = np.stack([places[around] % context, levels], axis=1).ravel().tolist()
        return Context(kind, block, position, int(text.document[places[entry]]), _short(values[entry]), pairs)

    top, blocks, endings = [], set(), set()
    for entry in rising[::-1].tolist():
        block, position = divmod(int(places[entry]), context)
        ending = tuple(tokens[block, max(0, position + 1 - ENDING) : position + 1])
        if block not in blocks and ending not in endings:
            top.append(entry)
            blocks.add(block)
            endings.add(ending)
            yield seen_at(entry, 0)
        if len(top) == TOP:
            break
    for kind, quarter in enumerate(np.array_split(rising, 4), start=1):
        for entry in sorted(rng.permutation(np.setdiff1d(quarter, top))[:RANDOM].tolist()):
            yield seen_at(entry, kind)


def follows(active: csc_array, text: Text) -> Followed:
    """Every latent as a predictor of every property of the text: it says "yes" on the tokens on which it is active.

    F1 = 2 both / (active tokens + tokens with the property), over the tokens whose labels are known: 1 is perfect. By
    chance, both = active tokens x tokens with the property / known tokens.
    """
    on = csc_array((np.ones(active.nnz, dtype=np.float32), active.indices, active.indptr), shape=active.shape)
    both = on.T @ text.labels.astype(np.float32)
    firing, having = (on.T @ text.known.astype(np.float32))[:, None], text.labels.sum(0)[None]
    either = np.maximum(firing + having, 1)
    return Followed(
        f1=2 * both / either,
        chance=2 * firing * having / text.known.sum() / either,
        precision=both / np.maximum(firing, 1),
        recall=both / np.maximum(having, 1),
    )


# What it writes, and what its removal costs


@torch.no_grad()
def written(sae: SAE, model: LanguageModel, latents: list[int]) -> tuple[list, list]:
    """The WRITTEN tokens that each latent promotes most, and those it suppresses most, as [token, score] pairs."""
    gain, W_U = unembedding(model)
    promoted, suppressed = [], []
    for part in torch.tensor(latents, dtype=torch.int64).split(SCORED_AT_ONCE):
        scores = vocabulary_scores(sae.W_dec[part.to(W_U.device)], gain, W_U)
        for pairs, sign in ((promoted, 1), (suppressed, -1)):
            top = (sign * scores).topk(WRITTEN)
            for tokens, values in zip(top.indices.tolist(), top.values.tolist(), strict=True):
                pairs.append([[token, _short(sign * value)] for token, value in zip(tokens, values, strict=True)])
    return promoted, suppressed


def vocabulary_scores(
    d: Float[Tensor, "n d"], gain: Float[Tensor, " d"], W_U: Float[Tensor, "d_vocab d"]
) -> Float[Tensor, "n d_vocab"]:
    """Direct effect of decoder rows on the logits, in standard deviations over the vocabulary:

        logits = ((d - mean d) * gain) W_U^T,     score = (logits - mean logits) / std logits

    This is the final layer norm without its division by the norm, which moves no token past another, and without the
    layers between the hook and the end.
    """
    logits = ((d - d.mean(-1, keepdim=True)) * gain) @ W_U.T
    return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True).clamp(min=1e-12)


def unembedding(model: LanguageModel) -> tuple[Float[Tensor, " d"], Float[Tensor, "d_vocab d"]]:
    """Gain of the final layer norm, and the matrix that turns its output into logits."""
    norms = [module for module in model.module.modules() if isinstance(module, nn.LayerNorm)]
    if not norms:
        raise ValueError(f"model must end in a layer norm for its unembedding to be read, {model.name} has none")
    return norms[-1].weight, model.module.get_output_embeddings().weight


def measure_removal(
    sae: SAE, source: LanguageModelActivations, text: Text, contexts: dict[int, list[Context]], device: str
) -> None:
    """Fill in `removed` and `random` of the top contexts."""
    top = [(one, i) for one, found in contexts.items() for i, context in enumerate(found) if context.kind == 0]
    costs = removal(sae, source, examples_of(contexts, text, TOP), device=device)
    for (one, i), removed, random in zip(top, *(cost.tolist() for cost in costs), strict=True):
        contexts[one][i] = contexts[one][i]._replace(removed=_short(removed), random=_short(random))


def examples_of(contexts: dict[int, list[Context]], text: Text, count: int) -> Examples:
    """The `count` first contexts of each latent that are among its largest activations."""
    top = [(one, context) for one, found in contexts.items() for context in found[:count] if context.kind == 0]
    return Examples(
        latent=torch.tensor([one for one, _ in top], dtype=torch.int64),
        tokens=text.tokens[[context.block for _, context in top]],
        end=torch.tensor([context.position for _, context in top], dtype=torch.int64),
        value=torch.tensor([context.value for _, context in top]),
    )


@torch.no_grad()
def removal(
    sae: SAE, source: LanguageModelActivations, places: Examples, seed: int = 0, device: str = "cpu"
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """What it adds to the loss of the next token, in nats, to take one latent away from the activation at one token:

        removed = CE(x - z_i d_i) - CE(x),     random = CE(x - |z_i d_i| u) - CE(x)

    z_i d_i is on the scale of the language model; u is a random unit vector, the control. The rest of the activation,
    the SAE's error included, stays. Later tokens may be affected too: that is not counted.
    """
    model, generator = subject(source, device), torch.Generator().manual_seed(seed)
    costs = torch.zeros(2, len(places.end))
    for rows in places.end.argsort().split(AT_ONCE) if len(places.end) else ():  # like lengths: little is padded
        latent, tokens, end, _ = (of[rows].to(device) for of in places)
        row = torch.arange(len(rows), device=device)
        here, following, tokens = (row, end), tokens[row, end + 1], tokens[:, : end.max() + 1]
        seen: list[Tensor] = []

        def loss(patch, tokens=tokens, end=end, following=following) -> Tensor:
            logits = logits_at(model, tokens, end[:, None], {source.hook: patch})[:, 0]
            return cross_entropy(logits, following, reduction="none").cpu()

        clean = loss(lambda x, seen=seen: seen.append(x) or x)
        [x] = seen
        share = latent_share(sae, x[here], latent)
        noise = normalize(torch.randn(share.shape, generator=generator), dim=-1).to(device)
        for cost, taken in zip(costs, (share, noise * share.norm(dim=-1, keepdim=True)), strict=True):
            changed = x.index_put(here, x[here] - taken)
            cost[rows] = loss(lambda _, changed=changed: changed) - clean
    return costs[0], costs[1]


def latent_share(sae: SAE, x: Float[Tensor, "n d"], latent: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """z_i d_i of one latent per row, on the scale of the language model."""
    normalised, _, undo = sae.normalise(x)
    part = sae.encode(normalised).gather(1, latent[:, None]) * sae.W_dec[latent]
    return undo(part) - undo(torch.zeros_like(part))


# Its explanation


def explained(
    sae: SAE, source: LanguageModelActivations, text: Text, contexts: dict[int, list[Context]], device: str
) -> dict[int, Explanation]:
    """Neuron to Graph, from the EXPLAINED largest activations of each latent."""
    pad = pad_token(subject(source, device).tokenizer)
    return explain(latent_of(sae, source, device), examples_of(contexts, text, EXPLAINED), pad)


def patterns_of(explanation: Explanation) -> list[list]:
    """[activation, [token or "*" or "^", ...]] of the PATTERNS with the largest activations."""
    found = sorted(explanation.patterns(), key=lambda pair: -pair[1])[:PATTERNS]
    return [[_short(value), list(pattern)] for pattern, value in found]
