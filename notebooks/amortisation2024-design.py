# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Sparsity and design
#
# {cite:t}`oneill2024`: weight of the penalty, top-k, hidden width, biases, and the geometry of what is learned.
#
# With nothing known, most of the loss is the dictionary's and not that of inference ({doc}`amortisation2024-unknown`); here the
# question is how much of either is a matter of choices that the comparison held fixed. All models learn encoder and dictionary from data alone. The claims tested:
#
# - biases in the encoder do not help on data without an offset (**C15**);
# - the MLP has a best hidden width (**C16**);
# - latent MCC is largest where more latents are active than the truth has (**C17**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd

from replication import pages
from replication.figures import amortisation_design as figures
from replication.papers import amortisation2024
from replication.papers.amortisation2024 import design

pages.open_page(preset)

# %% [markdown]
# ## The weight of the penalty
#
# The loss is a mean over samples and entries, $\overline{(x - zD)^2} + w\,\overline{|z|}$, and the default is $w = 0.01$.
# The sweep goes from far too small to far too large. Two things have to be said before the figure. **Loss is no guide:**
# on data with unknown truth one sees the MSE and L0, never the MCC. **L0 needs a threshold:** sparse coding writes its
# codes as exponentials, which are never zero, so that its L0 is whatever the threshold makes it; the encoders end in a
# ReLU and have exact zeros.

# %% tags=["remove-cell"]
sparsity = pages.rows_of(design.SPARSITY, preset, "amortisation2024-sparsity")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Four panels: share of active latents against mean squared error and against latent MCC, then weight of the penalty against the same two, for SAE, MLP and sparse coding, the latter with a line for each of four thresholds of activity, a vertical line at the true sparsity, and grey chance lines."}, "figure": {"name": "fig-amortisation2024-sparsity", "caption": "Sweep of the L1 weight. Left pair: L0 as a share of latents, for sparse coding at four thresholds, against MSE and latent MCC; vertical line: the truth. Right pair: the same against the weight. Crosses with a black edge: values stored by the authors, with L0 where it was stored. Grey: inference with a random dictionary, and shuffled codes. Bands: lowest to highest data seed."}}
figures.sparsity(design.FIGURES["design-sparsity"][2](sparsity)[0], design.PUBLISHED)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-sparsity.csv>`. Means over data seeds, with chance and
# oracle; the true share of active atoms is $K/N$:

# %% tags=["remove-input"]
columns = ["mse", *design.THRESHOLDS, "true_l0", "mcc", "mcc_chance", "mcc_shuffled", "mcc_oracle", "q"]
pages.table_of(sparsity, ["n_atoms", "d_in", "method", "l1"], columns)

# %% [markdown]
# And the dictionaries, by the published metric, whose chance level is high in few dimensions, and by the cosine:

# %% tags=["remove-input"]
columns = ["dictionary_mcc", "dictionary_mcc_greedy", "dictionary_mcc_chance"]
columns += ["dictionary_cosine", "dictionary_cosine_chance"]
pages.table_of(sparsity, ["n_atoms", "d_in", "method", "l1"], columns)

# %% [markdown]
# ## Choosing the weight without the truth
#
# Had the default been chosen by someone who does not know the codes, what would they have got? A criterion that needs only
# the number $K$: keep the $K$ largest latents of held-out samples and take the $w$ whose MSE is least. A penalty shrinks
# what it keeps, which favours small $w$ for no good reason; the second version therefore refits the kept latents by least
# squares first. The third is the oracle, which looks at the MCC. All choose on one half of the test data and are scored
# on the other.
#
# ```{literalinclude} ../replication/papers/amortisation2024/design.py
# :pyobject: errors_at_k
# :caption: replication/papers/amortisation2024/design.py
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "Bars in groups for SAE, MLP and sparse coding: latent MCC at the penalty weight chosen by held-out error at the true number of active latents, by the same after refitting, and by the true codes, with one dot per data seed."}, "figure": {"name": "fig-amortisation2024-choices", "caption": "Latent MCC on the second half of the test data at the weight that each criterion picks on the first half. The darkest bar of a group is the oracle's choice and needs the truth; what the other two lose against it is the price of not knowing. Dots: data seeds."}}
figures.choices(design.choices(sparsity))

# %% tags=["remove-input"]
chosen = design.choices(sparsity)
pages.table_of(chosen, ["method", "criterion"], ["log10_w", "l0", "mcc", "q", "lost_to_the_truth"])

# %% [markdown]
# ## Top-k: after training, or while training
#
# The largest latents of a code that was trained with a penalty can be kept and the rest thrown away, without a refit: the
# paper's *inference top-k*. Each line below is one weight, from pale (small) to dark (large).

# %% tags=["remove-input"] mystnb={"image": {"alt": "Six panels, two for each of SAE, MLP and sparse coding: mean squared error and latent MCC against the share of latents kept, a line per penalty weight from pale to dark, with a vertical line at the true share."}, "figure": {"name": "fig-amortisation2024-inference-topk", "caption": "Inference top-k: only the largest latents of every test code stay. Pale to dark: small to large weight of the penalty in training. Vertical line: the true share of active atoms. The authors' stored results for sparse coding at the best weight lie between 0.79 and 0.83 with three latents kept."}}
figures.kept_latents(*design.FIGURES["design-inference-topk"][2](sparsity))

# %% [markdown]
# Trained with the rule instead, without any penalty, and the numbers that the authors stored:

# %% tags=["remove-cell"]
topk = pages.rows_of(design.TOPK, preset, "amortisation2024-topk")

# %% tags=["remove-input"]
columns = ["mse", design.LOOKED_AT, "mcc", "mcc_chance", "mcc_oracle", "q", "dictionary_cosine"]
pages.table_of(topk, ["n_atoms", "d_in", "method", "top_k"], columns)

# %% tags=["remove-input"]
pages.shown(design.PUBLISHED_TOPK)

# %% [markdown]
# {download}`The table of trained TopK <tables/amortisation2024-topk.csv>`. The authors' codes optimised under the rule
# (Adam at a rate of 0.9 from zero, signs free) are an optimiser that failed rather than a method, and are not rebuilt.
#
# ## Hidden width
#
# Does a richer encoder always help? The authors' stored sweep rises to 128 or 256 hidden units and falls after, with
# unstable runs at 512.

# %% tags=["remove-cell"]
width = pages.rows_of(design.WIDTHS, preset, "amortisation2024-width")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels against the hidden width of the MLP on a logarithmic axis: mean squared error, latent MCC with the stored published curve in black and chance in grey, and dictionary MCC with its chance level."}, "figure": {"name": "fig-amortisation2024-width", "caption": "Hidden width of the MLP encoder, nothing known, default penalty. Black: stored results of the authors at the same size, 100,000 steps, three initialisations on one data set. Grey: chance. Bands: lowest to highest data seed. A curve that rises to the last width has no optimum inside the sweep."}}
figures.widths(design.FIGURES["design-width"][2](width)[0], design.PUBLISHED_WIDTHS)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-width.csv>`. Ours, then all that is stored:

# %% tags=["remove-input"]
columns = ["mse", "mcc", "mcc_chance", "mcc_oracle", "q", "dictionary_mcc", "dictionary_mcc_chance"]
pages.table_of(width, ["n_atoms", "d_in", "k", "hidden"], columns)

# %% tags=["remove-input"]
pages.shown(design.PUBLISHED_WIDTHS)

# %% [markdown]
# ## Biases
#
# The data have no offset, so a bias has nothing to remove; in an encoder it can act as a threshold, which is another matter
# with unequal noise. The comparison is of encoder biases alone: the decoder has none here.

# %% tags=["remove-cell"]
bias = pages.rows_of(design.BIASES, preset, "amortisation2024-bias")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Four bar charts for SAE and MLP without and with encoder bias: mean squared error, latent MCC, dictionary MCC by Pearson correlation and by cosine, one dot per run, grey lines for chance and black marks for stored published values."}, "figure": {"name": "fig-amortisation2024-bias", "caption": "Encoder biases off (solid edge) and on (dashed edge). Dots: runs; bars: means; black marks: stored results of the authors, with 100,000 steps, H = 64 and a lower rate for the MLP. Dashed grey: chance, a random dictionary, which for dictionary MCC is high in eight dimensions."}}
figures.biases(bias, design.PUBLISHED_BIAS)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-bias.csv>`. Ours, then all that is stored:

# %% tags=["remove-input"]
columns = ["mse", "mcc", "mcc_chance", "mcc_oracle", "q", "dictionary_mcc", "dictionary_cosine"]
pages.table_of(bias, ["method", "bias"], columns)

# %% tags=["remove-input"]
pages.shown(design.PUBLISHED_BIAS)

# %% [markdown]
# ## Superposition, seen in the dictionary
#
# With more atoms than dimensions no dictionary is orthogonal; the products of its rows show how the crowding is shared.
# The authors draw the softmax of $D D^\top$, row by row, for a model with fewer latents than atoms, as many, and more. The
# true atoms stand beside it, as what a perfect dictionary would look like up to the order of rows.

# %% tags=["remove-cell"]
grams = pages.rows_of(design.GRAMS, preset, "amortisation2024-gram")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Heat maps in a grid, columns SAE, MLP, sparse coding and true atoms, rows for half as many latents as atoms, as many, and twice as many: softmax of each row of the products of dictionary rows, bright on the diagonal."}, "figure": {"name": "fig-amortisation2024-gram", "caption": "Softmax over each row of the products of dictionary rows, one data set, w = 0.1. Bright cells off the diagonal are rows that point the same way: copies of one atom, or a mixture beside its parts. The softmax of cosines is flat by construction (its ratio of largest to smallest is at most e squared), so that differences look smaller than they are."}}
figures.grams(grams)
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-gram.csv>`:

# %% tags=["remove-input"]
columns = ["mse", "mcc", design.LOOKED_AT, "dictionary_mcc_greedy", "dictionary_cosine"]
pages.table_of(grams, ["method", "width"], columns)

# %% [markdown]
# Where widths differ, latents are matched greedily, as in the released code, and the mean is over the narrower side: half
# as many latents can reach an MCC of 1 by finding half of the atoms, and twice as many have more tries per atom.
#
# ## Another library
#
# scikit-learn's `DictionaryLearning` on that library's own signals, with alternating sparse regression and dictionary
# updates. Its codes have signs, so it is a reference for what alternation reaches and not a competitor on the same data.

# %% tags=["remove-cell"]
scikit = pages.rows_of(design.SCIKIT, preset, "amortisation2024-scikit")

# %% tags=["remove-input"]
columns = ["mcc", "mcc_shuffled", "dictionary_mcc", "dictionary_mcc_chance", "dictionary_cosine"]
note = design.scikit_note(scikit)
pages.facts({"note": note}) if scikit.empty else pages.table_of(scikit, ["n_atoms", "d_in", "k"], columns)

# %% tags=["remove-input"]
pages.shown(design.PUBLISHED_SCIKIT)

# %% [markdown]
# The second table is the authors' (one seed, $\alpha = 0.05$). Whether alternation with exact steps finds more
# of a dictionary than joint gradient descent is a question for equal data: {doc}`amortisation2024-unknown` asks it (C22).
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(amortisation2024.CLAIMS, ["C15", "C16", "C17"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# The authors train for 100,000 steps. At `cpu` the sweep takes 10,000, after which MCC moves by less between two
# marks of a curve than between two data seeds (for sparse coding it still rises a little); trained TopK and hidden
# widths take 4,000, the widths at a rate of 1e-3 instead of 3e-4, so that a run covers about an eighth of the
# published distance. Wide MLPs that need longer would show here as a later optimum. Test codes of sparse coding are
# optimised for 2,000 steps at `cpu`. The data seed changes with every repetition, where the authors keep one data set
# in the comparisons of width and bias. The authors' dictionaries in the heat maps were trained without unit norm for
# 50,000 steps; ours have unit rows. The comparison of biases leaves out the decoder's, and sparse coding with bias,
# whose stored test loss omits the bias. Means of loss are over entries, as in the released code.

# %% tags=["remove-input"]
pages.provenance(pd.concat([sparsity, topk, width, bias, grams]))
