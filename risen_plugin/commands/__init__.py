"""The subcommands of ``risen``; loaded for the command line alone."""
