"""``risen advise``: what to do with a model and data, from measurements."""
