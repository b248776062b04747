"""The training log: one JSON line an entry, and a text file to read."""

import json
import logging
import math
from pathlib import Path

from speechbrain_slm.utils.atomic import fsync_file, write_atomic

logger = logging.getLogger(__name__)
_NO_STATS = ("step", "seen", "valid")


class TrainLog:
    """Losses of a run, which a restart continues instead of repeating.

    Arguments
    ---------
    folder
        Gets ``train_log.jsonl`` (for tools) and ``train_log.txt`` (in
        SpeechBrain's form).

    Example
    -------
    >>> log = TrainLog(getfixture("tmp_path"))
    >>> log.write({"step": 1, "loss": 2.5})
    >>> log.write({"step": 2, "loss": 2.25})
    >>> log.rewind(1)
    >>> log.entries()
    [{'step': 1, 'loss': 2.5}]
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "train_log.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.text_path = self.path.with_suffix(".txt")

    def entries(self) -> list[dict]:
        """Return what was written so far."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        entries = []
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                entry["step"] + 0
            except (ValueError, TypeError, KeyError):
                # A killed process may leave half of its last line. Elsewhere
                # a disk has lost something; the run need not stop for it.
                if number + 1 < len(lines):
                    logger.warning(
                        "%s, line %d is no entry and is left out: %.80r",
                        self.path,
                        number + 1,
                        line,
                    )
                continue
            entries.append(entry)
        return entries

    def rewind(self, step: int) -> None:
        """Drop the entries after a step, which will be trained again.

        Arguments
        ---------
        step : The optimizer step from which the run goes on.
        """
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        lines = [json.dumps(entry) + "\n" for entry in kept]
        write_atomic(self.path, "".join(lines))
        texts = [f"{self._text(entry)}\n" for entry in kept]
        write_atomic(self.text_path, "".join(texts))

    def write(self, entry: dict) -> None:
        """Append an entry to both files; it reaches the disk.

        The checkpoint that follows does, too: after a power failure a run
        resumes behind no line that is lost.

        Arguments
        ---------
        entry
            ``step`` and numbers, among them ``seen``: kind -> tokens; or
            ``step`` and ``valid``: name -> loss.
        """
        text = self._text(entry)
        for path, line in (
            (self.path, json.dumps(entry)),
            (self.text_path, text),
        ):
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            fsync_file(path)
        logger.info(text)

    @staticmethod
    def parts(entry: dict) -> dict:
        """Sort what an entry says by its kind.

        Arguments
        ---------
        entry : See :meth:`write`.

        Returns
        -------
        Of ``"train"``, ``"seen"`` and ``"valid"`` those that are there:
        name -> value.
        """
        parts = {
            "train": {k: v for k, v in entry.items() if k not in _NO_STATS},
            **{kind: entry.get(kind, {}) for kind in ("seen", "valid")},
        }
        return {kind: values for kind, values in parts.items() if values}

    def _text(self, entry):
        # Not by SpeechBrain's FileTrainLogger: its log_stats is a collective
        # call, which a log that the main process writes alone would wait in.
        line = f"step: {entry['step']}"
        for kind, values in self.parts(entry).items():
            stats = (f"{kind} {k}: {_short(v)}" for k, v in values.items())
            line += " - " + ", ".join(stats)
        return line


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_seconds(seconds: float) -> str:
    """Write a duration the short way.

    Arguments
    ---------
    seconds : Any duration; not a number where it is not known.

    Example
    -------
    >>> format_seconds(3725), format_seconds(59.6)
    ('1:02:05', '1:00')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"
