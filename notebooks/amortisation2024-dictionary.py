# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Inference or dictionary?
#
# The pages before showed where other methods lead the SAE. A lead can come from better codes for the same dictionary, or
# from a better dictionary. This page takes the two apart.
#
# The theorem of {cite:t}`oneill2024` is about inference when a *good* dictionary is given: one linear map and a ReLU
# cannot be exact. Its experiments with nothing known mix that gap with another one, because each method learns its own
# dictionary. The follow-up {cite:p}`barinpacela2026` claims that the second is what matters:
#
# - what keeps an SAE from recovering codes is its dictionary, not its encoder (**C20**).
#
# That is a claim about what happens in practice, and it contradicts no theorem.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages
from replication.figures import amortisation_dictionary as figures
from replication.papers import amortisation2024
from replication.papers.amortisation2024 import compositions, dictionary

pages.open_page(preset)

# %% tags=["remove-cell"]
rows = pages.rows_of(dictionary.MATRIX, preset, "amortisation2024-dictionary")
taught = pages.rows_of(dictionary.TAUGHT, preset, "amortisation2024-taught")
new = pages.rows_of(compositions.COMPOSITIONS, preset, "amortisation2024-compositions")
phase = pages.rows_of(compositions.PHASE, preset, "amortisation2024-phase")

# %% [markdown]
# ## Every dictionary with every inference
#
# Seven dictionaries, two given and five learned, each with every way to infer codes from it. What is usually compared,
# each encoder with its own dictionary, is the first column of this matrix. *ReLU encoder* is an encoder of the SAE's kind,
# fitted anew to the finished dictionary of the row; the inferences without an encoder are
#
# ```{literalinclude} ../replication/papers/amortisation2024/dictionary.py
# :pyobject: infer
# :caption: replication/papers/amortisation2024/dictionary.py
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two heat maps, one per problem size: latent correlation for seven dictionaries from true to random in rows and up to eight inference methods in columns, with the number in each field."}, "figure": {"name": "fig-amortisation2024-dictionary-matrix", "caption": "Latent MCC on test samples, mean over data sets and starts, for every dictionary (row) with every inference (column). The top row has the oracle's dictionary, the bottom row is chance. Empty fields: dictionaries without an encoder, and the l0 oracle where there are too many supports to search. LISTA may rest on fewer data sets than its neighbours."}}
figures.matrix(dictionary.matrix_table(rows))
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-dictionary.csv>`. Read along a row, inference changes;
# read down a column, the dictionary does. If amortisation alone holds the SAE back, its row brightens to the right of its
# own encoder; if the dictionary alone does, every column brightens from the SAE's row to the top, the ReLU encoder's too.
#
# Three cautions. The bottom row is chance, and chance is not zero here: sparse inference with directions that were never
# trained correlates with the codes too, so a learned row means something only by its distance from that one. The *l0 oracle* is the best fit with
# $K$ atoms of the dictionary it is given; it is an oracle for codes with the true one only, and a wrong dictionary
# makes its exact fit a fit of the wrong thing. And FISTA has a penalty, so it is not the best inference for every row.
#
# The dictionaries themselves, with what a random one scores; *oracle*, *chance* and *q* are for FISTA's codes, and *shuffled*, true
# codes in a random order of samples, is the chance level of a method whose latents know nothing of the sample.

# %% tags=["remove-input"]
scores = [
    "dict_cosine",
    "cosine_chance",
    "dict_pearson",
    "pearson_chance",
    "mcc_fista",
    "chance",
    "oracle",
    "q",
    "shuffled",
]
pages.table_of(dictionary.controlled(rows), ["n_atoms", "d_in", "k", "method"], scores)

# %% [markdown]
# For the methods that have an encoder, the gap to the oracle splits into two parts. FISTA on the method's own dictionary
# takes the encoder out of the comparison: what it gains was lost to amortisation. What then is left to FISTA with the true
# dictionary is the dictionary's:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Horizontal bars of the gap to the oracle, grouped by problem: for each method one part that better inference on its own dictionary closes and one part that only a better dictionary can close, with the second part's share in percent."}, "figure": {"name": "fig-amortisation2024-dictionary-parts", "caption": "The gap to the oracle in latent MCC, split into what FISTA on the method's own dictionary closes (inference; to the left of 0 where FISTA does worse than the encoder) and the rest (dictionary). Percentages: the dictionary's share of the net gap, above 100 % where inference is negative. The groups of new compositions belong to the second part of the page; published bars are computed from the follow-up's stored means."}}
figures.parts(compositions.bars(rows, new))
# %% [markdown]
# The share belongs to a regime and a method; it is not a constant of SAEs. It says nothing about the size of the gap: where
# a dictionary is close to the truth there is little left for it to hold back, and the encoder's part can be most of a small
# gap. *best_share* replaces FISTA by the best inference of the row, chosen with the truth in hand.
#
# The split also depends on its **order**. Here, as in the follow-up, inference is replaced first, and the dictionary is
# charged with all that is left, including what only the two together can bring. The other order gives an encoder of
# the SAE's kind the true dictionary first, fitted to it on the SAE's loss: *first_share* is what that gains, as a share of
# the gap. Where both single replacements gain little, neither is *the* obstacle: iterated inference is of use with a good
# dictionary only, and a good dictionary with good inference only.
#
# The theorem's own gap is a third number: oracle minus the *best* ReLU encoder, however it was found. *taught_share* comes
# from an encoder that was taught the codes, and what it leaves, 1 − *taught_share*, is amortisation in the theorem's sense.
# Where *first_share* is far below it, the class could do better than its loss leads it to.

# %% tags=["remove-input"]
gaps = dictionary.with_taught(dictionary.matrix_gaps(rows), taught)
gaps = gaps.rename(columns={"dictionary_part": "dictionary's part"})
gaps["method"] = gaps.dictionary.map(dictionary.NAMES)
shares = ["share", "best_share", "first_share", "taught_share"]
pages.table_of(gaps, ["n_atoms", "d_in", "k", "method"], ["gap", "inference", "dictionary's part", *shares])

# %% [markdown]
# ## New compositions
#
# The follow-up asks for more than recovery on data of the training law. In its data atom 0 meets one half of the other
# atoms in training, and in the test only the other half: every atom has been seen, its company has not. Codes are
# uniform, $k$ atoms are active, and $M = \lceil 2k\ln(n/k) \rceil$ inputs are at the boundary that the paper of 2024 drew.
# Four SAEs learn from it: ReLU, JumpReLU, TopK, and MP-SAE, whose encoder is $k$ steps of matching pursuit on its own
# dictionary (its steps are dear, and at `cpu` it takes fewer than the others). One more TopK SAE has four times the rate,
# because training that stopped early looks like a bad dictionary.
# DL-FISTA learns its dictionary by turns. The SAEs' gradients, batched over models:
#
# ```{literalinclude} ../replication/papers/amortisation2024/compositions.py
# :pyobject: tied_gradient
# :caption: replication/papers/amortisation2024/compositions.py
# ```
#
# On new compositions about one half of the atoms is never active. A latent cannot correlate with a constant, so the score
# is the mean over the atoms that do occur; over all of them even the oracle would stop at one half.
#
# ### First, the right sparsity
#
# The follow-up's ReLU SAE has one weak penalty for every size, and most of its latents are active in every sample, while
# TopK is told $k$. How its penalty is scaled is not known here; *untuned* is a weak one of ours ($\lambda = 0.002$), taken to
# stand for it. This is an assumption. *Tuned* penalties are chosen on data seeds of their own, which are not reported
# anywhere else, for the best MCC on known compositions:

# %% tags=["remove-input"]
pages.shown(compositions.choice_table(new))

# %% [markdown]
# That choice looks at the truth, which favours the SAE: it has the penalty that finds the atoms best. The last column names
# the penalty that one would take without it, knowing $k$ alone as TopK does. On the seeds that are reported:

# %% tags=["remove-input"] mystnb={"image": {"alt": "A panel per number of atoms: latent correlation on new compositions against the active latents of ReLU and JumpReLU SAEs on a logarithmic axis, encoders solid and FISTA on the same dictionary dashed, TopK as diamonds, lines for oracle, chance and k."}, "figure": {"name": "fig-amortisation2024-compositions-sparsity", "caption": "Latent MCC of new compositions against the active latents of an SAE, one dot per penalty, with its encoder (solid, filled) and by FISTA on its dictionary (dashed, hollow). Diamonds: TopK. The vertical line is the true number of active atoms. Bands: range over data seeds."}}
figures.sparsity(compositions.sparsities(new))
# %% [markdown]
# How far the lines rise towards the oracle is how much of "the dictionary holds an SAE back" was a penalty that nobody had
# tuned. The distance between solid and dashed is inference, at each penalty.
#
# ### Known and new

# %% tags=["remove-input"] mystnb={"image": {"alt": "A panel per number of atoms, one row per method: latent correlation of known compositions as circles and of new ones as squares, with the encoder filled and FISTA on the same dictionary hollow, published crosses, and vertical lines for oracle and chance."}, "figure": {"name": "fig-amortisation2024-compositions", "caption": "Latent MCC of known (circles) and of new compositions (squares). Filled: the encoder's codes; hollow: FISTA on the same dictionary; horizontal lines: range over data seeds. Vertical lines: FISTA with the true dictionary (dashed) and with a random one (dotted). Crosses: the follow-up's stored means of three seeds."}}
figures.compositions(compositions.composition_points(new), compositions.published_points())
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-compositions.csv>`. *q* puts a score on the scale from
# chance (0) to oracle (1), for known (`id`) and new (`ood`) compositions; `mcc` is of the encoder's codes, of FISTA's for
# DL-FISTA:

# %% tags=["remove-input"]
found = compositions.named(new).drop(columns="method").rename(columns={"label": "method"})
scores = ["mcc_id", "chance_id", "q_id", "mcc_ood", "chance_ood", "oracle_ood", "q_ood", "dict_cosine", "chance_cosine"]
pages.table_of(compositions.full_size(found), ["n_atoms", "method"], scores)

# %% [markdown]
# ## Surgeries
#
# Each operation replaces one part of a trained SAE, and what changes tells what that part was worth. *Least squares on the
# support* keeps the latents that the encoder chose and fits their magnitudes anew: it undoes shrinkage, and cannot mend a
# dictionary (*refit*). *FISTA* replaces the encoder, at the follow-up's penalty (*same_lam*) and at the best of a sweep
# (*best_lam*, chosen on the test, so an upper bound). *DL-FISTA from an SAE* keeps the dictionary as a start and goes on by turns: if the SAE is near a good
# solution, or stuck in a bad one, it ends elsewhere than from a random start. For DL-FISTA the support is FISTA's.

# %% tags=["remove-input"]
columns = ["active latents", "encoder", "refit", "same_lam", "best_lam", "dict_cosine", "chance_cosine"]
pages.table_of(compositions.surgeries(new).rename(columns={"active": "active latents"}), ["n_atoms", "method"], columns)

# %% tags=["remove-input"] mystnb={"image": {"alt": "Three panels for the largest number of atoms: latent correlation against the penalty of FISTA, against its iterations from zero and from the encoder's codes, and cosine of the dictionary with the atoms over the course of learning."}, "figure": {"name": "fig-amortisation2024-compositions-variations", "caption": "At the largest n. Left: new compositions by FISTA on each dictionary, against its penalty. Middle: against its iterations at λ = 0.1, from zero (hollow) and from the codes of the SAE's encoder (filled). Right: cosine of the dictionary with the atoms while it is learned, against the share of steps (SAEs) or rounds (DL-FISTA) done. Dash-dotted: random dictionary. Bands: range over data seeds."}}
figures.variations(compositions.variations(new))
# %% [markdown]
# In the right panel a line that still rises at its end is a training that stopped early; the TopK SAE with four times the
# rate has the steps of the other and should be compared with it. The middle panel has one thing that could not come out
# otherwise: FISTA minimises a convex function, so where it starts decides how soon it arrives and not where. A warm start
# can save iterations; it cannot close a gap.
#
# ## Linear access
#
# The follow-up's title is about probes. If a concept is one direction in superposition, a linear probe reads the others
# along with it, and their company changes. The label is whether atom 0 exceeds 0.5; the probe is logistic regression on
# $x$ with labels of the training samples, and without labels the same question is put to the one latent that correlates
# most with atom 0 on known compositions. The area under the ROC curve, of which chance is 0.5, for known (`id`) and new
# (`ood`) compositions; *direct* is the encoder's latent (or the probe), *fista* the latent of FISTA on the same dictionary:

# %% tags=["remove-input"]
aucs = ["direct_id", "direct_ood", "fista_id", "fista_ood"]
pages.table_of(compositions.readings(new), ["n_atoms", "source"], aucs)

# %% [markdown]
# ## How many samples there are
#
# With $S$ samples an atom is active in about $Sk/n$ of them. At the follow-up's largest sizes that is a handful, and no method
# could place an atom from it: failure there is a limit of information, not of optimisation. At those sizes its stored
# scores rise again with $n$, and so they do when latents are matched by chance among few samples. So the axis is samples
# per atom:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels against the training samples in which an atom is active, on a logarithmic axis: latent correlation on new compositions, and cosine of the dictionary with the atoms, for ReLU SAEs, TopK and DL-FISTA, with oracle and chance lines and published crosses."}, "figure": {"name": "fig-amortisation2024-compositions-samples", "caption": "Latent MCC of new compositions (left; encoder's codes of SAEs, FISTA for DL-FISTA) and mean cosine of dictionary and atoms (right) against the number of training samples in which one atom is active. SAEs take the same number of steps at every size, with the penalties chosen at full size. Crosses in the colours of the methods: the follow-up's stored values. Bands: range over data seeds."}}
figures.samples(compositions.curve(new), compositions.FOLLOW_UP_SAMPLES)
# %% [markdown]
# ## How many inputs there are
#
# The follow-up draws a phase diagram: what is recovered against $M$ in units of $k\ln(n/k)$. Its SAEs have twice as many
# latents as there are atoms, and its score on known compositions pads the truth with as many columns of noise, which holds
# them near one half whatever they find. Here the width is the number of atoms and nothing is padded:

# %% tags=["remove-input"] mystnb={"image": {"alt": "Two panels of latent correlation, known and new compositions, against M in units of k ln(n/k): oracle, DL-FISTA, TopK and ReLU SAE with bands over data seeds, and chance."}, "figure": {"name": "fig-amortisation2024-phase", "caption": "Latent MCC against the number of inputs in units of k ln(n/k): encoder's codes of SAEs, FISTA for DL-FISTA, the oracle (true dictionary) and chance (random one). The ReLU SAE has the penalty of the objective that DL-FISTA minimises. Dotted vertical line: k ln(n/k); solid: 2 k ln(n/k), where the other figures of this page stand. Bands: range over data seeds."}}
figures.phase(compositions.phases(phase))
# %% [markdown]
# {download}`The table behind this figure <tables/amortisation2024-phase.csv>`. In the follow-up's stored results the oracle
# jumps from .68 to .97 between ratios of 1 and 1.5, and DL-FISTA from .42 to .86; its TopK SAE is at .72 to .90 on new
# compositions, which are not padded, above a ratio of 2.25.
#
# ## Verdicts

# %% tags=["remove-input"]
pages.verdicts(amortisation2024.CLAIMS, ["C20"], preset)

# %% [markdown]
# ## What differs, and what this ran on
#
# The claim is judged on the data of 2024, at the two sizes of its rule; what is shown on new compositions informs it and does
# not decide it. The `cpu` preset trains the SAE that the claim reads for one half of the published 40,000 steps at twice the
# rate, and the other encoders for an eighth at ten times the rate; it trains LISTA at the larger size on one data set. The
# ReLU encoder is fitted to finished dictionaries, and taught, with the losses and the lengths of the page on known codes and
# dictionaries, at `cpu` in a quarter of the steps at four times the rate. `gpu` and `paper` take the published numbers.
#
# Data, methods and stored values of the follow-up are those of its released code and results; its text was not at hand.
# Its limits, and ours:
#
# - Its SAEs learn from one half of the data and its dictionary learning from the other, on which known compositions are
#   also tested. Here all learn from the same samples and none sees the test.
# - Its scores on new compositions may be averaged in another way than ours; chance on its scale, by a derived check, is
#   .29 at $n = 100$, .19 at 500 and .17 at 1,000. Its SAEs from $n = 500$ on are at that level.
# - For TopK at $n = 100$ its stored values put more than one half of the gap on inference: "not amortisation" depends
#   on the regime.
# - Rows of our dictionaries have unit norm, as the atoms do, so that its surgery on norms (which changed nothing) has nothing
#   to act on here.
# - JumpReLU is that of {cite:t}`rajamanoharan2024jumprelu` with a threshold and a window chosen for codes between 0 and 1; how
#   the follow-up trained its own is not known here. Its Softplus-Adam, accuracy beside AUC, and its width of twice
#   the atoms are left out; LISTA is in the matrix only.
# - Sizes above $n = 100$, and more training samples than 2,500, are in the `gpu` and `paper` presets and not in `cpu`.
# - Codes are uniform, there is no noise, and the width is the true one. Nothing here, and nothing in its public results,
#   is about a language model.
#
# SAEs are trained on batches of 64 as in the follow-up, by Adam without its weight decay; its 500 epochs are 19,500 steps
# at 2,500 samples, and all numbers of samples get the same steps. `cpu` takes one half of them at twice the rate (a quarter
# at four times the rate in the phase diagram), a quarter at twice the rate for MP-SAE, and fewer rounds of fewer iterations
# for DL-FISTA.

# %% tags=["remove-input"]
pages.provenance(rows)

# %% tags=["remove-input"]
pages.provenance(taught)

# %% tags=["remove-input"]
pages.provenance(new)

# %% tags=["remove-input"]
pages.provenance(phase)
