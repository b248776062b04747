"""Likelihood scoring, cloze accuracy and statistics."""
