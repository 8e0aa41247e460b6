# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The scorecard
#
# Every claim of the papers treated so far, with the verdict that the stored rows give. A claim is one sentence of a
# paper. Its rule is code, and the verdict is what the rule returns: nobody grades a claim by looking at a figure. Claims
# that no page measures yet are listed with that reason.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages

pages.open_page(preset)

# %% [markdown]
# ## The five verdicts
#
# | verdict | what it means |
# |---|---|
# | **replicated** | the rule holds, and so does its 95 % interval over seeds |
# | **partly** | the sign is the claimed one, but the interval or the scope falls short |
# | **not replicated** | the sign is reversed, with its interval |
# | **void** | the rows cannot decide: a pre-check of the rule failed (runs that are not done, unmatched L0, nothing to measure), or the interval around a reversed sign reaches over zero |
# | **not tested** | no evidence in the table, or outside the scope of this book; the reason is given |
#
# Three conventions keep these words honest.
#
# - **Missing evidence is never a pass.** A claim whose rows are not all there, come from too few seeds or mix subjects
#   ends as *not tested*.
# - **A smoke run never gives a verdict.** Its runs are so short that their numbers show only that the code works. On a
#   page built with the smoke preset, a verdict can come only from rows that a larger preset has stored.
# - **A verdict holds for its subject.** The column *Evidence* names the language model, the preset and the number of
#   seeds. A verdict on a small model says nothing about a large one. Where `gpu` rows give a verdict, they go before
#   `cpu` rows.
#
# *Ours* is the rule's statistic with its 95 % interval, Student's $t$ over seeds unless the rule says otherwise; the page of the paper says what the
# statistic is, and numbers of different claims cannot be compared. *Stale* behind a verdict means that the code has
# changed since its rows were computed
# ({doc}`more on that <status>`).
#
# ## All claims

# %% tags=["remove-input"]
pages.scorecard_table(preset)

# %% [markdown]
# The pages of the papers show each claim beside its figure, with the full rule and a sentence on what was found. On the
# command line, `replicate scorecard` prints this table, `replicate scorecard --json` gives it as one object a line, and
# `replicate scorecard --committed` reads only the rows that come with the repository.
