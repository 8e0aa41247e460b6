# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Status of the stored rows
#
# A *row* is one trained autoencoder and what was measured on it. This page counts the rows of the preset that it was
# built with.

# %% tags=["parameters", "remove-cell"]
preset = "smoke"

# %% tags=["remove-cell"]
from replication import pages, results

pages.open_page(preset)

# %% tags=["remove-input"]
pages.stored_rows(preset)

# %% [markdown]
# *rows* is what the preset asks for, *stored* what is there, *stale* how many of those were made by code that has
# changed since. *Training time* is the sum over stored rows, on the machines that computed them.
#
# ## Where rows live
#
# A table is a JSON-lines file, `<paper>.<preset>.jsonl`, with one row a line. Rows are appended as they are done and
# never rewritten; where a key occurs twice, the last line counts.
#
# - `data/results` holds the `gpu` and `paper` tables. It is under version control: a diff shows which numbers a change
#   brought.
# - `data/cache/results` holds the `smoke` and `cpu` tables. They belong to the machine that computed them. A copy of one
#   machine's `cpu` rows, made by `replicate snapshot`, stands in `data/results` for the README's scorecard; no page reads
#   it.
#
# A row carries the fields of its run, the measured numbers, the fingerprints of subject and corpus, the commit and
# whether the library had uncommitted changes, device, thread count, versions, and the date.
#
# ## What makes a row stale
#
# A row stores a fingerprint of the code that it depends on. To compute it, the library starts from the function that
# measures the row and from the classes of its run and of its architecture, follows every name that they use through
# the package, and hashes all definitions that it reaches. Docstrings, comments and annotations do not count. A
# change of an unrelated function leaves a row fresh; a change of the training loop makes every row stale.
#
# ```{literalinclude} ../replication/fingerprints.py
# :pyobject: reachable
# :caption: replication/fingerprints.py
# ```
#
# Rows of this machine are stale, too, when the language model or the text that they came from has changed. Rows from
# elsewhere keep the text of the machine that made them; a verdict is refused when rows of one table mix texts.
#
# A stale row is still shown, and marked. `replicate run --stale` computes such rows again. Changed settings are a
# different matter: a run with another learning rate is another run, with a key and a row of its own.
#
# Code outside the package is not hashed. Versions of PyTorch and Python are recorded in the row instead, and the
# subject and the text by their content.
#
# ## The machine that built this page

# %% tags=["remove-input"]
pages.facts(results.machine())

# %% [markdown]
# Rows may come from other machines. The last table of each paper's page says which.
