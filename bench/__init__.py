"""bench: how fast the product is, as ratios measured side by side in one run.

Belongs here: one module a subject, what they have in common (``measure``, ``servers``) and the table over all of them
(``python -m bench``). Does not belong here: assertions on time in unit tests; anything that the product imports.
"""
