"""What single latents know: the loss of a probe that reads one latent, on properties of text that are known exactly.

Gao et al. 2024, sec. 4.2. The tasks here are properties of Python code; `probe` takes any activations and labels.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from replication.activations import LanguageModelActivations, spread
from replication.code_labels import LABELS, token_labels
from replication.corpora import PythonSource, TokenFile
from replication.evaluate.downstream import AT_ONCE, subject
from replication.shapes import Bool, Float, Int, Tensor

RIDGE = 1e-4  # on the weight of a standardised feature
ITERATIONS = 10
CONVERGED = 1e-4  # a Newton step that moves no probe further is the last: the loss is quadratic in what is left
KEPT = 16  # candidates per task that are fitted, after one cheap look at all
LEAST = 50  # positive and negative tokens that a task needs in each half
DEEPER_THAN = {"indent_depth": (1, 2, 3), "paren_depth": (1, 2)}  # depth t becomes the task "depth >= t"
DOCUMENTS = 256  # held-out files at most
WINDOWS = 16  # of each file at most, more where there are few files


class Labelled(NamedTuple):
    """Activations with what is true of their tokens."""

    activations: Tensor
    """(n, d) float32, as the language model has them."""
    labels: Tensor
    """(n, tasks) bool."""
    train: Tensor
    """(n,) bool: the half that probes are fitted and chosen on; they are scored on the other. No file is in both."""
    tasks: tuple[str, ...]


class Scores(NamedTuple):
    """The best single-feature probe of every task: each field is (tasks,)."""

    chosen: Tensor
    """Index of the feature with the lowest loss on the training half."""
    train: Tensor
    """Its loss there: a minimum over all features, so too good by chance."""
    test: Tensor
    """Its loss on the other half: the probe loss that is reported."""


def balanced_weights(y: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weights that sum to 1/2 over the positive and to 1/2 over the negative tokens: a rare property counts like a
    frequent one, and knowing nothing costs ln 2 = 0.693 on every task."""
    positive = y.float()
    return 0.5 * (positive / positive.sum() + (1 - positive) / (1 - positive).sum())


def logistic_newton(
    z: Float[Tensor, "c n"],
    y: Bool[Tensor, " n"],
    weight: Float[Tensor, " n"],
    ridge: float = RIDGE,
    iterations: int = ITERATIONS,
) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """w and b of c logistic regressions on one feature each: the minimum of

        sum_n weight_n BCE(y_n, sigma(w z_n + b)) + ridge w^2 / 2

    by Newton's method, whose 2 x 2 step has a closed form. `z` should have mean 0 and variance 1. A step is cut to
    length 4, which keeps features that separate the classes from overshooting; there are at most `iterations` of them.
    """
    w, b = z.new_zeros(len(z)), z.new_zeros(len(z))
    target = y.float()
    for _ in range(iterations):
        p = torch.addcmul(b[:, None], z, w[:, None]).sigmoid_()
        slope = (p - target) * weight
        curve = p.sub_(p.square()).mul_(weight)
        bend = curve * z
        g_w, g_b = torch.linalg.vecdot(slope, z) + ridge * w, slope.sum(-1)
        h_ww, h_wb, h_bb = torch.linalg.vecdot(bend, z) + ridge, bend.sum(-1), curve.sum(-1)
        scale = 1 / (h_ww * h_bb - h_wb.square()).clamp(min=1e-12)
        step_w, step_b = (h_bb * g_w - h_wb * g_b) * scale, (h_ww * g_b - h_wb * g_w) * scale
        cut = (4 / torch.hypot(step_w, step_b).clamp(min=4e-6)).clamp(max=1)
        w, b = w - cut * step_w, b - cut * step_b
        if torch.maximum(step_w.abs(), step_b.abs()).max() < CONVERGED:
            break
    return w, b


def weighted_bce(
    logits: Float[Tensor, "c n"], y: Bool[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, " c"]:
    """-sum_n weight_n [y_n ln sigma(logit_n) + (1 - y_n) ln(1 - sigma(logit_n))], in nats; weights sum to 1."""
    losses = binary_cross_entropy_with_logits(logits, y.float().expand_as(logits), reduction="none")
    return losses @ weight


def first_step_gain(
    x: Float[Tensor, "n d"], y: Bool[Tensor, " n"], directions: Float[Tensor, "d c"]
) -> Float[Tensor, " c"]:
    """What the first Newton step promises on the feature x . direction: r^2 / 2, r its correlation with y when both
    classes weigh the same. It needs the moments of x alone, so that all candidates cost less than fitting one."""
    weight = balanced_weights(y)
    centred = x - weight @ x
    difference = centred[y].mean(0) - centred[~y].mean(0)
    covariance = (centred * weight[:, None]).T @ centred
    variance = ((covariance @ directions) * directions).sum(0).clamp(min=1e-12)
    return (difference @ directions).square() / variance / 8


def probe(
    x: Float[Tensor, "n d"],
    labels: Bool[Tensor, "n tasks"],
    train: Bool[Tensor, " n"],
    directions: Float[Tensor, "d c"],
    kept: int = KEPT,
) -> Scores:
    """For every task the best of c probes that read one feature each, min over i, w, b of BCE(y, sigma(w z_i + b)).

    The features are z = x directions, e.g. the columns of W_enc for the pre-activations of latents (biases are left to
    the probe's own) or those of the identity for channels. Both classes of a task weigh the same (`balanced_weights`).
    Of all candidates the `kept` with the largest `first_step_gain` are fitted by `logistic_newton` on the rows of
    `train`; the one with the lowest loss there is scored on the other rows. (Gao et al. 2024, sec. 4.2, who do not
    say on which half the minimum is taken.)
    """
    check(x, labels, train, directions)
    scores = []
    for y in labels.T:
        y_train, y_test = y[train], y[~train]
        weight = balanced_weights(y_train)
        gain = first_step_gain(x[train], y_train, directions)
        candidates = gain.topk(min(kept, len(gain))).indices
        z = (x @ directions[:, candidates]).T.contiguous()
        z = z - z[:, train].mean(1, keepdim=True)
        z = z / z[:, train].std(1, keepdim=True).clamp(min=1e-12)
        w, b = logistic_newton(z[:, train], y_train, weight)
        loss = weighted_bce(torch.addcmul(b[:, None], z[:, train], w[:, None]), y_train, weight)
        best = loss.nan_to_num(torch.inf).argmin()
        test = weighted_bce((w[best] * z[best, ~train] + b[best])[None], y_test, balanced_weights(y_test))
        scores.append(torch.stack([candidates[best].float(), loss[best], test[0]]))
    chosen, on_train, on_test = torch.stack(scores, dim=1)
    return Scores(chosen.long(), on_train, on_test)


def check(x: Tensor, labels: Tensor, train: Tensor, directions: Tensor) -> None:
    """ValueError unless the shapes fit and every task has both classes in each half."""
    if not len(x) == len(labels) == len(train):
        raise ValueError(f"labels and train must have a row for each of {len(x)}, got {len(labels)} and {len(train)}")
    if len(directions) != x.shape[1]:
        raise ValueError(f"directions must have {x.shape[1]} rows, the width of x, got {len(directions)}")
    for task, y in enumerate(labels.T):
        for half, rows in (("train", train), ("test", ~train)):
            if not y[rows].any() or y[rows].all():
                raise ValueError(f"labels of task {task} must have both classes in each half, {half} has one")


def python_tasks(source: LanguageModelActivations, device: str = "cpu") -> Labelled:
    """Held-out Python files with what every token of them is, by Python's own lexer and parser (`code_labels`).

    The files are those of the source's own text where that is Python, else of the standard library. Each file is cut
    into windows of the source's context, from its start; of up to DOCUMENTS files, evenly spaced among all, up to
    WINDOWS evenly spaced windows are kept (with fewer than 16 files more of each, 256 in all). Files go to the two
    halves in turn. The bos token at the start of a file is left out. A task needs LEAST tokens of both classes in each
    half.
    """
    return _labelled(source.model, source.hook, _labelled_text(source), source.context, device)


def labelled_fingerprint(source: LanguageModelActivations) -> str:
    """Hash of the text that `python_tasks` labels. It is no part of the source where the source's text is not Python,
    so that a row of probes has to name it."""
    return _fingerprint(source.model, _labelled_text(source))


@lru_cache(maxsize=8)
def _fingerprint(model: str, corpus: PythonSource) -> str:
    return corpus.build(subject(LanguageModelActivations(model, "", corpus)).tokenizer).fingerprint


def _labelled_text(source: LanguageModelActivations) -> PythonSource:
    return source.corpus if isinstance(source.corpus, PythonSource) else PythonSource()


@lru_cache(maxsize=2)
def _labelled(model: str, hook: str, corpus: PythonSource, context: int, device: str) -> Labelled:
    lm = subject(LanguageModelActivations(model, hook, corpus), device)
    tokens, labels, halves, inside = windows(corpus.build(lm.tokenizer), lm.tokenizer, context)
    rows = [
        lm.activations(batch, [hook])[hook].float().flatten(0, 1)
        for batch in torch.from_numpy(tokens).to(device).split(AT_ONCE)
    ]
    flat = torch.from_numpy(inside).flatten().to(device)
    x, y = torch.cat(rows)[flat], torch.from_numpy(labels).flatten(0, 1).to(device)[flat]
    train = torch.from_numpy(halves).repeat_interleave(context).to(device)[flat]
    enough = has_enough(y, train)
    names = tuple(name for name, keep in zip(task_names(), enough.tolist(), strict=True) if keep)
    return Labelled(x, y[:, enough], train, names)


def has_enough(
    labels: Bool[Tensor, "n tasks"], train: Bool[Tensor, " n"], least: int = LEAST
) -> Bool[Tensor, " tasks"]:
    """Whether a task has at least `least` positive and negative tokens in each half."""
    counts = [((labels == value) & rows[:, None]).sum(0) for value in (True, False) for rows in (train, ~train)]
    return torch.stack(counts).amin(0) >= least


def task_names() -> tuple[str, ...]:
    """The labels of `code_labels`, then "indent_depth>=1" and the like."""
    return LABELS + tuple(f"{depth}>={t}" for depth, thresholds in DEEPER_THAN.items() for t in thresholds)


def windows(text: TokenFile, tokenizer, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Windows of the held-out files: tokens (w, context), labels (w, context, tasks), half (w,), not bos (w, context).

    Files that this Python cannot parse are passed over. If there is one file only, its first half trains and its
    second tests.
    """
    offsets, stream = text.documents("heldout"), text.tokens("heldout")
    found, most = [], max(WINDOWS, 256 // (len(offsets) - 1))
    for document in spread(len(offsets) - 1, DOCUMENTS):
        ids = stream[offsets[document] : offsets[document + 1]].astype(np.int64)
        if len(ids) >= context and (labels := document_labels(ids, tokenizer)) is not None:
            first = np.arange(len(ids) // context) * context
            at = first[spread(len(first), most)][:, None] + np.arange(context)
            found.append((ids[at], labels[at], at > 0))
    if not found:
        raise ValueError(f"{text.folder} holds no held-out Python file of at least context={context} tokens")
    if len(found) == 1:
        half = len(found[0][0]) // 2
        found = [tuple(part[:half] for part in found[0]), tuple(part[half:] for part in found[0])]
    halves = np.concatenate([np.full(len(part[0]), number % 2 == 0) for number, part in enumerate(found)])
    tokens, labels, inside = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return tokens, labels, halves, inside


def document_labels(ids: Int[np.ndarray, " n"], tokenizer) -> np.ndarray | None:
    """(n, tasks) bool for one document whose first token is bos, which is given no label; None if it does not parse."""
    try:
        found = token_labels(ids[1:], tokenizer)
    except ValueError:
        return None
    deeper = [found[depth] >= t for depth, thresholds in DEEPER_THAN.items() for t in thresholds]
    columns = np.stack([found[label] for label in LABELS] + deeper, axis=1)
    return np.concatenate([np.zeros((1, columns.shape[1]), dtype=bool), columns])
