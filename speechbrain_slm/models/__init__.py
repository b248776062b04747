"""Decoder language models over units."""
