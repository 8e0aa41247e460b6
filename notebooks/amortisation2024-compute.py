# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What it costs
#
# {cite:t}`oneill2024`: operations of training and inference, and the quality that they buy.
#
# The pages before this one asked which method finds the codes, with the dictionary given
# ({doc}`amortisation2024-inference`) and without ({doc}`amortisation2024-unknown`); the title of the paper promises
# *compute-optimal* inference, so the question here is what each method pays for it. Three prices are kept apart, because
# they answer different questions and because their sum hides how many samples are ever looked at:
#
# - **training**, in operations, paid once;
# - **inference**, in operations per sample, paid for ever;
# - **time**, measured, which is what a reader waits for and which operations predict badly.
#
# Claims about budgets are judged where their curves are: **C7** and **C8** on {doc}`amortisation2024-inference`, **C14** on
# {doc}`amortisation2024-unknown`. This page supplies the axis under them.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import amortisation_design as figures
from replication.papers.amortisation2024 import compute

pages.open_page(preset)

# %% [markdown]
# ## Formulas, and what can be counted
#
# The authors' released code prices every method by a formula. With $M$ dimensions, $N$ latents, hidden width $H$ and $T$
# steps, for one sample:
#
# | | released formula | |
# |---|---|---|
# | SAE, inference with its decoder | $4MN + N$ | |
# | MLP, inference with its decoder | $2MH + H + 2HN + N + 2NM$ | |
# | optimisation of codes | $(MN + N) + T\,(4MN + 2M + 11N)$ | |
# | SAE, training step | $8MN + 3N + 2(MN + N)$, with a learned dictionary $+\,3MN$ | updates of weights charged once a sample |
# | sparse coding, training step | $3(5MN + N) + (2M + 2N)\,B + MN$ | $B$, the batch, multiplies the whole once more |
#
# A formula for matrix products can be checked: torch counts them while a step runs, forward and backward, $2mnk$ for each
# product. What it does not count (ReLU, Adam, norms) is small. A formula is a plain function here, with the paper's
# version behind a flag:
#
# ```{literalinclude} ../replication/inference/flops.py
# :pyobject: sparse_coding_training
# :caption: replication/inference/flops.py
# ```
#
# Counting is one function, too:
#
# ```{literalinclude} ../replication/papers/amortisation2024/compute.py
# :pyobject: counted
# :caption: replication/papers/amortisation2024/compute.py
# ```

# %% tags=["remove-cell"]
times = pages.rows_of(compute.TIMES, preset, "amortisation2024-times")

# %% [markdown]
# One training step on the whole batch, encoder and dictionary learned. *step_products* is the matrix-product part of the
# corrected formula; *step_counted* is torch's count, and the two should agree:

# %% tags=["remove-input"]
trained = times.dropna(subset="step_counted")
columns = ["step_released", "step_corrected", "step_products", "step_counted"]
pages.table_of(trained, ["n_atoms", "d_in", "method", "effort"], columns)

# %% [markdown]
# Inference, per sample, from $x$ to its codes. The decoder, $2MN$, is left out, so that encoders and iterated methods
# stand on one axis. *effort* is the hidden width of the MLP and the iterations or atoms of the others; torch does not count
# the linear systems of OMP and of the oracle:

# %% tags=["remove-input"]
inferred = times.dropna(subset="sample_counted")
columns = ["sample_formula", "sample_products", "sample_counted"]
pages.table_of(inferred, ["n_atoms", "d_in", "method", "effort"], columns)

# %% [markdown]
# ## One factor too many
#
# In the released formula of sparse coding the batch enters twice: terms that already sum over the batch are multiplied by
# it again. The bars show the consequence beside the count.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Bar charts, a panel per problem size, logarithmic scale: operations of one training step of the SAE and of sparse coding by the released formula, by the corrected formula and by torch's count of matrix products. The released bar of sparse coding stands far above its other two."}, "figure": {"name": "fig-amortisation2024-counts", "caption": "Operations of one full-batch training step at each size. Grey: the formula of the released code. Full colour: corrected. Pale: matrix products as counted by torch, a lower bound by what it leaves out. For the SAE the three agree within a factor of two; for sparse coding the released formula does not."}}
figures.counts(compute.sparse_coding_slip(times))

# %% [markdown]
# From the formulas alone, at $N=16$, $M=8$ and a batch of 1,024:

# %% tags=["remove-input"]
pages.facts({name: f"{ratio:,.4g}" for name, ratio in compute.ratios().items()})

# %% [markdown]
# So the published axis makes sparse coding look much dearer to *train* than an SAE, where a step of it is in fact cheaper:
# it has no encoder to differentiate. What remains true is the price of its *inference*. The codes of a new sample are
# optimised from nothing, and ten thousand steps of Adam for that are four orders of magnitude above one pass through an
# encoder. But the steps are many because the parametrisation is slow, not because the problem is hard: codes are
# exponentials that start near zero, and FISTA solves the same problem in a hundred iterations.
#
# ## Quality against operations
#
# With the true dictionary given to everyone, what does a sample's code cost at each quality? This is the curve that the
# title names. The $x$ axis holds inference only; encoders have been trained on 1,024 samples of the same law (LISTA too),
# the others need no training at all.

# %% tags=["remove-cell"]
codes = pages.rows_of(compute.CODES, preset, "amortisation2024-compute-codes")
quality = compute.with_quality(codes)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Latent MCC on test data against operations per sample on a logarithmic axis, with the dictionary known: points for SAE and MLP encoders, rising curves for LISTA, FISTA, orthogonal matching pursuit and two per-sample optimisations, a star for the l0 oracle, grey lines for chance."}, "figure": {"name": "fig-amortisation2024-compute-optimal", "caption": "Quality of codes against the operations that one sample takes, dictionary known. Lines: LISTA with 1 to 10 steps, FISTA with 5 to 500 iterations, OMP with 1 to K atoms, Adam on exp-codes at two rates. Open diamond: a linear-nonlinear encoder that was taught the true codes, the best of its kind. Open triangles: the best step of training by the truth, where training ends lower. Star: search over all supports. Crosses: results stored by the authors on one data set. Bands: lowest to highest data seed and initialisation."}}
figures.compute_optimal(quality, compute.PUBLISHED)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-compute-codes.csv>`. Means over data seeds and
# initialisations; q is MCC between chance (FISTA on a random dictionary) at 0 and the best inference at 1:

# %% tags=["remove-input"]
known = quality.dropna(subset="flops_sample")
pages.table_of(known, ["n_atoms", "d_in", "name", "lr", "effort"], ["flops_sample", "flops_training", "mcc", "q"])

# %% [markdown]
# Read from left to right. An encoder with one linear map is the cheapest and ends at the open diamond, whatever it is
# taught: this is the amortisation gap, on its cost axis. Just to its right stand methods a few times as dear that do not
# have that limit, because they look at the residual: pursuit, a few unrolled steps, a few iterations. Per-sample
# optimisation as published lies far to the right of FISTA at the same quality. So *compute-optimal inference* is real, but
# the trade is not between an encoder and ten thousand steps: between the two lie methods that the paper does not compare,
# and at this size even the search over all supports is cheaper than the published optimisation. That search grows as
# $\binom{N}{K}$ and is no option for larger problems.
#
# ## Time
#
# Operations are not time. A matrix product of this size is too small to keep a core busy, and a chain of a hundred small
# steps waits a hundred times. Each row below alternates with an SAE of the same size, so that a ratio is of one sitting;
# medians over repetitions.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels on logarithmic axes against problem size: time of a training step divided by that of the SAE for MLPs and sparse coding, and time of the codes of one sample divided by that of the SAE for MLPs, LISTA, FISTA, pursuit, the l0 oracle and per-sample optimisation."}, "figure": {"name": "fig-amortisation2024-times", "caption": "Measured time as a multiple of the SAE's of the same size: one full-batch training step of encoder and dictionary (left), and codes for a batch of test samples (right). The optimisation is timed over its first steps and scaled to all of them. OMP and the l0 oracle compute in double precision."}}
figures.times(times)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-times.csv>`. Milliseconds per training step,
# microseconds per sample of inference, and their ratios to the SAE:

# %% tags=["remove-input"]
columns = ["ms_step", "ms_step_ratio", "us_sample", "us_sample_ratio"]
pages.table_of(times, ["n_atoms", "d_in", "method", "effort"], columns)

# %% [markdown]
# Sparse coding has no inference of its own; its codes are those of the optimisation. The oracle is timed where there are
# at most a thousand supports.
#
# ## What differs from the paper, and what this ran on
#
# The paper's figures put training and the inference of one test set of 1,024 samples on one axis, and charge the encoders
# a decoder that they do not use when codes are known. Formulas and stored results are those of the authors' released
# code; the text of the paper was not at hand, and whether its formula for sparse coding is that of the code is not known.
# Costs of OMP, of the oracle, of LISTA and of FISTA are ours. Trainings are shorter than the authors' 20,000 steps unless
# the preset is `gpu` or `paper`. Encoders are timed in this library's hand-derived training loop, which spends less time
# between products than plain autograd.

# %% tags=["remove-input"]
pages.provenance(pd.concat([codes, times]))
