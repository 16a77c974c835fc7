"""``risen demo``: the whole path on the embedded base, measured as it goes.

It uses the extension and the exporter as anybody would, so it lives on the side that may see both.
"""
