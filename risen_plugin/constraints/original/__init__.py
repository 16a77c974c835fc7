"""IFEval's own verdicts, oddities included: numbers to compare with published ones.

Nothing is trained on them by default: a reward that is searched for gaps needs the stricter checks
of :mod:`risen_plugin.constraints.families`.
"""
