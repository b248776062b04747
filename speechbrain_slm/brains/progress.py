"""The training log: one JSON line an entry, and a text file to read."""

import json
import logging
import math
from pathlib import Path

from speechbrain_slm.utils.atomic import write_atomic

logger = logging.getLogger(__name__)
_NO_STATS = ("step", "seen", "valid")


class TrainLog:
    """Losses of a run, which a restart continues instead of repeating.

    Arguments
    ---------
    folder : str or Path
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

    def __init__(self, folder):
        self.path = Path(folder) / "train_log.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.text_path = self.path.with_suffix(".txt")

    def entries(self):
        """Return what was written so far.

        Returns
        -------
        list of dict
        """
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        entries = []
        for number, line in enumerate(lines):
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                # A killed process may leave half of its last line.
                if number + 1 < len(lines):
                    raise ValueError(
                        f"{self.path}, line {number + 1} is not JSON"
                    ) from None
        return entries

    def rewind(self, step):
        """Drop the entries after a step, which will be trained again.

        Arguments
        ---------
        step : int
            The optimizer step from which the run goes on.
        """
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        lines = [json.dumps(entry) + "\n" for entry in kept]
        write_atomic(self.path, "".join(lines))
        self.text_path.unlink(missing_ok=True)
        for entry in kept:
            self._write_text(entry, verbose=False)

    def write(self, entry):
        """Append an entry to both files.

        Arguments
        ---------
        entry : dict
            ``step`` and numbers, among them ``seen``: kind -> tokens; or
            ``step`` and ``valid``: name -> loss.
        """
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._write_text(entry)

    @staticmethod
    def parts(entry):
        """Sort what an entry says by its kind.

        Arguments
        ---------
        entry : dict
            See :meth:`write`.

        Returns
        -------
        dict
            Of ``"train"``, ``"seen"`` and ``"valid"`` those that are there:
            name -> value.
        """
        parts = {
            "train": {k: v for k, v in entry.items() if k not in _NO_STATS},
            **{kind: entry.get(kind, {}) for kind in ("seen", "valid")},
        }
        return {kind: values for kind, values in parts.items() if values}

    def _write_text(self, entry, verbose=True):
        # Not by SpeechBrain's FileTrainLogger: its log_stats is a collective
        # call, which a log that the main process writes alone would wait in.
        line = f"step: {entry['step']}"
        for kind, values in self.parts(entry).items():
            stats = (f"{kind} {k}: {_short(v)}" for k, v in values.items())
            line += " - " + ", ".join(stats)
        with open(self.text_path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if verbose:
            logger.info(line)


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_seconds(seconds):
    """Write a duration the short way.

    Arguments
    ---------
    seconds : float
        Any duration; not a number where it is not known.

    Returns
    -------
    str

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
