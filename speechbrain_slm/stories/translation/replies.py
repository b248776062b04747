"""Replies that have been paid for, on the disk.

A file a host (SQLite): the processes of a host share one, and read those of
the others, so that no file is written over a network by two hosts.
"""

import json
import socket
import sqlite3
import threading
from collections import Counter, defaultdict
from pathlib import Path

_File = tuple[Path, sqlite3.Connection]
_TABLES = (
    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, sentences TEXT)",
    "CREATE TABLE IF NOT EXISTS usage (model TEXT PRIMARY KEY, "
    "requests INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER)",
)
_COUNT = """
    INSERT INTO usage VALUES (?, 1, ?, ?) ON CONFLICT DO UPDATE SET
    requests = requests + 1,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
"""
_KEEP = "INSERT OR REPLACE INTO replies VALUES (?, ?)"
COUNTS = ("requests", "prompt_tokens", "completion_tokens")
# Two processes write at the same time; SQLite itself gives up after 5 s.
_PATIENCE = 60.0  # seconds that a process waits for the others of its host


class ReplyCache:
    """Keeps good replies, and counts what all of them have cost."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # The event loop asks and adds, the driver sums up.
        self._lock = threading.Lock()
        self._files: list[_File] = []

    def get(self, key: str) -> list[str] | None:
        """Look a reply up by the hash of all that makes it."""
        rows = self._read("SELECT sentences FROM replies WHERE key = ?", key)
        return json.loads(rows[0][0]) if rows else None

    def add(
        self,
        model: str,
        tokens: tuple[int, int],
        key: str,
        sentences: list[str] | None,
    ) -> None:
        """Count a request, and keep the reply; None if it cannot be used."""
        # Counted and kept in one transaction: what a kill loses of either, it
        # loses of both.
        todo: list[tuple] = [(_COUNT, (model, *tokens))]
        if sentences is not None:
            told = json.dumps(sentences, ensure_ascii=False)
            todo.append((_KEEP, (key, told)))
        with self._lock:
            _run(self._open()[0], *todo)

    def totals(self) -> dict[str, dict]:
        """Sum up all requests of all runs: model -> ``COUNTS``."""
        query = f"SELECT model, {', '.join(COUNTS)} FROM usage ORDER BY model"
        sums: defaultdict[str, Counter] = defaultdict(Counter)
        for model, *counts in self._read(query):
            sums[model].update(dict(zip(COUNTS, counts, strict=True)))
        return {model: dict(counts) for model, counts in sums.items()}

    def _read(self, query: str, *values: str) -> list[tuple]:
        """Ask the files of all hosts."""
        with self._lock:
            found = [_run(file, (query, values)) for file in self._open()]
        return [row for rows in found for row in rows]

    def _open(self) -> list[_File]:
        """Return the file of this host, and those of others to read."""
        if not self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            own = self.folder / f"replies-{socket.gethostname()}.sqlite"
            others = {*self.folder.glob("replies-*.sqlite")} - {own}
            for path in (own, *sorted(others)):
                uri = path.absolute().as_uri()
                uri += "" if path == own else "?mode=ro"
                connection = sqlite3.connect(
                    uri, timeout=_PATIENCE, uri=True, check_same_thread=False
                )
                self._files.append((path, connection))
            _run(self._files[0], *((table,) for table in _TABLES))
        return self._files


def _run(file: _File, *statements: tuple) -> list[tuple]:
    """Execute statements in one transaction; return the rows of the last."""
    path, connection = file
    try:
        with connection:
            for statement in statements:
                rows = connection.execute(*statement).fetchall()
        return rows
    except sqlite3.Error as error:
        raise OSError(
            f"{path}: {error}. Make room if the disk is full; if the file is "
            "damaged, remove it: its replies are asked for again."
        ) from error
