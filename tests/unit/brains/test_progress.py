"""The training log through kills and damage."""

import logging

from speechbrain_slm.brains.progress import TrainLog


def filled(folder, steps=(2, 4, 6)):
    log = TrainLog(folder)
    for step in steps:
        log.write({"step": step, "loss": step / 8})
        log.write({"step": step, "valid": {"en": 1.5}})
    return log


def steps(log):
    texts = log.text_path.read_text().splitlines()
    found = [entry["step"] for entry in log.entries()]
    assert [f"step: {step}" for step in found] == [
        text.split(" - ")[0] for text in texts
    ]
    return found


def test_no_line_is_lost_where_a_run_resumes(tmp_path):
    log = filled(tmp_path)
    for line in log.path, log.text_path:
        with open(line, "a", encoding="utf-8") as file:
            file.write('{"step": 7, "lo')  # Killed.
    for _ in range(2):
        log.rewind(6)
        assert steps(log) == [2, 2, 4, 4, 6, 6]
    log.rewind(4)
    log.write({"step": 5, "loss": 1.0})
    assert steps(log) == [2, 2, 4, 4, 5]


def test_a_damaged_line_costs_that_line(tmp_path, caplog):
    """As after a power failure; the model does not depend on the log."""
    log = filled(tmp_path)
    lines = log.path.read_bytes().split(b"\n")
    lines[1] = bytes(len(lines[1]))
    lines[4] = b"[6]"
    log.path.write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        log.rewind(6)
    assert steps(log) == [2, 4, 4, 6]
    assert "train_log.jsonl, line 2 is no entry" in caplog.text
    assert "train_log.jsonl, line 5 is no entry" in caplog.text
