"""``risen demo``: the whole path on the embedded base, measured as it goes.

It uses the extension and the exporter as any user would, so it is in the package that may import
both.
"""
