"""The rewards, generators and schedulers of risen-plugin, registered by the same hooks as any.

A new one is a module in ``generators/`` or ``schedulers/``, offered in the ``__init__`` there, or a
class in ``rewards``.
"""
