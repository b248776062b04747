"""Published benchmarks, read into a spoken manifest and a table of items.

One module a layout. What belongs together is told by names and tables, never
by the order of files. ``spoken_items`` writes what comes of those that are
spoken, ``cloze_texts`` what comes of texts; all after that is the same for all.
"""
