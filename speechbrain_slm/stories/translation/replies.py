"""Replies that have been paid for, on the disk.

A file a host (SQLite): the processes of a host share one, and read those of
the others, so that no file is written over a network by two hosts.
"""

import contextlib
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

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
    """Keeps good replies, and counts what all of them have cost.

    Arguments
    ---------
    folder : Made when it is first used.

    Example
    -------
    >>> cache = ReplyCache(getfixture("tmp_path"))
    >>> cache.add("gpt", 12, 7, "key", ["Bonjour."])
    >>> cache.get("key")
    ['Bonjour.']
    >>> cache.totals()
    {'gpt': {'requests': 1, 'prompt_tokens': 12, 'completion_tokens': 7}}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # The event loop asks and adds, the driver sums up.
        self._lock = threading.Lock()
        self._files: list[tuple[Path, sqlite3.Connection]] = []

    def get(self, key: str) -> list[str] | None:
        """Look a reply up by the hash of all that makes it."""
        query = "SELECT sentences FROM replies WHERE key = ?"
        with self._lock:
            for path, connection in self._open():
                rows = _run(path, connection, query, (key,))
                if rows:
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
        with self._lock:
            path, connection = self._open()[0]
            with _named(path), connection:
                _run(
                    path,
                    connection,
                    _COUNT,
                    (model, prompt_tokens, completion_tokens),
                )
                if sentences is not None:
                    text = json.dumps(sentences, ensure_ascii=False)
                    _run(path, connection, _KEEP, (key, text))

    def totals(self) -> dict[str, dict]:
        """Sum up all requests whose replies came here, of all runs.

        Returns
        -------
        model -> {requests, prompt_tokens, completion_tokens}
        """
        query = f"SELECT model, {', '.join(COUNTS)} FROM usage ORDER BY model"
        sums: dict[str, dict] = {}
        with self._lock:
            for path, connection in self._open():
                for model, *counts in _run(path, connection, query):
                    old = sums.setdefault(model, dict.fromkeys(COUNTS, 0))
                    for name, count in zip(COUNTS, counts, strict=True):
                        old[name] += count
        return sums

    def _open(self) -> list[tuple[Path, sqlite3.Connection]]:
        """Return the file of this host, and those of others to read."""
        if not self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            own = self.folder / f"replies-{socket.gethostname()}.sqlite"
            others = sorted(self.folder.glob("replies-*.sqlite"))
            files = [(own, _connect(own.absolute().as_uri()))]
            for table in _TABLES:
                _run(*files[0], table)
            self._files = files + [
                (path, _connect(f"{path.absolute().as_uri()}?mode=ro"))
                for path in others
                if path != own
            ]
        return self._files


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, timeout=_PATIENCE, uri=True, check_same_thread=False
    )


def _run(
    path: Path, connection: sqlite3.Connection, query: str, values: tuple = ()
) -> list[tuple]:
    with _named(path):
        return connection.execute(query, values).fetchall()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(
            f"{path}: {error}. Make room if the disk is full; if the file is "
            "damaged, remove it: its replies are asked for again."
        ) from error
