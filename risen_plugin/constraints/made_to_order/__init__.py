"""Answers that meet constraints, and answers that miss one."""
