"""Encoders that share their weights over samples, many independent ones trained at once by hand-derived gradients.

A `Models` is a batch of models of one shape: initialisations, data sets, penalties. Each has its own slice of every
tensor, no product mixes two, and Adam works entry by entry, so that a model's result does not depend on its company.
What is known while training (O'Neill et al. 2024): the codes (`fit_codes`), the dictionary (`fit_encoders`), or neither
(`fit_autoencoders`). Full batches, Adam, no schedule, no weight decay; losses are means over samples and entries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from replication.inference.adam import adam
from replication.shapes import Float, Tensor
from replication.synthetic import SparseCodes, random_dictionary

IN_CACHE = 2**18  # activations, in numbers, of the models that are passed over together: 1 MiB


@dataclass(frozen=True)
class Encoder:
    """A family of encoders: z = ReLU(x W + b), or with `hidden` z = ReLU(ReLU(x W_1 + b_1) W_2 + b_2).

    `hidden` None is the paper's SAE, a number its MLP. With `k` only the k largest entries of a sample stay (TopK).
    `bias` False leaves every b out. There is no decoder bias: the data have no offset.
    """

    hidden: int | None = None
    k: int | None = None
    bias: bool = False

    def __post_init__(self):
        for name in ("hidden", "k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def widths(self, d_in: int, n: int) -> list[int]:
        """Of the input, the hidden layer if there is one, and the latents."""
        return [d_in, n] if self.hidden is None else [d_in, self.hidden, n]


class Models(NamedTuple):
    """Weights of a batch of models; the leading dimension of every tensor is the model."""

    encoder: Encoder
    weights: tuple[Float[Tensor, "models before after"], ...]
    """One for each layer."""
    biases: tuple[Float[Tensor, "models after"], ...]
    """One for each layer, or none."""
    dictionary: Float[Tensor, "models n d_in"] | None = None
    """Decoder rows, of unit norm, where the decoder is the model's own."""

    def encode(self, x: Float[Tensor, "*_ samples d_in"]) -> Float[Tensor, "models samples n"]:
        """Latents of x (samples, d_in), or of data (models, samples, d_in) of each model's own."""
        for layer, weight in enumerate(self.weights):
            x = x @ weight
            x = x + self.biases[layer][:, None] if self.biases else x
            x = torch.relu(x)
        return x if self.encoder.k is None else _largest(x, self.encoder.k)

    def select(self, index: int | Sequence[int]) -> "Models":
        """Some of the models, as a batch; one if `index` is a number."""
        index = torch.as_tensor(index).reshape(-1)
        weights, biases = (tuple(one[index] for one in part) for part in (self.weights, self.biases))
        return Models(self.encoder, weights, biases, None if self.dictionary is None else self.dictionary[index])


def stack(models: Sequence[Models]) -> Models:
    """One batch of the models of several, all of one encoder and size."""
    if len({one.encoder for one in models}) != 1:
        raise ValueError(f"models must have one encoder, got {sorted({str(one.encoder) for one in models})}")
    weights, biases, own = (list(zip(*parts, strict=True)) for parts in zip(*map(_layered, models), strict=True))
    joined = [tuple(map(torch.cat, layers)) for layers in (weights, biases, own)]
    return Models(models[0].encoder, joined[0], joined[1], *joined[2])


def _layered(models: Models) -> tuple:
    """Weights, biases and dictionary, each a tuple of tensors."""
    return models.weights, models.biases, () if models.dictionary is None else (models.dictionary,)


class Fitted(NamedTuple):
    """What a training leaves behind."""

    models: Models
    curve: dict[int, Any]
    """Step (updates done) -> what `measure(models)` returned there."""


def start(encoder: Encoder, d_in: int, n: int, generators: Iterable[torch.Generator], decoder: bool = True) -> Models:
    """Models at PyTorch's default start of linear layers, one for each generator: W and b ~ U(+-1/sqrt(fan in)).

    With `decoder` each has a dictionary too, Gaussian directions. The order of draws is that of the authors' classes:
    encoder layers, the decoder's default weights, which are thrown away, then its Gaussian ones.
    """
    widths = encoder.widths(d_in, n)
    drawn = []
    for generator in generators:
        layers = [_linear(*pair, encoder.bias, generator) for pair in zip(widths, widths[1:], strict=False)]
        dictionary = []
        if decoder:
            _linear(n, d_in, encoder.bias, generator)
            gaussian = torch.randn(d_in, n, generator=generator).T
            dictionary = [torch.nn.functional.normalize(gaussian, dim=-1)]
        drawn.append((layers, dictionary))
    if not drawn:
        raise ValueError("generators must name at least one model, got none")
    weights = tuple(torch.stack([layers[i][0] for layers, _ in drawn]) for i in range(len(widths) - 1))
    biases = tuple(torch.stack([layers[i][1] for layers, _ in drawn]) for i in range(len(widths) - 1) if encoder.bias)
    return Models(encoder, weights, biases, torch.stack([one[0] for _, one in drawn]) if decoder else None)


def authors_start(encoder: Encoder, d_in: int, n: int, seeds: Iterable[int], decoder: bool = True) -> Models:
    """`start` as their known-dictionary and nothing-known scripts do it: each model from torch's seed run seed + 42."""
    return start(encoder, d_in, n, [torch.Generator().manual_seed(seed + 42) for seed in seeds], decoder)


def authors_known_codes_start(encoder: Encoder, source: SparseCodes, runs: int = 5) -> Models:
    """`start` as their known-codes script does it: every model is built before torch is seeded for its run.

    An SAE is the first of its run, so that run 0 goes on in the stream from which the atoms were drawn, and run i has
    the seed of run i - 1. Each MLP comes after another model of its run and has that run's seed, as all models have in
    an earlier notebook of theirs, which is `start` with torch's generators at seed + run.
    """
    seeds = [source.seed + run - (encoder.hidden is None) for run in range(runs)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if encoder.hidden is None:
        generators[0].manual_seed(source.seed)
        random_dictionary(source.n_atoms, source.d_in, generators[0])
    return start(encoder, source.d_in, source.n_atoms, generators, decoder=False)


def fit_codes(
    models: Models,
    x: Float[Tensor, "*_ samples d_in"],
    codes: Float[Tensor, "*_ samples n"],
    *,
    steps: int,
    lr: float = 1e-3,
    at: Iterable[int] = (),
    measure: Callable[[Models], Any] | None = None,
) -> Fitted:
    """Codes known: minimise -mean_j cos(s_j, z_j), each vector over the samples (O'Neill et al. 2024; cosine loss).

    x and codes are one data set, or one for each model. The loss is blind to the scale of a latent.
    """
    batch = _Batch(models._replace(dictionary=None), x)
    units = torch.nn.functional.normalize(codes, dim=-2).expand(len(batch), -1, -1) / codes.shape[-1]

    def differentiated(part: _Part) -> Callable[[], None]:
        unit, product, scaled = units[part.models], torch.empty_like(part.latents), torch.empty_like(part.latents)

        def differentiate():
            z = part.forward()
            norms = torch.bmm(part.ones, torch.mul(z, z, out=product)).sqrt_().clamp_(min=1e-8)
            cosines = torch.bmm(part.ones, torch.mul(z, unit, out=product))  # over n
            torch.mul(z, cosines / norms.pow(3), out=scaled)
            part.backward(scaled.sub_(unit / norms))

        return differentiate

    return batch.fit(differentiated, steps, lr, at, measure)


def fit_encoders(
    models: Models,
    x: Float[Tensor, "*_ samples d_in"],
    dictionary: Float[Tensor, "*_ n d_in"],
    *,
    steps: int,
    lr: float = 1e-3,
    l1: float | Float[Tensor, " models"] = 0.01,
    at: Iterable[int] = (),
    measure: Callable[[Models], Any] | None = None,
) -> Fitted:
    """Dictionary known and fixed: minimise mean(x - z D)^2 + l1 mean|z| (O'Neill et al. 2024).

    x, dictionary and l1 are one for all, or one for each model. The models' own dictionary becomes the given one.
    """
    batch = _Batch(models._replace(dictionary=None), x)
    dictionary = dictionary.expand(len(batch), -1, -1)
    samples, (n, d_in) = batch.x.shape[1], dictionary.shape[1:]
    scale = 2 / (samples * d_in)
    grams = dictionary @ dictionary.mT
    constants = _penalty(l1, samples * n, x.device) - scale * (batch.x @ dictionary.mT)

    def differentiated(part: _Part) -> Callable[[], None]:
        gram, constant, gradient = grams[part.models], constants[part.models], torch.empty_like(part.latents)

        def differentiate():
            part.backward(torch.baddbmm(constant, part.forward(), gram, alpha=scale, out=gradient))

        return differentiate

    fitted = batch.fit(differentiated, steps, lr, at, measure)
    return fitted._replace(models=fitted.models._replace(dictionary=dictionary.contiguous()))


def fit_autoencoders(
    models: Models,
    x: Float[Tensor, "*_ samples d_in"],
    *,
    steps: int,
    lr: float = 1e-3,
    l1: float | Float[Tensor, " models"] = 0.01,
    at: Iterable[int] = (),
    measure: Callable[[Models], Any] | None = None,
) -> Fitted:
    """Nothing known: encoder and dictionary on the loss of `fit_encoders` (O'Neill et al. 2024).

    Rows of the dictionary are put at unit norm before each forward pass; the gradient along them is not removed.
    """
    if models.dictionary is None:
        raise ValueError("models must have a dictionary to learn, got None")
    batch = _Batch(models, x)
    samples, (n, d_in) = batch.x.shape[1], models.dictionary.shape[1:]
    scale = 2 / (samples * d_in)
    penalties = _penalty(l1, samples * n, x.device).expand(len(batch), 1, 1)

    def differentiated(part: _Part) -> Callable[[], None]:
        D, dD, penalty = part.dictionary, part.dictionary_gradient, penalties[part.models]
        left, gradient = torch.empty_like(part.x), torch.empty_like(part.latents)

        def differentiate():
            D.div_(torch.linalg.vector_norm(D, dim=-1, keepdim=True))
            z = part.forward()
            torch.baddbmm(part.x, z, D, beta=-scale, alpha=scale, out=left)
            dD.copy_((left.mT.contiguous() @ z).mT)  # twice as fast as z^T left, whose long side is the strided one
            part.backward(torch.baddbmm(penalty, left, D.mT, out=gradient))

        return differentiate

    return batch.fit(differentiated, steps, lr, at, measure)


class _Batch:
    """Parameters of all models in one flat tensor, their gradient in another, data, and the parts to train in."""

    def __init__(self, models: Models, x: Tensor):
        E = len(models.weights[0])
        if x.dim() == 3 and len(x) not in (1, E):
            raise ValueError(f"x must be one data set or one for each of {E} models, got {len(x)}")
        if x.shape[-1] != models.weights[0].shape[1]:
            raise ValueError(f"x must have the models' d_in={models.weights[0].shape[1]}, got {x.shape[-1]}")
        self.encoder = models.encoder
        self.x = x.expand(E, -1, -1).contiguous()
        given = [one for part in _layered(models) for one in part]
        sizes = [one.numel() for one in given]
        self.flat = torch.cat([one.reshape(-1) for one in given]).to(x.device)
        self.gradient = torch.zeros_like(self.flat)
        self.tensors, gradients = (
            [piece.view(one.shape) for piece, one in zip(flat.split(sizes), given, strict=True)]
            for flat in (self.flat, self.gradient)
        )
        samples, widths = self.x.shape[1], [weight.shape[2] for weight in models.weights]
        together = E if x.is_cuda else max(IN_CACHE // (samples * sum(widths)), 1)
        self.parts = []
        for first in range(0, E, together):
            chosen = slice(first, first + together)
            views = [[one[chosen] for one in tensors] for tensors in (self.tensors, gradients)]
            self.parts.append(_Part(self.encoder, chosen, self.x[chosen], len(widths), *views))

    def __len__(self) -> int:
        return len(self.x)

    def models(self) -> Models:
        """A copy of the present weights, dictionary rows at unit norm."""
        layers = len(self.parts[0].weights)
        copies = [one.clone() for one in self.tensors]
        weights, biases = copies[:layers], copies[layers : 2 * layers] if self.encoder.bias else []
        own = copies[-1] if len(copies) > len(weights) + len(biases) else None
        if own is not None:
            own = own / torch.linalg.vector_norm(own, dim=-1, keepdim=True)
        return Models(self.encoder, tuple(weights), tuple(biases), own)

    def fit(self, differentiated, steps, lr, at, measure) -> Fitted:
        each = [differentiated(part) for part in self.parts]

        def differentiate():
            for one in each:
                one()

        def record():
            return measure(self.models()) if measure else None

        curve = adam(self.flat, self.gradient, differentiate, steps=steps, lr=lr, at=at, record=record)
        return Fitted(self.models(), curve)


class _Part:
    """So many models of a batch as fit into a processor's cache: views of their tensors, and the passes over them."""

    def __init__(self, encoder, models: slice, x: Tensor, layers: int, tensors: list[Tensor], gradients: list[Tensor]):
        self.encoder, self.models, self.x = encoder, models, x
        self.weights, self.weight_gradients = tensors[:layers], gradients[:layers]
        biases = slice(layers, 2 * layers if encoder.bias else layers)
        self.biases, self.bias_gradients = ([one[:, None] for one in part[biases]] for part in (tensors, gradients))
        has_own = len(tensors) > biases.stop
        self.dictionary, self.dictionary_gradient = (tensors[-1], gradients[-1]) if has_own else (None, None)
        self.inputs = [x, *(x.new_empty(*x.shape[:2], weight.shape[2]) for weight in self.weights)]
        self.latents = self.inputs[-1]
        self.transposed = x.mT.contiguous()
        self.ones = x.new_ones(len(x), 1, x.shape[1])  # a product with ones is a sum over samples, and faster

    def forward(self) -> Tensor:
        """Latents (models, samples, n) of the training data."""
        for layer, weight in enumerate(self.weights):
            before, after = self.inputs[layer], self.inputs[layer + 1]
            if self.biases:
                torch.baddbmm(self.biases[layer], before, weight, out=after)
            else:
                torch.bmm(before, weight, out=after)
            after.relu_()
        if self.encoder.k is not None:
            self.latents.copy_(_largest(self.latents, self.encoder.k))
        return self.latents

    def backward(self, gradient: Tensor) -> None:
        """The gradient of every layer from that of the latents, which is overwritten."""
        for layer in reversed(range(len(self.weights))):
            before, after = self.inputs[layer], self.inputs[layer + 1]
            # the derivative of ReLU, and of the choice of the k largest: 1 where the output is positive
            torch.ops.aten.threshold_backward.grad_input(gradient, after, 0, grad_input=gradient)
            transposed = before.mT if layer else self.transposed
            torch.bmm(transposed, gradient, out=self.weight_gradients[layer])
            if self.biases:
                torch.bmm(self.ones, gradient, out=self.bias_gradients[layer])
            if layer:
                gradient = gradient @ self.weights[layer].mT


def _largest(latents: Tensor, k: int) -> Tensor:
    if k >= latents.shape[-1]:
        return latents
    top = latents.topk(k, dim=-1)
    return torch.zeros_like(latents).scatter_(-1, top.indices, top.values)


def _linear(fan_in: int, fan_out: int, bias: bool, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Weight (fan_in, fan_out) and bias (fan_out,) as torch.nn.Linear draws them."""
    weight = torch.empty(fan_out, fan_in)
    torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
    drawn = torch.empty(fan_out).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator) if bias else None
    return weight.T.contiguous(), drawn


def _penalty(l1: float | Tensor, entries: int, device: torch.device) -> Tensor:
    """The gradient of l1 mean|z| in every positive latent, (1,) or (models, 1, 1)."""
    l1 = torch.as_tensor(l1, dtype=torch.float32, device=device)
    if not (l1 >= 0).all() or not l1.isfinite().all():
        raise ValueError(f"l1 must be at least 0 and finite, got {l1.tolist()}")
    return l1.reshape(-1, 1, 1) / entries
