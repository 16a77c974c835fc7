"""Look for wrong answers that a reward accepts, and for scores that depend on chance or state.

``run.audit`` runs every check of ``run.CHECKS`` against one reward. ``material``,
``empty_answers`` and ``planted`` construct the answers, and so know which can be right;
``calling`` calls the reward; and the checks of ``acceptance``, ``behaviour`` and ``timing`` give
the verdicts. Loads nothing heavy.
"""
