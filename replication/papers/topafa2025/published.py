"""Numbers that the authors released, kept once: results per run, t-tests and description lengths (code and notebooks).

Results are the last logged training step of one run each, one batch of 4,096 tokens. NMSE is the mean squared error per
coordinate of standardised tokens.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

D_IN, D_SAE = 768, 12288
BITS = 7
"""Bits per active latent for its value, in the released description lengths."""
STEPS = 100
"""Training steps that a released t-test compares."""

_K = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_LAMBDAS = (1 / 128, 1 / 64, 1 / 32, 1 / 24, 1 / 16)
_RESULTS = {  # (method, layer): L0 and NMSE over _K or _LAMBDAS
    ("topk", 6): (
        (32.0, 63.9, 127.8, 256.0, 512.0, 1023.5, 2044.2, 2971.2, 2950.1),
        (6.488e-2, 5.127e-2, 3.920e-2, 2.644e-2, 8.853e-3, 1.739e-4, 1.855e-4, 1.816e-4, 2.134e-4),
    ),
    ("topk", 7): (
        (32.0, 63.9, 127.8, 255.7, 512.0, 1023.4, 2045.2, 2976.3, 2957.2),
        (7.431e-2, 5.873e-2, 4.476e-2, 2.934e-2, 9.735e-3, 1.871e-4, 2.178e-4, 2.090e-4, 1.812e-4),
    ),
    ("topk", 8): (
        (32.0, 63.8, 127.8, 256.0, 512.0, 1023.3, 2044.5, 2960.6, 2952.2),
        (8.237e-2, 6.525e-2, 4.977e-2, 3.221e-2, 9.532e-3, 1.765e-4, 1.925e-4, 2.269e-4, 1.976e-4),
    ),
    ("batchtopk", 6): (
        (32, 64, 128, 256, 512, 1024, 2048, 2969.2, 2950.1),
        (6.284e-2, 4.951e-2, 3.689e-2, 2.372e-2, 8.027e-3, 1.651e-4, 2.084e-4, 1.827e-4, 2.134e-4),
    ),
    ("batchtopk", 7): (
        (32, 64, 128, 256, 512, 1024, 2048, 2974.4, 2957.2),
        (7.261e-2, 5.719e-2, 4.266e-2, 2.700e-2, 9.483e-3, 1.926e-4, 1.861e-4, 2.017e-4, 1.812e-4),
    ),
    ("batchtopk", 8): (
        (32, 64, 128, 256, 512, 1024, 2048, 2950.4, 2952.2),
        (8.069e-2, 6.364e-2, 4.799e-2, 3.012e-2, 9.668e-3, 1.873e-4, 2.090e-4, 2.156e-4, 1.976e-4),
    ),
    ("topafa", 6): ((315.2, 1109.9, 2037.3, 2132.4, 2343.7), (1.321e-1, 2.909e-2, 1.641e-4, 2.136e-4, 1.852e-4)),
    ("topafa", 7): ((1534.5, 1930.1, 2066.9, 2180.4, 2383.8), (4.767e-3, 1.953e-4, 2.327e-4, 2.489e-4, 2.655e-4)),
    ("topafa", 8): ((1579.2, 1973.3, 2103.8, 2195.8, 2418.9), (3.346e-3, 1.840e-4, 2.083e-4, 1.659e-4, 1.706e-4)),
}


def results() -> pd.DataFrame:
    """The released runs: layer (0-based), method, sparsity (k or lambda), dial (k/d or lambda d), l0, l0_over_d,
    lee_nmse; one line each."""
    rows = [
        {"layer": layer, "method": method, "sparsity": sparsity, "l0": float(l0), "lee_nmse": nmse}
        for (method, layer), columns in _RESULTS.items()
        for sparsity, l0, nmse in zip(_LAMBDAS if method == "topafa" else _K, *columns, strict=True)
    ]
    table = pd.DataFrame(rows)
    dial = np.where(table.method == "topafa", table.sparsity * D_IN, table.sparsity / D_IN)
    return table.assign(dial=dial, l0_over_d=table.l0 / D_IN)


class TTest(NamedTuple):
    """One released comparison over the last STEPS training losses of two runs: A is top-AFA, B the baseline."""

    layer: int
    a: float
    """lambda of top-AFA."""
    method: str
    b: int
    """k of the baseline."""
    mean_a: float
    var_a: float
    mean_b: float
    var_b: float
    t: float
    p: float


T_TESTS = (
    TTest(8, 1 / 24, "topk", 2048, 1.97e-4, 2.24e-9, 2.28e-4, 6.16e-10, -5.77, 4.4e-8),
    TTest(8, 1 / 24, "batchtopk", 1024, 1.97e-4, 2.24e-9, 2.22e-4, 1.93e-9, -3.78, 2.0e-4),
    TTest(7, 1 / 64, "topk", 8192, 2.21e-4, 7.92e-10, 2.39e-4, 3.96e-10, -5.19, 5.6e-7),
    TTest(7, 1 / 64, "batchtopk", 8192, 2.21e-4, 7.92e-10, 2.39e-4, 3.96e-10, -5.19, 5.6e-7),
    TTest(6, 1 / 32, "topk", 1024, 1.79e-4, 1.96e-9, 1.99e-4, 4.05e-10, -4.24, 4.0e-5),
    TTest(6, 1 / 32, "batchtopk", 1024, 1.79e-4, 1.96e-9, 2.02e-4, 4.61e-10, -4.67, 6.9e-6),
)

MDL = {  # (layer, method): "tolerance" (NMSE of the run with the lowest one) and bits
    (6, "batchtopk"): (1.651e-4, 21079.0),
    (6, "topafa"): (1.641e-4, 41937.5),
    (6, "topk"): (1.739e-4, 21068.6),
    (7, "batchtopk"): (1.812e-4, 60874.6),
    (7, "topafa"): (1.953e-4, 39731.1),
    (7, "topk"): (1.812e-4, 60874.6),
    (8, "batchtopk"): (1.873e-4, 21079.0),
    (8, "topafa"): (1.659e-4, 45199.7),
    (8, "topk"): (1.765e-4, 21065.1),
}
