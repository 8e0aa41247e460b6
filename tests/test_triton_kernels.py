"""Every Triton kernel against the plain expression in float64: on a GPU as compiled, elsewhere in Triton's interpreter.

Errors are the largest difference over the largest number; inputs are random, or skewed as after training: a few
latents on nearly every token, most of them rare, some never.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from replication import kernels, triton_kernels
from replication import train as training
from replication.activations import Gaussian
from replication.sae.jumprelu import KERNELS, jumprelu, step
from replication.train import Run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOAT32 = 2e-6
SHAPES = [(1, 3, 4, 1), (7, 5, 11, 3), (5, 130, 6, 6), (9, 300, 40, 11)]  # batch, d, n, k
SPLIT = (530, 5, 2, 1)  # latents with two or three chunks of tokens


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def quick_interpreter(monkeypatch):
    """Triton's interpreter folds xor, which every sort consists of, number by number; numpy does it at once."""
    if DEVICE == "cuda":
        return
    import numpy
    from triton.language import standard
    from triton.runtime.interpreter import ReduceOps

    plain = ReduceOps.apply_impl

    def apply(self, input):
        if self.combine_fn is not standard._xor_combine:
            return plain(self, input)
        data = numpy.bitwise_xor.reduce(input[0].handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(data, input[0].dtype)

    monkeypatch.setattr(ReduceOps, "apply_impl", apply)


def error(ours, exact):
    assert ours.shape == exact.shape and ours.device.type == DEVICE
    return ((ours.cpu().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30)).item()


def random(*shape, g):
    return torch.randn(*shape, generator=g).to(DEVICE)


def chosen(batch, n, k, skewed, g):
    """k distinct latents per token; skewed: by Zipf's law, so that the first fire nearly always, the last never."""
    odds = 1 / torch.arange(1, n + 1).double() ** (2 if skewed else 0)
    if skewed and n > k:
        odds[-1] = 0
    return torch.multinomial(odds.expand(batch, n), k, generator=g).to(DEVICE)


def exact(*tensors):
    return [tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.cpu() for tensor in tensors]


def holds_the_largest(numbers, k):
    values, indices = triton_kernels.topk(numbers, k)
    assert values.dtype == numbers.dtype and indices.dtype == torch.int64
    assert (indices.sort().values.diff() > 0).all(), "indices must be distinct"
    assert torch.equal(values, numbers.gather(1, indices))
    assert torch.equal(values.sort(descending=True).values, numbers.topk(k).values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "batch, n, k", [(3, 301, 4), (1, 1000, 1), (2, 250, 7), (3, 97, 97), (2, 131, 50), (1, 1, 1), (2, 40, 1)]
)
def test_topk_equals_torch(batch, n, k, dtype, g):
    holds_the_largest(random(batch, n, g=g).to(dtype), k)


@pytest.mark.parametrize("sizes", [(64,), (32, 8), (32, 16)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_topk_through_groups_of_groups(sizes, dtype, g, monkeypatch):
    monkeypatch.setattr(triton_kernels, "_plan", lambda n, k: sizes)
    holds_the_largest(random(2, 2111, g=g).to(dtype), 3)
    holds_the_largest(torch.randint(0, 2, (2, 1600), generator=g).to(DEVICE, dtype), 3)


@pytest.mark.parametrize("n, k", [(301, 5), (150, 40)])
@pytest.mark.parametrize("lowest", [-1.0, 0.0, float("-inf")])
def test_topk_of_ties_gives_distinct_places(n, k, lowest, g):
    few = torch.tensor([lowest, 0.0, 2.0])
    holds_the_largest(few[torch.randint(0, 3, (3, n), generator=g)].to(DEVICE, torch.bfloat16), k)
    holds_the_largest(torch.full((2, n), lowest, device=DEVICE), k)  # minus infinity is chosen before what lies outside


@pytest.mark.parametrize("n, k", [(301, 3), (150, 40)])
def test_topk_counts_nan_as_largest(n, k, g):
    numbers = random(2, n, g=g)
    numbers[0, 7], numbers[1] = torch.nan, torch.nan
    values, indices = triton_kernels.topk(numbers, k)
    assert 7 in indices[0] and values[0].isnan().sum() == 1 and values[1].isnan().all()
    assert (indices.sort().values.diff() > 0).all() and indices.max() < n


def test_topk_of_a_skewed_batch_and_of_columns(g):
    numbers = random(300, 3, g=g).T - 10
    numbers[:, 5:7] += 100
    holds_the_largest(numbers, 4)
    holds_the_largest(numbers, 60)


def test_topk_sorts_few_keys_and_falls_back_where_no_grouping_fits(g):
    for n in (12288, 32768, 131072, 524288, 2**20, 2**22):
        for k in (1, 32, 64, 128):
            sizes, groups = triton_kernels._plan(n, k), n
            for size in sizes:
                groups = -(-groups // size)
            assert k <= groups <= triton_kernels.MAX_KEYS and k * max(sizes) <= triton_kernels.MAX_KEYS
    assert triton_kernels._plan(13184, 384) is triton_kernels._plan(100, 5) is None
    holds_the_largest(random(1, triton_kernels.MAX_ROW + 1, g=g), 200)
    holds_the_largest(random(2, 300, g=g).double(), 3)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("batch, d, n, k", SHAPES)
def test_decode_and_products(batch, d, n, k, skewed, g):
    x, rows, values = random(batch, d, g=g), random(d, n, g=g).T, random(batch, k, g=g)
    indices = chosen(batch, n, k, skewed, g)
    x64, rows64, values64, places = exact(x, rows, values, indices)
    picked = rows64[places]
    assert error(triton_kernels.decode(values, indices, rows), (values64[..., None] * picked).sum(1)) < FLOAT32
    assert error(triton_kernels.products(x, rows, indices), (picked @ x64[..., None]).squeeze(-1)) < FLOAT32


def test_decode_and_products_read_bfloat16(g):
    x, rows, values = (random(*shape, g=g).bfloat16() for shape in ((4, 20), (9, 20), (4, 3)))
    indices = chosen(4, 9, 3, False, g)
    x64, rows64, values64, places = exact(x, rows, values, indices)
    assert error(triton_kernels.decode(values, indices, rows), (values64[..., None] * rows64[places]).sum(1)) < FLOAT32
    assert error(triton_kernels.products(x, rows, indices), (rows64[places] @ x64[..., None]).squeeze(-1)) < FLOAT32


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("batch, d, n, k", [*SHAPES, SPLIT])
def test_gradients_of_rows_and_bias(batch, d, n, k, skewed, g):
    weights, source = random(k, batch, g=g).T, random(batch, d, g=g)
    indices = chosen(batch, n, k, skewed, g)
    weights64, source64, places = exact(weights, source, indices)
    dense = torch.zeros(batch, n, dtype=torch.float64).scatter(1, places, weights64)
    groups = triton_kernels.group_by_latent(indices, n)
    rows, bias = triton_kernels.rows_and_bias_gradient(groups, weights, source, n)
    assert error(rows, dense.T @ source64) < FLOAT32
    assert error(bias, dense.sum(0)) < FLOAT32
    assert torch.equal(rows, triton_kernels.rows_gradient(groups, weights, source, n)), "the same bits every time"
    silent = torch.bincount(places.flatten(), minlength=n) == 0
    assert (rows.cpu()[silent] == 0).all()


def test_a_latent_of_every_token_is_split_and_the_rest_are_not(g):
    batch, n = 3 * triton_kernels.CHUNK, 5
    indices = torch.stack([torch.ones(batch), torch.full((batch,), 3)], 1).long().to(DEVICE)
    indices[triton_kernels.CHUNK :, 1] = 4
    groups = triton_kernels.group_by_latent(indices, n)
    assert groups.offsets.tolist() == [0, 0, 768, 768, 1024, 1536]
    assert groups.excess.tolist() == [0, 0, 2, 2, 2, 3]
    assert groups.owner.tolist() == [1, 1, 4, n, n, n]
    assert torch.equal(groups.order[:3].cpu(), torch.tensor([0, 2, 4]))


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("n, d", [(5, 3), (3, 100), (1, 1300)])
def test_adam_rows_equals_torchs_adam(n, d, constrained, g):
    lr, beta1, beta2, eps = 1e-2, 0.9, 0.999, 1e-8
    weight = random(n, d, g=g)
    if constrained:
        weight /= weight.norm(dim=1, keepdim=True)
    reference = torch.nn.Parameter(weight.cpu().double())
    optimiser = torch.optim.Adam([reference], lr=lr, betas=(beta1, beta2), eps=eps)
    m, v, shadow = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.bfloat16)
    for t in range(1, 4):
        grad = random(d, n, g=g).T
        reference.grad = grad.cpu().double().clone()
        if constrained:
            along = (reference.grad * reference).sum(1, keepdim=True).detach()
            reference.grad -= along * reference.detach()
        optimiser.step()
        if constrained:
            reference.data /= reference.data.norm(dim=1, keepdim=True)
        scalars = torch.tensor([lr, 1 - beta1**t, 1 - beta2**t], device=DEVICE)
        options = {"project": constrained, "unit_norm": constrained, "shadow": shadow if constrained else None}
        triton_kernels.adam_rows_(weight, grad, m, v, scalars, beta1=beta1, beta2=beta2, eps=eps, **options)
    state = optimiser.state[reference]
    assert error(weight, reference.detach()) < FLOAT32
    assert error(m, state["exp_avg"]) < FLOAT32 and error(v, state["exp_avg_sq"]) < FLOAT32
    if not constrained:
        assert (shadow == 0).all()
    elif DEVICE == "cuda":
        assert torch.equal(shadow, weight.bfloat16())
    else:  # where a GPU rounds to the nearest, the interpreter cuts off
        torch.testing.assert_close(shadow.float(), weight, rtol=2**-7, atol=0)


def test_adam_rows_refuses_to_change_a_copy(g):
    weight = random(4, 3, g=g)
    with pytest.raises(ValueError, match="m is changed in place"):
        triton_kernels.adam_rows_(
            *(weight, weight, random(3, 4, g=g).T, weight, weight[0]), beta1=0.9, beta2=0.999, eps=1e-8
        )


def test_a_row_of_zeros_stays_finite(g):
    weight, m, v = (torch.zeros(2, 3, device=DEVICE) for _ in range(3))
    scalars = torch.tensor([0.1, 0.1, 0.001], device=DEVICE)
    constants = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    triton_kernels.adam_rows_(weight, torch.zeros_like(m), m, v, scalars, **constants, project=True, unit_norm=True)
    assert torch.equal(weight, torch.zeros_like(weight))


@pytest.mark.parametrize("ste_into_pre", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("batch, n", [(1, 1), (67, 301), (150, 3)])
def test_jumprelu_equals_its_autograd_functions(batch, n, kernel, ste_into_pre, g):
    pre, theta, grad = random(n, batch, g=g).T, random(n, g=g).abs(), random(batch, n, g=g)
    theta[0], l0_grad, estimator = -9.0, torch.tensor([0.3], device=DEVICE), (0.7, kernel, ste_into_pre)
    pre64, theta64, grad64 = exact(pre, theta, grad)
    leaves = pre64.requires_grad_(), theta64.requires_grad_()
    active = step(*leaves, *estimator)
    loss = (jumprelu(*leaves, *estimator) * grad64).sum() + l0_grad.item() * active.sum()
    latents, count = triton_kernels.jumprelu_forward(pre, theta)
    assert torch.equal(latents, pre * (pre > theta))
    assert torch.equal(count.cpu().double(), active.detach().sum(0))
    ours = triton_kernels.jumprelu_backward(pre, theta, grad, l0_grad, *estimator)
    for mine, theirs in zip(ours, torch.autograd.grad(loss, leaves), strict=True):
        assert error(mine, theirs) < FLOAT32


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

class Hopper:  # stands in for a driver: the launchers run as they are, but a launch only compiles
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

triton.runtime.driver.set_active(Hopper)
launch, names = JITFunction.run, set()

def compile_only(self, *args, **kwargs):
    assert "cubin" in launch(self, *args, **{**kwargs, "warmup": True}).asm
    names.add(self.__name__)

JITFunction.run = compile_only
torch.set_default_device("meta")
from replication import triton_kernels as kernels

batch, n, k, d = 4096, 32768, 32, 768
x, rows, shadow = torch.empty(batch, d), torch.empty(n, d), torch.empty(n, d, dtype=torch.bfloat16)
pre, wide = torch.empty(batch, n, dtype=torch.bfloat16), torch.empty(batch, n)
values, indices = kernels.topk(pre, k)
kernels.topk(pre[:, :3328], 384)
kernels.decode(values.float(), indices, rows)
kernels.products(x, rows, indices)
kernels.rows_and_bias_gradient(kernels.group_by_latent(indices, n), values.float(), x, n)
constants = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "project": True, "unit_norm": True}
kernels.adam_rows_(rows, rows, rows, rows, torch.empty(3), **constants, shadow=shadow)
kernels.jumprelu_forward(wide, wide[0])
kernels.jumprelu_backward(wide, wide[0], wide, torch.empty(1), 0.001, "rectangle", False)
defined = {name for name in dir(kernels) if name.endswith("_kernel")}
assert names == defined, defined - names
"""


def test_every_kernel_compiles_for_an_h200(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    root = Path(triton_kernels.__file__).parents[1]
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# ------------------------------------------------------------------------------------------- the routes through them

EVERYWHERE = [
    ("topk", 3, {}),
    ("topk", 2, {"multi_weight": 0.125}),
    ("jumprelu", 0.01, {"bandwidth": 0.5, "threshold": 0.1}),
]


@pytest.mark.parametrize("name, sparsity, options", EVERYWHERE)
def test_training_by_kernels_equals_training_by_plain_torch(name, sparsity, options, monkeypatch):
    """Twelve steps on correlated data with dead latents, to 1e-4: the same losses, weights and dead counters."""
    run = Run(
        Gaussian(6),
        name,
        d_sae=150,
        sparsity=sparsity,
        tokens=12 * 16,
        batch=16,
        lr=1e-2,
        dead_after=32,
        options=options,
    )
    batches = [x.to(DEVICE).cumsum(-1) for x in run.source.batches(run.batch, run.tokens, seed=0)]
    monkeypatch.setattr(training, "_uses_bf16", lambda device: False)
    monkeypatch.setattr(kernels, "DENSE_BELOW", {DEVICE: 0})
    trained = {}
    for route in ("plain", "kernels"):
        monkeypatch.setattr(kernels, "uses_triton", lambda x, on=route == "kernels": on)
        trained[route] = training._Trainee(run, torch.cat(batches), DEVICE)
        for x in batches:
            trained[route].step(x)
    assert trained["kernels"].silent.max() >= run.dead_after
    assert trained["kernels"].optimiser.rows and not trained["plain"].optimiser.rows
    assert torch.equal(trained["kernels"].silent, trained["plain"].silent)
    pairs = zip(trained["kernels"].sae.parameters(), trained["plain"].sae.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
