"""``risen new``: the files that a plugin, or a run, begins with."""
