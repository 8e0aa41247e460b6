"""What the machine can do: the encoder product alone, gathers, copies. One JSON line; see `train_step.floor_ms`.

A gather takes k weight rows a token and adds them up (torch's `embedding_bag`). The copy is of 2dn float32 numbers, one
of the four arrays that Adam passes over, so that what fits into a cache here is timed in that cache. Bytes read and
bytes written both count.
"""

import json

import torch
from timing import arguments, median_ms
from torch.nn.functional import embedding_bag

PRODUCT = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}


def main() -> None:
    [case], _ = arguments()
    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
    x, weight = (torch.randn(shape, device=case.device) for shape in ((case.batch, case.d), (case.n, case.d)))
    x, weight = x.to(PRODUCT[case.precision]), weight.to(PRODUCT[case.precision])
    source = torch.randn(2, case.n, case.d, device=case.device)
    target = torch.empty_like(source)
    indices = torch.randint(case.n, (case.batch, case.k), device=case.device)
    values = torch.rand(case.batch, case.k, device=case.device)
    product = median_ms(lambda: x @ weight.T, case.device)
    gather = median_ms(lambda: embedding_bag(indices, source[0], per_sample_weights=values, mode="sum"), case.device)
    copy = median_ms(lambda: target.copy_(source), case.device)
    found = {"product_ms": product, "gather_ms": gather, "gb_per_s": 2 * source.nbytes / copy / 1e6}
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
