# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Explaining latents by token patterns
#
# {cite:t}`gao2024`, Figures 7, 9, 24 and 25.
#
# A latent is worth little if nobody can say when it is active. {cite:t}`gao2024` test this with explanations so simple
# that a program can check them: patterns of tokens with gaps, found by *Neuron to Graph* (N2G). Such an explanation can
# fail in two ways. It can miss activity (low **recall**), and it can be too broad (low **precision**): "active in code"
# catches all activity of every latent trained on code. Asking for both is the point of the measure. The claims tested here:
#
# - patterns catch more of the activity of TopK's latents than of ReLU's, at little loss of precision (**C27**);
# - more latents and fewer active ones are easier to explain (**C28**);
# - a language model that gets its activations from simulated latents alone, predicted by the patterns, does better than
#   a bigram model (**C29**).

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
import pandas as pd
from IPython.display import HTML

from replication import pages
from replication.figures import explanations as figures
from replication.papers import gao2024
from replication.papers.gao2024 import explanations

pages.open_page(preset)

# %% [markdown]
# ## How an explanation is made
#
# For each latent, up to 16 random places of training text are taken at which it is active. Each place gives one pattern:
#
# 1. The shortest piece of text that ends at the place and keeps at least half of the activation. The piece grows to the
#    left, token by token. If none keeps half, it is the whole text.
# 2. A filler token is put in front. If less than half of the activation is left, the pattern holds only at the start of
#    a text.
# 3. The filler replaces each token of the piece in turn. A token whose loss costs less than half becomes a wildcard,
#    which stands for exactly one token, whatever it is.
# 4. The pattern, read backwards, goes into the latent's tree of patterns, with the activation of the piece as its value.
#
# ```{literalinclude} ../replication/evaluate/explanations.py
# :pyobject: explain
# :caption: replication/evaluate/explanations.py
# ```
#
# To predict, the tree is walked backwards from a token. A known token goes before a wildcard, and the choice is not
# taken back, so that a pattern can be missed that would have matched; the authors' released code does the same, and this
# book keeps to it.
#
# ```{literalinclude} ../replication/evaluate/explanations.py
# :pyobject: Explanation.at
# ```
#
# The filler is the token `␣_`, a space and an underscore, which the released code uses for GPT-2. Its text is one token
# here too, but Python gives it a meaning that prose does not: many private names begin with it.
#
# Recall is the share of 16 random places of activity in held-out text that are predicted. Precision is the share of all
# places predicted in the same held-out text at which the latent is active. Both ask only whether a latent is active, not
# how much. {math}`F_1 = 2PR/(P+R)` joins the two and is 0 for an explanation that predicts nothing. Only latents with 16
# places in both texts can be sampled.
#
# ## TopK against ReLU

# %% tags=["remove-cell"]
rows = pages.rows_of(explanations.EXPLAINED, preset, "gao2024-explanations")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels, recall and precision of explanations against the number of active latents, with lines for TopK and for ReLU with L1 at two dictionary sizes, and grey lines for TopK before training and for chance."}, "figure": {"name": "fig-gao2024-n2g", "caption": "Recall (left) and precision (right) of N2G explanations, means over a random sample of latents. At a given L0, C27 expects the recall of TopK at least 1.2 times as high as that of ReLU, and its precision at least 0.8 times; the paper reports more than 1.5 and 0.9 (Figure 24). Grey: the same autoencoder before training, and the precision of predicting places at random, which is the density. Markers: mean over seeds; bands: lowest to highest seed."}}
figures.recall_and_precision(rows)
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-explanations.csv>`, one line per run. Means over seeds:

# %% tags=["remove-input"]
pages.table_of(
    rows.drop(columns="precision").rename(columns=lambda name: name.removeprefix("n2g_")),
    ["architecture", "d_sae", "sparsity"],
    ["l0", "recall", "precision", "f1", "silent", "density", "explainable", "pattern_size", "dead"],
)

# %% [markdown]
# *silent* is the share of explanations that predict nothing in the held-out text: they have no precision and an
# {math}`F_1` of 0. *density* is the mean share of tokens on which the sampled latents are active. *explainable* is the
# share of all latents that are active often enough to be sampled. *pattern_size* is the mean number of tokens in a
# pattern, wildcards included: long patterns are copies of one place and rarely match again.
#
# The comparison at equal L0 interpolates ReLU between its runs, in the logarithms of recall or precision and of L0, as
# {doc}`gao2024-frontier` does for the error, and never extrapolates. A TopK run whose L0 lies, in any seed, outside the
# range of ReLU is compared with nothing, and neither its latents nor those of ReLU runs far from every TopK run count
# towards the 200 that C27 asks for.
#
# ## More latents, fewer active ones
#
# A dense latent is trivially easy to "explain": whatever is predicted is often right. C28 therefore leaves out latents
# that are active on more than 10 % of tokens.

# %% tags=["remove-input"] mystnb={"image": {"alt": "F1 of explanations against the number of latents on a logarithmic axis, one line per k, with a grey line for autoencoders before training."}, "figure": {"name": "fig-gao2024-n2g-f1", "caption": "F1 of explanations of TopK's latents, those of at most 10 % density. C28 expects lines that rise to the right, and smaller k above larger k. The paper finds both on GPT-2 (Figure 25). Grey: before training. If the grey line moves in the same way, the trend is not one of learned latents alone. Bands: lowest to highest seed."}}
figures.f1(rows)
# %% [markdown]
# ## Two explanations to look at
#
# High recall proves little. The second of these explanations would pass a test that looks only at places where the latent
# is active. The paper's Figure 9 makes the same point with examples of its own.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two tables of token patterns with their values: the explanation with the highest precision and the one with the lowest."}, "figure": {"name": "fig-gao2024-n2g-examples", "caption": "Two explanations of the first seed. Among those that catch at least half of their latent's activity, the one with the highest precision and the one with the lowest; latents of at most 10 % density, of the dictionary named above the tables. A star is a wildcard; ␣ is a space, ⏎ a line break. The value is the activation that the pattern predicts at its last token."}}
HTML(figures.worked_examples(rows))

# %% [markdown]
# ## What explanations are worth to the language model
#
# If patterns said all there is to know about the latents, the latents could be replaced by them. Every latent is
# explained (small presets use fewer places for it, see the end of the page) and simulated from tokens alone. A simulated
# activation $s$ is multiplied by $\mathbb E[s\,a]/\mathbb E[s^2]$, the factor that brings it nearest to the true
# activation $a$ on other training text, the decoder turns all of them into a reconstruction, and the language model goes
# on from there.

# %% tags=["remove-cell"]
simulated = pages.rows_of(explanations.SIMULATION, preset, "gao2024-simulated-latents")

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rise in the language model's cross-entropy against the number of latents, with lines for simulated latents, for true latents and for simulated latents of an untrained autoencoder, and horizontal lines for a bigram model, the mean activation, zero and other stand-ins."}, "figure": {"name": "fig-gao2024-n2g-downstream", "caption": "Rise in the language model's loss when simulated latents stand in for its activations, by size of the dictionary and k. C29 expects the solid lines below the black line of a bigram model, as in the paper's Figure 7 (GPT-2). Dashed: the autoencoder with its true latents. Dotted: an untrained autoencoder, explained and simulated the same way. Grey lines: what else can stand in. Bands: lowest to highest seed."}}
figures.downstream(simulated)
# %% [markdown]
# {download}`The table behind this figure <tables/gao2024-simulated-latents.csv>`. Means over seeds; rises are in nats per
# predicted token:

# %% tags=["remove-input"]
short = {name: name.removeprefix("delta_ce_").replace("_", " ") for name in simulated if "delta_ce_" in name}
pages.table_of(
    simulated.rename(columns=short),
    ["d_sae", "sparsity"],
    ["delta_ce", "bigram", "lookup", "sae", "untrained", "first kept", "lookup first kept", "nmse"],
)

# %% [markdown]
# *ΔCE* is the rise with simulated latents, *sae* with the true ones, *untrained* with simulated latents of an
# untrained autoencoder; *NMSE* is the error of the simulated reconstruction. *lookup* is the strictest control: each
# token's mean activation, looked up in the text that the explanations come from. It uses one token and no latents. Where
# it does better than the simulation, the patterns have lost more than they found in earlier tokens. The bigram model sees
# one token as well, but it was made to predict; a mean activation was not.
#
# The first token of a block has an activation like no other's, many times larger, and a pattern rarely knows that it
# stands at the start. *first kept* and *lookup first kept* are the same rises with that one activation left as it is.
# The claim is judged without this help.
#
# All reconstructions but the plain mean and zero keep the mean and the norm of each true activation, because that is how
# inputs are normalised. This tells the model a little: how much is the rise at the *mean direction*, where nothing else
# is told.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(gao2024.CLAIMS, ["C27", "C28", "C29"], preset)

# %% [markdown]
# ## What differs from the paper, and what this ran on
#
# Unless the page was built with the `paper` preset, the subject is a small language model trained on Python source, not
# GPT-2 small. The algorithm follows the released code. How the paper draws the text for precision, how many latents it
# simulates and how its bigram model is made are not known; here precision is measured on random held-out blocks of
# 64 tokens, every latent that is active in the training text is simulated, and the bigram model backs off to single
# tokens with a weight chosen on training text.

# %% tags=["remove-input"]
pages.facts(explanations.spent(preset))

# %% [markdown]
# The text is the same for all runs; a run's seed draws its latents and places. Intervals are Student's $t$ over seeds.

# %% tags=["remove-input"]
pages.provenance(pd.concat([rows, simulated]))
