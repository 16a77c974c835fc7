"""Answers that meet given constraints, and answers that do not."""
