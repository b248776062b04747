"""The bundled corpus: stories of a small grammar."""
