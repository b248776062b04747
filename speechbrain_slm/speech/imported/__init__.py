"""Recordings that exist already, as a manifest."""
