"""Was a phase worth it: differences, verdicts and controllers, as pure functions."""
