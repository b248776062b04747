"""Published benchmarks, read into a spoken manifest and a table of items.

One module a layout. Each returns clips (audio files under the names that they
shall have in a unit store) and items (which of them is the right one); what
belongs together is told by names and tables, never by the order of files.
``prepared.write_prepared`` writes both, and everything after that is the same
for all benchmarks.
"""
