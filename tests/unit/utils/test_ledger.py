"""How much may be left out, and what is said of it."""

import logging

import pytest

from speechbrain_slm.utils.ledger import (
    Reasons,
    TooManyLeftOut,
    check_share,
    open_ledger,
)


def check(left_out, most=0.2):
    reasons = Reasons()
    for number in range(left_out):
        reasons.add(f"no audio: {'long/' * 99}{number}.wav does not exist")
    check_share("rows", left_out, 1000, most, reasons, "l.jsonl", "Mend them.")


def test_much_is_a_warning_and_too_much_the_end(caplog):
    with caplog.at_level(logging.INFO):
        check(0)
        assert not caplog.records
        check(50)
        assert [one.levelname for one in caplog.records] == ["INFO"]
        check(51)
        assert caplog.records[-1].levelname == "WARNING"
        assert "(5.10%): 51 x no audio (the" in caplog.records[-1].message
        check(200)
    with pytest.raises(TooManyLeftOut, match=r"20\.10%.*allows 20\.00%"):
        check(201)


def test_a_message_does_not_grow_with_what_is_left_out():
    reasons = Reasons()
    for number in range(1000):
        reasons.add(f"reason {number}" * 100)
    assert len(str(reasons)) < 1000
    with pytest.raises(TooManyLeftOut) as error:
        check(1000)
    assert len(str(error.value)) < 1000


def test_a_line_says_what_it_can(tmp_path):
    path = tmp_path / "left_out.jsonl"
    silent = {"reason": "silent", "detail": "", "sentence": 0, "split": "a"}
    with open_ledger(path) as ledger:
        ledger.write(action="dropped", **silent)
        ledger.write(action="kept", reason="mixed down", story_id="\ud800")
        with pytest.raises(KeyError, match="no field source"):
            ledger.write(source="x")
    lines = path.read_text().splitlines()
    assert lines[0] == (
        '{"split": "a", "sentence": 0, "action": "dropped", "reason": "silent"}'
    )
    assert "\\ud800" in lines[1]
    assert str(ledger.reasons["a"]) == "1 x silent"
    assert ledger.counts == {"dropped: silent": 1, "kept: mixed down": 1}
