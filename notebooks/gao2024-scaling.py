# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Scaling laws: error against latents and compute
#
# {cite:t}`gao2024`, Figures 1, 3, 4, 11, 12 and 14.
#
# How much better does a sparse autoencoder become when it grows? {cite:t}`gao2024` answer with power laws, fitted to
# autoencoders with up to 16 million latents. Their claims, tested on this page:
#
# - at convergence the error falls with the number of latents $n$ as a power law towards a floor (**C5**), faster where
#   more latents are active (**C6**), and to a lower floor there (**C7**);
# - along the best $n$ for each compute, the error is a power law of compute (**C10**);
# - the largest learning rate that converges goes as $n^{-1/2}$ (**C8**), and the tokens to convergence grow more slowly
#   than $n$ (**C9**);
# - the batch size makes no difference to the error at convergence (**C20**);
# - larger language models need more latents (**C11**), and on Gaussian noise latents buy far less (**C12**).
#
# Most of these are claims *about convergence*, and a run of this book may be too short for them. Every such claim has a
# pre-check: by how much would one more doubling of tokens lower the error, if the last doubling is a guide? Where that
# is more than the rule allows, the verdict is *void*, and the curves below describe runs of a fixed length, not
# converged ones. The gain of a doubling falls at best in proportion to one over the tokens, and more slowly where there
# are many latents. So a run has to be longer at least by the factor by which its gain exceeds what the rule allows;
# verdicts name that factor. With the `cpu` preset this is beyond its few minutes for **C5** to **C7**, **C9** and
# **C20**, and there is no cheap way out: smaller batches take more steps over the same tokens, which doubles the time
# and leaves most of the gain, and dictionaries with still fewer latents would lie far below the width of the
# activations, where the paper's never are.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import scaling as figures
from replication.papers import gao2024
from replication.papers.gao2024 import scaling

pages.open_page(preset)

# %% [markdown]
# ## The laws, as the library fits them
#
# A law is a reducible error plus a floor, and both are power laws. With natural logarithms, the paper's joint law of $n$
# and $k$ is
#
# $$
# L(n, k) = \exp(\alpha + \beta_k \ln k + \beta_n \ln n + \gamma \ln k \ln n) + \exp(\zeta + \eta \ln k) .
# $$
#
# The exponent in $n$ at a given $k$ is $\beta_n + \gamma \ln k$; $\beta_n$ alone means nothing. One class holds this law,
# its version without a floor, and the simpler laws of $n$ and of compute:
#
# ```{literalinclude} ../replication/scaling.py
# :pyobject: Law
# :caption: replication/scaling.py
# ```
#
# How the paper fitted its laws is not published. Here the Huber loss of $\ln L$ is minimised, so that one odd run does
# not bend the law, from 200 random starts, since a law with a floor has local minima:
#
# ```{literalinclude} ../replication/scaling.py
# :pyobject: fit
# ```
#
# Intervals come from refitting the law to runs drawn with replacement. Whether the floor is worth its parameters is
# decided by AICc, an error of fit that charges for parameters:
#
# ```{literalinclude} ../replication/scaling.py
# :pyobject: aicc
# ```
#
# ## Error against latents

# %% tags=["remove-cell"]
rows = pages.rows_of(scaling.SCALING, preset, "gao2024-scaling")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Normalised mean squared error against the number of latents on logarithmic axes, one colour per number of active latents, with dots for runs and lines for the fitted joint law; hollow dots mark runs whose error was still falling."}, "figure": {"name": "fig-gao2024-joint", "caption": "Error against dictionary size (the paper's Figure 1, right). Dots: runs, one for each seed, hollow where one more doubling of tokens would change NMSE by 2 % or more. Lines: the joint law, fitted to all dots. Hollow dots lie above where they would converge; where they do so more for larger n, the lines are flatter than the law at convergence."}}
figures.joint_law(*scaling.FIGURES["joint-law"][2](rows))
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-scaling.csv>`, one line per run. The exponents in $n$ and the
# floors of this fit, with 95 % intervals over runs, beside the published law evaluated at the same $k$:

# %% tags=["remove-input"]
pages.HTML(scaling.exponents(rows).to_html(index=False, border=0, classes="rows numbers"))

# %% [markdown]
# The parameters, with the floor and without:

# %% tags=["remove-input"]
pages.HTML(scaling.parameters(rows).to_html(index=False, border=0, classes="rows numbers"))

# %% [markdown]
# The constants cannot agree with the published ones, and are not expected to. The paper's law was fitted to activations
# of GPT-4, whose width is not known, for $k$ from 32 to 512: its values at our smaller $k$ are extrapolated. The law holds
# only for $k \ll d$, and small models are narrow. Our tokens are fewer by a factor of thousands. NMSE divides by the
# variance around the mean, so a subject whose activations lie near a few directions starts lower. What can be compared
# is the *sign* of $\gamma$ and $\eta$ and whether a floor is needed at all. Even the published floor is as much a
# property of the fit as of the model: at the paper's largest size it makes up four fifths of the predicted error.
#
# Errors of runs, with their controls, as means over seeds:

# %% tags=["remove-input"]
pages.table_of(rows, ["sparsity", "d_sae"], ["nmse", "nmse_untrained", "nmse_pca", "l0", "dead"])

# %% [markdown]
# ## Error against compute
#
# The second question does not wait for convergence: for a given compute, which $n$ is best, and how low does it get? A
# training token of a TopK autoencoder with sparse kernels costs
#
# ```{literalinclude} ../replication/scaling.py
# :pyobject: flops_per_token
# ```
#
# floating-point operations, so every training curve becomes a curve of error against compute. Their lower envelope is
# the frontier. Three parts of it are left out: where the smallest or the largest dictionary is the lowest, since there
# the envelope is one training curve, and where a run that has ended is lower than those that go on.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Training error against training compute in floating-point operations on logarithmic axes, one line per dictionary size, for one or two values of k, with the lower envelope as a thick grey line and a dashed fitted power law."}, "figure": {"name": "fig-gao2024-scaling-compute", "caption": "Training error against compute (the paper's Figure 1, left), first seed, smallest and largest k that have four dictionary sizes. Thick grey: the part of the lower envelope that counts. Dashed: the power law with a floor fitted to it, written in the title with C in FLOPs. The paper has 0.09 + 0.056 C^-0.084, with C in units of GPT-4's pre-training, over about four decades."}}
figures.compute(*scaling.FIGURES["compute"][2](rows))
# %% [markdown]
# With a floor to choose freely, a short piece of any smooth curve looks like a power law. The verdict on **C10** below
# therefore says over which range of compute it holds, and how straight the line is without a floor.
#
# ## Learning rates
#
# The paper's rule, that the largest converging rate goes as $n^{-1/2}$, is what this whole book sets its rates by. Here a
# grid of rates, in factors of two, is run for every $n$; with the `cpu` preset, four rates around the best of each $n$. A
# best rate at the lower end of its grid decides nothing. *Converging* was given a meaning before anything was run: NMSE
# at most 10 % above the lowest of the sweep, on the way up from the best rate.

# %% tags=["remove-cell"]
rates = pages.rows_of(scaling.LEARNING_RATES, preset, "gao2024-learning-rates")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: normalised mean squared error against learning rate, one line per dictionary size. Right: the best and the largest converging learning rate against dictionary size on logarithmic axes, with a dashed line of slope minus one half."}, "figure": {"name": "fig-gao2024-rates", "caption": "Left: error against learning rate (the paper's Figure 3); bands: lowest to highest seed. Right: the largest converging rate, interpolated, and the best rate of the grid, which can only move in steps of two. Dashed: the paper's slope. These runs are shorter than the others of this page."}}
figures.learning_rates(rates, scaling.largest_rates(rates))
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-learning-rates.csv>`. Where *converging* ends is a matter of
# choice. The largest rate for other choices, mean over seeds:

# %% tags=["remove-input"]
choices = {f"{100 * t:g} % above": scaling.largest_rates(rates, t) for t in (0.05, 0.1, 0.2)}
largest = pd.DataFrame({name: found.groupby("d_sae").largest.mean() for name, found in choices.items()})
pages.HTML(largest.rename_axis("n").reset_index().to_html(index=False, border=0, classes="rows numbers"))

# %% [markdown]
# ## Tokens to convergence
#
# The threshold of the paper is not published; here a run has converged when its error is within 1 % of its last value.
# That says something about the dictionary only where the error has stopped falling. Where it has not, the number
# measures the length of the run, and its slope in $n$ is near 0 whatever the truth is.
#
# The errors are those of the training batches, each measured before its step and averaged since the last mark of the
# curve. Below the `paper` preset a run passes over its tokens once, so that every batch is one that the autoencoder has
# not been trained on: an honest error, though on tokens of the training files. The average lags behind the error of the
# moment by a factor of tokens that is the same for every run, which leaves the exponent as it is. Under `paper` tokens
# are seen many times, and the curve is a training error.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Tokens until the training error is within one per cent of its last value, against the number of latents on logarithmic axes, one colour per k, hollow dots for runs that were still falling, and two black lines with the published slopes."}, "figure": {"name": "fig-gao2024-tokens", "caption": "Tokens to convergence against dictionary size (the paper's Figure 11). Only filled dots count: there, one more doubling of tokens would change NMSE by less than 1 %. Black: the published slopes, at an arbitrary height."}}
figures.tokens(scaling.convergence(rows), scaling.PUBLISHED_TOKENS)
# %% [markdown]
# ## Batch size
#
# A larger batch takes fewer steps over the same tokens, so the comparison is fair only when each batch has its own best
# rate, and when both have converged. The rate is chosen by the error at the end of training and judged on held-out text. A
# best rate at the end of the grid decides nothing.

# %% tags=["remove-cell"]
batches = pages.rows_of(scaling.BATCH_SIZES, preset, "gao2024-batch-sizes")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Normalised mean squared error against learning rate, one line for each of two batch sizes, with bands over seeds."}, "figure": {"name": "fig-gao2024-batch", "caption": "Error against learning rate for a batch and one four times as large, on the same tokens (the paper's Figure 12). C20 compares the lowest points of the two lines, if both lie inside the grid and both runs have converged. Bands: lowest to highest seed."}}
figures.batch_sizes(batches)
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-batch-sizes.csv>`.
#
# ## Is there structure to find?
#
# Independent Gaussian noise has no structure that a dictionary could find, only directions to cover. If the exponent on
# a language model's activations were the same, it would say nothing about the model. The paper's exponents are about
# −0.04 for noise in 768 dimensions and about −0.26 for GPT-2 small; both are quoted from memory, and so uncertain. The
# comparison depends on the width: the narrower the noise, the sooner a dictionary covers its directions. These runs are
# shorter than those of the joint law, as are those of the next section.

# %% tags=["remove-cell"]
noise = pages.rows_of(scaling.NOISE, preset, "gao2024-gaussian")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Normalised mean squared error against the number of latents on logarithmic axes, one line for the activations of a language model and a grey one for Gaussian noise of the same width."}, "figure": {"name": "fig-gao2024-gaussian", "caption": "Error against dictionary size on activations and on Gaussian noise of the same width, at the same k, training and preprocessing (the paper's Figure 14). C12 compares the slopes. Bands: lowest to highest seed."}}
figures.sources(noise)
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-gaussian.csv>`.
#
# ## Larger language models
#
# These subjects share a corpus; they differ in depth and in width, so that at a fixed $k$ the larger one has fewer active
# latents per dimension. Their sites lie at half to three quarters of the depth. Where a model reaches an NMSE of 0.3 below
# the smallest $n$ or above the largest, the end of the grid stands as a bound.

# %% tags=["remove-cell"]
subjects = pages.rows_of(scaling.SUBJECTS, preset, "gao2024-subjects")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Normalised mean squared error against the number of latents on logarithmic axes, one line per language model."}, "figure": {"name": "fig-gao2024-subjects", "caption": "Error against dictionary size for language models of several sizes at one k (the paper's Figure 4, where it is GPT-4's family at k = 32). The claim: larger models lie higher, and their lines are flatter. Bands: lowest to highest seed."}}
figures.sources(subjects)
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-subjects.csv>`.
#
# ## Verdicts

# %% tags=["remove-input"]
claims = ["C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C20"]
pages.verdicts(gao2024.CLAIMS, claims, preset)

# %% [markdown]
# Intervals of C5 to C7 come from resampling runs, those of the other claims are Student's $t$ over seeds. Resampling
# takes the runs of one seed as independent, although they see their tokens in the same order.
#
# ## What differs from the paper, and what this ran on
#
# Unless the page was built with the `paper` preset, subjects are language models of 0.5 to 7 million parameters trained
# on Python source instead of GPT-2 small and GPT-4. Dictionaries have hundreds or thousands of latents instead of up to
# millions, and runs are shorter by a factor of thousands, at one constant learning rate chosen for their length: the
# paper says that the best rate for error at convergence is about four times lower than the best for error at a given
# compute (from memory). A setting $(n, k)$ is left out of the grid where $n < 8k$, since its code would be dense. Error
# against compute is read from training batches, below `paper` each seen once; every other error is on held-out text.
# Compute does not include the optimiser.

# %% tags=["remove-input"]
nothing = {"subject_fingerprint": "none", "corpus_fingerprint": "none"}  # noise comes from no model and no text
pages.provenance(pd.concat([rows, rates, batches, noise.fillna(nothing), subjects]))
