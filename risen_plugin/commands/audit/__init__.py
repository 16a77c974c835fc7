"""Look for what a reward lets through, and for what it does behind the run's back.

``run.audit`` runs every check of ``run.CHECKS`` against one reward. What answers there are and
whether they can be right is decided by construction (``material``, ``answers``, ``planted``), what
a reward does is seen from outside (``calling``), and a check turns both into a verdict
(``acceptance``, ``behaviour``, ``timing``). Loads nothing heavy.
"""
