"""The rewards, generators and schedulers of risen-plugin, registered by the same hooks as any."""
