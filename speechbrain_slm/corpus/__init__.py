"""Stories: the bundled story grammar and what prepares a spoken corpus."""
