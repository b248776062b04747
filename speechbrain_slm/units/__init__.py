"""From spoken sentences to discrete units."""
