# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Significance and description length
#
# {cite:t}`lee2025`, the tests and code lengths that stand in the released notebooks, made for the reviews.
#
# In the released results the errors that decide between methods lie close together. Two arguments were added to tell them
# apart: a significance test, and the length of the code that a token is turned into. Both are recomputed here, first from
# the authors' own numbers and then from the rows of {doc}`topafa2025-top-afa`. The claims:
#
# - top-AFA has a significantly lower error than the best baseline (**A6**);
# - at equal error its code is no longer (**A9**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages
from replication.figures import topafa_significance as figures
from replication.papers import topafa2025
from replication.papers.topafa2025 import lm, published, significance

pages.open_page(preset)

# %% [markdown]
# ## The released tests
#
# Each test compares two runs, one of top-AFA and one of a baseline, by the last 100 values of their training loss, with
# Welch's $t$. Means and variances are released, so that everything else can be computed:

# %% tags=["remove-input"]
pages.shown(significance.released_tests_table())

# %% [markdown]
# The arithmetic can be checked in the table; small differences from the released $t$ come from rounded means. The question is
# what the test is a test *of*. Its samples are minibatches of one run. A small $p$ says that these two sets of weights have
# different losses. It would say so of two seeds of one method as well, if seeds differ by more than a minibatch mean over 100
# steps can hide. It says nothing about another seed. And the baseline is one of nine settings, compared with one of five, each
# picked on the very run that is tested (at layer 8 TopK with $k = 2048$, although $k = 1024$ has the lower released NMSE).
#
# To generalise to the method, the samples must be runs. Here there are several seeds of each setting, and both tests can be
# made on the same rows. The best setting of each method is chosen on the *other* seeds:

# %% tags=["remove-cell"]
rows = pages.rows_of(lm.SELECTION, preset, "topafa2025-significance")
steps, alarms = significance.step_tests(rows), significance.placebo(rows)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels of relative differences in NMSE between top-AFA and a baseline, with bars: left six released comparisons, all left of zero; right for each layer one mark per seed and a black mark for the mean over seeds."}, "figure": {"name": "fig-topafa2025-differences", "caption": "NMSE of top-AFA against the baseline; left of the line top-AFA is better. Left: the released comparisons, in percent, bars 95 % over 100 training steps of one run each. Right: held-out tokens; coloured bars, 95 % over up to 100 minibatches of one seed; black, 95 % over seeds. Where black bars are wider than coloured ones, steps understate what another seed would change."}}
figures.differences(significance.released_tests(), steps, significance.over_seeds(lm.best_pairs(rows)))
# %% tags=["remove-input"]
pages.shown(significance.tests_table(rows))

# %% [markdown]
# Settings that differ between seeds are listed together. Tests over seeds are on logarithms of NMSE.
#
# ## Does the test over steps cry wolf?
#
# A test can be tested where the answer is known. Two seeds of one setting do not differ in method; of tests between them, 5 %
# should have $p < 0.05$. The figure shows $|t|$ for all such pairs beside those between methods.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rows of points, the absolute t of Welch's test over minibatches on a logarithmic axis, with a dashed line at 1.96: released comparisons, our comparisons of methods, and pairs of seeds of one setting for each method."}, "figure": {"name": "fig-topafa2025-alarms", "caption": "|t| of Welch's test with minibatches as samples (values below 0.02 are drawn there). Stars: the six released comparisons. The last three rows compare two seeds of one and the same setting: whatever lies right of the dashed line there is a false alarm about the method."}}
figures.false_alarms(significance.released_tests(), steps, alarms)
# %% tags=["remove-input"]
pages.shown(significance.alarms_table(rows))

# %% [markdown]
# Our minibatches are held-out ones at fixed weights; the released ones come from training, so that weights move between them,
# which adds to the variance. A pair of ours shares its minibatches, which Welch's test ignores.
#
# ## Bits
#
# The released notebook turns a token into a message: for each active latent its name, $\log_2 D$ bits, and its value, $B = 7$
# bits,
#
# $$
# \mathrm{DL} = L_0\,(B + \log_2 D).
# $$
#
# With one $D$ and one $B$ for all, **a ratio of description lengths is a ratio of L0**, whatever $B$ is. So the argument is the
# frontier once more, and it means something only at equal error. The authors take for each method the run with the lowest
# NMSE and compare lengths at whatever error that is:

# %% tags=["remove-input"]
pages.shown(significance.released_lengths_table())

# %% [markdown]
# *Equal tolerance*: the shortest released TopK or BatchTopK run with at most 1.1 times the NMSE of top-AFA's, and how many
# times as long top-AFA's code is. In layer 7 the released lengths favour top-AFA, because the lowest NMSE of the baselines was
# that of $k = 8192$, more latents than are positive, i.e. a ReLU autoencoder. The ring in the figure marks a TopK run of the same
# layer that has a lower NMSE than top-AFA's and a shorter code.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels, one per layer, of NMSE against thousands of bits per token for the released runs, with a star for the lowest NMSE of each method and a ring around the shortest baseline at equal error."}, "figure": {"name": "fig-topafa2025-lengths-released", "caption": "Released runs: NMSE against description length. Stars: the run with the lowest NMSE of each method, which the authors compare. Ring: the shortest baseline with at most 1.1 times the NMSE of top-AFA's star."}}
released = significance.with_bits(published.results(), published.D_SAE)
figures.lengths(released, significance.picks(released))
# %% [markdown]
# The same for the rows of this book, means over seeds:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Panels, one per layer, of NMSE against thousands of bits per token for the runs of this book, with a star for the lowest NMSE of each method and a ring around the shortest baseline at equal error."}, "figure": {"name": "fig-topafa2025-lengths", "caption": "As the figure before, for the runs here, mean over seeds. A panel without a ring has no baseline within 1.1 times the NMSE of the best top-AFA."}}
means = significance.means(rows)
figures.lengths(means, significance.picks(means))
# %% [markdown]
# {download}`The table behind this page <tables/topafa2025-significance.csv>`, one line per run.
#
# ## The frontier of the released runs
#
# Which released top-AFA runs does no released baseline of their layer dominate, with at most their L0 and a lower NMSE?

# %% tags=["remove-input"]
pages.shown(significance.released_frontier_table())

# %% [markdown]
# An L0 above 1 in units of $d$ means more active latents than dimensions. A basis and its negatives, $2d$ latents of which
# $d$ are active, then reconstruct every input exactly, with matching norms and no loss left: nothing in the objective
# prefers a sparse code to a rotated basis.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(topafa2025.CLAIMS, ["A6", "A9"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# Whether tests and code lengths entered the paper's second version is not known here; they stand in the released notebooks.
# NMSE is a mean over held-out tokens instead of a single training minibatch. The baselines of our tests are the better of TopK
# and BatchTopK at the best $k$, chosen on other seeds; the authors test against either, chosen on the run itself. A $t$-test over
# three seeds has two degrees of freedom and finds only large or very regular differences. Subject, sizes and training are
# those of {doc}`topafa2025-top-afa`, where the column *late gain* says how far runs are from done.

# %% tags=["remove-input"]
pages.provenance(rows)
