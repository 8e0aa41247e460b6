# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Robustness
#
# {cite:t}`lieberum2024`, sections 4.4 to 4.6 and the appendix on fine-tuned models (figures 8 to 11 and 19 to 23).
#
# An autoencoder that is published is used elsewhere than where it was trained: in another precision, on other text, on a
# fine-tuned version of the model. Gemma Scope asks each time how much of its fidelity it keeps. The measure is mostly the
# same, *delta LM loss*: by how many nats per token the language model's loss rises when the activations at one site are
# replaced by their reconstructions. This page asks the same questions of the small suite:
#
# - does bfloat16 do harm (**G5**)?
# - on which text is the harm largest (**G6**)?
# - do autoencoders of the base model work on a fine-tuned one (**G7**), and does it help to bring its activations back to their
#   former norm (**G8**)?
# - is a *transcoder*, which predicts an MLP's output from its input, as faithful as an autoencoder of the output (**G9**)?
#
# All autoencoders are JumpReLU ones of the suite, at one layer, and nothing is trained here but transcoders, one
# fine-tuned model and autoencoders of that. Every seed is measured on contexts of its own, so that a band over seeds is
# one over texts too.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import jumprelu_robustness as figures
from replication.papers import jumprelu2024
from replication.papers.jumprelu2024 import robustness

pages.open_page(preset)

# %% [markdown]
# ## Low precision
#
# A number in bfloat16 has eight significant bits: it is off by up to 0.4 %. Here language model, autoencoder, constants and
# thresholds are all rounded to it, and delta LM loss is taken against the rounded language model alone. A threshold that moves
# by 0.4 % changes which latents are active only where a pre-activation lies that close to it.

# %% tags=["remove-cell"]
precision = pages.rows_of(robustness.PRECISION, preset, "jumprelu2024-precision")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Left: delta LM loss against L0 on logarithmic axes, a line per site in float32 with black crosses for bfloat16. Right: absolute change of delta LM loss in bfloat16 against delta LM loss, one marker per autoencoder, over a shaded region that the claim allows."}, "figure": {"name": "fig-jumprelu2024-robustness-precision", "caption": "Left: the frontier in float32 (lines, bands over seeds) and in bfloat16 (crosses, means). Right: the change for every autoencoder; shaded is what G5 allows. The paper draws both precisions over each other (Figure 10) and gives no numbers."}}
figures.precision(robustness.precision_lines(precision), robustness.HARMLESS)
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-precision.csv>`. *ce* is the language model's loss alone,
# *bf16_sae* rounds the autoencoder and leaves the model in float32, *decisions_differ* is the number of latents active
# in only one precision over the number active in float32, *theta_rounding* the largest relative rounding of a
# threshold:

# %% tags=["remove-input"]
pages.table_of(
    robustness.precision_lines(precision),
    ["site", "sparsity"],
    ["ce_fp32", "ce_bf16", "delta_ce_fp32", "delta_ce_bf16_sae", "delta_ce_bf16", "decisions_differ", "theta_rounding"],
)

# %% [markdown]
# ### Not to be confused with training
#
# Rounding a finished threshold is one thing, *training* one in bfloat16 another. Between $2^e$ and $2^{e+1}$ bfloat16
# numbers stand $2^{e-7}$ apart, and an update shorter than half of that is rounded away. Adam moves a threshold by
# about its learning rate per step, so that with a rate $\eta$ every rising threshold stops at the first power of two,
# $2^e$, with
#
# $$ 2^{e-8} > \eta . $$
#
# At the paper's $\eta = 7\cdot 10^{-5}$ that is $2^{-5} \approx 0.031$, whatever the gradient says. Users of SAELens reported
# that a bfloat16 threshold, started at 1.1, went up by 0.0016 in 200 steps, a float32 one by 0.0123. The nearest
# bfloat16 number to 1.1 is 1.1015625: those 0.0016 are the rounding of the start, and the threshold never moved.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels of a threshold against steps of Adam. Started at 0.001, the float32 line rises evenly and the bfloat16 line stops at 0.03125. Started at 1.1, the float32 line rises and the bfloat16 line is flat."}, "figure": {"name": "fig-jumprelu2024-robustness-bf16-thresholds", "caption": "A threshold that is moved up by 0.00007 at every step, kept in float32 and in bfloat16. Arithmetic, not training. The suite trains thresholds in float32, as the paper does."}}
figures.thresholds(robustness.thresholds_in())
# %% [markdown]
# ## Other text
#
# The paper evaluates on subsets of the Pile and finds delta LM loss lowest on generated mathematics exercises, which
# are formulaic, and highest on the proceedings of the European Parliament in many languages, which are foreign to a
# model of mostly English. The subjects here read Python, and so do their autoencoders, so that other kinds have to be
# found *inside* Python source. They were fixed before anything was measured; a context of 64 tokens is judged by its
# text first and by its file's path if that decides nothing:

# %% tags=["remove-input"]
pages.shown(
    pd.DataFrame({"kind": robustness.DOMAINS.keys(), "held-out contexts": robustness.DOMAINS.values()}), wrap=True
)

# %% [markdown]
# *Tables* stand for the formulaic kind, *prose* for the foreign one: English sentences inside a language that is not
# English. Text that is hard to predict leaves more to lose. So delta LM loss is also divided by the language model's
# own loss on the same text, and this ratio is what the claim is judged by.

# %% tags=["remove-cell"]
domains = pages.rows_of(robustness.OTHER_TEXT, preset, "jumprelu2024-domains")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against L0 on logarithmic axes, one line per kind of text: delta LM loss, and delta LM loss divided by the loss of the language model itself."}, "figure": {"name": "fig-jumprelu2024-robustness-domains", "caption": "Harm on six kinds of held-out text, residual stream of one layer; L0 is that on the same text. Bands: lowest to highest seed, each with its own contexts. The paper's Figure 9 has curves per subset of the Pile and no numbers."}}
figures.domains(robustness.domain_lines(domains), robustness.DOMAINS)
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-domains.csv>`. *ce* is the model's own loss, the control
# *mean* the harm of setting the site to its mean over that text:

# %% tags=["remove-input"]
pages.table_of(
    robustness.domain_lines(domains),
    ["domain", "sparsity"],
    ["contexts", "ce", "l0", "fvu", "delta_ce", "relative", "delta_ce_mean"],
)

# %% [markdown]
# ## A fine-tuned model
#
# Gemma Scope's main autoencoders are trained on base models. Are they of use for the chat model that was made of one? The
# paper compares them with a few that were trained on the chat model. The subjects here cannot chat; what is closest is an
# interactive session, a dialogue of inputs after `>>>` and answers:
#
# ```pycon
# >>> sorted({"b": 1, "a": 2})
# ['a', 'b']
# >>> _[0].upper()
# 'A'
# ```
#
# The subject is trained on for a short while on nothing but such sessions, cut from docstrings of training files;
# sessions of held-out files are what everything is measured on. It has read such docstrings before, among other code;
# what is new is that there is nothing else. Three curves tell apart what the new *text* does and what the new *weights*
# do: base autoencoders on the base model, the same on the tuned model, and autoencoders trained on the tuned model,
# with as many tokens of the same Python source as the first had.

# %% tags=["remove-cell"]
tuned = pages.rows_of(robustness.TUNED, preset, "jumprelu2024-tuned")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Delta LM loss and FVU on sessions against L0 on logarithmic axes, three lines: autoencoders of the base model on the base model, the same on the tuned model, and autoencoders trained on the tuned model."}, "figure": {"name": "fig-jumprelu2024-robustness-transfer", "caption": "Held-out sessions, residual stream of one layer. Left as Figures 8 and 20 of the paper, right as Figures 19, 21 and 22, which are curves without numbers. Bands: lowest to highest seed."}}
figures.transfer(robustness.curves(tuned))
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-tuned.csv>`. *ce_before* and *ce* are the loss on
# sessions before and after tuning, *moved* the squared distance that tuning moved activations over their variance,
# *norm_ratio* the factor of the next section, *mean* the control that sets the site to its mean:

# %% tags=["remove-input"]
pages.table_of(tuned, ["tuned"], ["ce_before", "ce", "moved", "norm_ratio", "delta_ce_mean"])

# %% [markdown]
# Then, for each $\lambda$, the base autoencoders on the tuned model, and the ones trained on it (*_reference*):

# %% tags=["remove-input"]
pages.table_of(tuned, ["sparsity"], ["l0", "fvu", "delta_ce", "l0_reference", "fvu_reference", "delta_ce_reference"])

# %% [markdown]
# ### Back to the former norm
#
# The constant that makes $\mathbb E\lVert x\rVert^2 = 1$ is part of an autoencoder. If tuning changed the norms, a base
# autoencoder gets inputs of the wrong size: too large ones lift more latents over their thresholds. Multiplying them by the
# ratio of the two norms, and reconstructions by its inverse, undoes it. The paper tried and saw no benefit.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Delta LM loss and FVU on sessions against L0 on logarithmic axes, two lines that show base autoencoders on the tuned model with activations as they are and rescaled."}, "figure": {"name": "fig-jumprelu2024-robustness-rescaling", "caption": "Base autoencoders on the tuned model, activations as they are and multiplied by the ratio of norms (Figure 23 of the paper, FVU on rollouts)."}}
figures.rescaling(robustness.curves(tuned))
# %% [markdown]
# ## Transcoders
#
# A transcoder has the form of an autoencoder, but reads the MLP's input and is trained to give its output. It replaces
# the whole MLP by a sparse layer, where the autoencoder only compresses what the MLP has computed. The paper finds it
# less faithful at equal L0; earlier work on GPT-2 small had found the opposite, so that either sign is informative.

# %% tags=["remove-cell"]
across = pages.rows_of(robustness.ACROSS, preset, "jumprelu2024-transcoders")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Delta LM loss and FVU of the MLP output against L0 on logarithmic axes, one line for autoencoders of the MLP output, one for transcoders, and a dashed line for the MLP output set to its mean."}, "figure": {"name": "fig-jumprelu2024-robustness-transcoders", "caption": "Transcoders and autoencoders of the MLP output of one layer: same width, tokens and seeds (Figure 11 of the paper, left panel). Dashed: the control. Bands: lowest to highest seed."}}
figures.across(robustness.with_kind(across))
# %% [markdown]
# {download}`The table behind this figure <tables/jumprelu2024-transcoders.csv>`. Controls: the same before its first
# step, and as many principal components of the output as there are active latents. Transcoders have a third of the
# autoencoders' $\lambda$, so that their ranges of L0 overlap:

# %% tags=["remove-input"]
pages.table_of(
    robustness.with_kind(across),
    ["kind", "sparsity"],
    ["l0", "fvu", "nmse_untrained", "nmse_pca", "delta_ce", "delta_ce_mean", "dead"],
)

# %% [markdown]
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(jumprelu2024.CLAIMS, ["G5", "G6", "G7", "G8", "G9"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# - One layer, one width and three values of $\lambda$ (two with `smoke`) instead of several of each; contexts of 64
#   tokens instead of 1,024. The first position of a context is left as it is in every splice, as BOS is left out in the paper.
# - The kinds of text are those of Python source. Nothing here is as foreign as another language.
# - Fine-tuning is short supervised training on sessions, with one seed; the chat model of the paper went through instruction
#   tuning and more. The paper measures on conversations, both users' prompts and rollouts sampled from the model; here
#   it is held-out text, never a rollout. Its autoencoders of the chat model saw documents wrapped in
#   chat markers; the ones here see plain Python source.
# - Which norms the paper rescales by is not said in detail; here they are root mean squares over the same sessions.
# - The MLP's input is taken behind its layer norm, gain and bias included; Gemma Scope folds them into the MLP. For a
#   linear encoder the two differ by a change of basis, but not for the normalising constant. The transcoders here
#   subtract the geometric median of their inputs, which those of the paper do not; both start encoder and decoder
#   independently.
# - Activations are stored in bfloat16 before autoencoders are trained on them, so that "float32" means the precision
#   of the evaluation.

# %% tags=["remove-input"]
pages.provenance(pd.concat([precision, domains, tuned, across]))
