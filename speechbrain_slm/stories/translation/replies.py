"""Replies that have been paid for, on the disk.

A file a host (SQLite): the processes of a host share one, and read those of
the others, so that no file is written over a network by two hosts.
"""

import json
import socket
import sqlite3
import threading
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
        query = "SELECT sentences FROM replies WHERE key = ?"
        with self._lock:
            for file in self._open():
                if rows := _run(file, (query, (key,))):
                    return json.loads(rows[0][0])
        return None

    def add(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        key: str,
        sentences: list[str] | None,
    ) -> None:
        """Count a request, and keep the reply; None if it cannot be used."""
        # Counted and kept in one transaction: what a kill loses of either, it
        # loses of both.
        todo: list[tuple] = [
            (_COUNT, (model, prompt_tokens, completion_tokens))
        ]
        if sentences is not None:
            text = json.dumps(sentences, ensure_ascii=False)
            todo.append((_KEEP, (key, text)))
        with self._lock:
            _run(self._open()[0], *todo)

    def totals(self) -> dict[str, dict]:
        """Sum up all requests of all runs: model -> ``COUNTS``."""
        query = f"SELECT model, {', '.join(COUNTS)} FROM usage ORDER BY model"
        sums: dict[str, dict] = {}
        with self._lock:
            for file in self._open():
                for model, *counts in _run(file, (query,)):
                    old = sums.setdefault(model, dict.fromkeys(COUNTS, 0))
                    for name, count in zip(COUNTS, counts, strict=True):
                        old[name] += count
        return sums

    def _open(self) -> list[_File]:
        """Return the file of this host, and those of others to read."""
        if not self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            own = self.folder / f"replies-{socket.gethostname()}.sqlite"
            others = {*self.folder.glob("replies-*.sqlite")} - {own}
            files = [(own, _connect(own.absolute().as_uri()))]
            _run(files[0], *((table,) for table in _TABLES))
            for path in sorted(others):
                uri = f"{path.absolute().as_uri()}?mode=ro"
                files.append((path, _connect(uri)))
            self._files = files
        return self._files


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, timeout=_PATIENCE, uri=True, check_same_thread=False
    )


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
