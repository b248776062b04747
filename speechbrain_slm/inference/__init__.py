"""Trained speech LMs at work: units, scores, and speech that goes on."""
