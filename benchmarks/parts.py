"""Where the time of our TopK step goes. One JSON line per size: part -> milliseconds, medians.

    encoder product     x W_enc + b_enc at the library's precision, with the casts
    top-k               `topk_encode` less that product
    decode              `sparse_decode`
    gradients           backward of both
    Adam, projection    the optimiser's step with the projection and the unit norm
    rest                the step less all of these: loss, counters, autograd, Python
    AuxK                the step with 10 % of the latents dead less the step with none

The first four are timed on their own, so that what they share in a step (a cast, a warm cache) lands in the rest.
"""

import json
import statistics
import time
from dataclasses import replace

import torch
from ours import build, trainee
from timing import STEPS, WARM_UP, Case, arguments, measure, median_ms, mixture

from replication.kernels import sparse_decode, topk_encode

PARTS = ("encoder product", "top-k", "decode", "gradients", "Adam, projection", "rest", "AuxK")


def parts(case: Case) -> dict[str, float]:
    """Milliseconds of each of PARTS; a negative difference (noise) is 0."""
    one = trainee(case, mixture(case.d, case.batch, 1)[0].to(case.device))
    sae, x = one.sae, mixture(case.d, case.batch, 1, seed=1)[0].to(case.device)
    kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
    centred, rows = (x - sae.b_dec).detach(), sae.W_enc.T

    def product():
        return torch.addmm(sae.b_enc.to(kind), centred.to(kind), rows.T.to(kind))

    def encode():
        return topk_encode(centred, rows, sae.b_enc, sae.k)

    def forward():
        return sparse_decode(encode(), sae.W_dec)

    with torch.autocast(case.device, torch.bfloat16, enabled=case.precision == "bf16", cache_enabled=False):
        with torch.no_grad():
            multiplied, encoded = median_ms(product, case.device), median_ms(encode, case.device)
            selected = encode()
            decoded = median_ms(lambda: sparse_decode(selected, sae.W_dec), case.device)
        forwards = median_ms(forward, case.device)
        both = median_ms(lambda: forward().sum().backward(), case.device)
        sae.zero_grad(set_to_none=True)
    optimised = _optimiser_ms(one, x)
    alive, dying = (measure(replace(case, dead=dead), build)["ms"] for dead in (0.0, 0.1))
    found = [multiplied, encoded - multiplied, decoded, both - forwards, optimised]
    found = [max(ms, 0.0) for ms in found]
    return dict(zip(PARTS, [*found, max(alive - sum(found), 0.0), max(dying - alive, 0.0)], strict=True))


def _optimiser_ms(one, x: torch.Tensor) -> float:
    """Median time of the optimiser's step inside real steps."""
    inner, times = one.optimiser.step, []

    def timed(*arguments):
        began = _time(x)
        inner(*arguments)
        times.append(_time(x) - began)

    one.optimiser.step = timed
    for _ in range(WARM_UP[x.device.type] + STEPS):
        one.step(x)
    return statistics.median(times[WARM_UP[x.device.type] :]) * 1e3


def _time(x: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    [case], _ = arguments()
    print(json.dumps({name: round(ms, 4) for name, ms in parts(case).items()}))
