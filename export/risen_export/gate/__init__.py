"""Is the graph still the model: what is asked of both, and what is let through."""
