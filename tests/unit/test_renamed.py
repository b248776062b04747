"""Names of version 0.1 lead to the modules of today, not to copies."""

import importlib

import pytest

from speechbrain_slm.renamed import MODULES


@pytest.mark.parametrize("old", [name for name in MODULES if MODULES[name]])
def test_an_old_name_is_the_module(old):
    new = importlib.import_module(f"speechbrain_slm.{MODULES[old]}")
    assert importlib.import_module(f"speechbrain_slm.{old}") is new


def test_an_old_name_says_the_new_one_and_hands_on_its_classes():
    with pytest.warns(FutureWarning, match=r"speech\.tts\.nanotts now"):
        from speechbrain_slm.corpus.tts.nanotts import NanoTTS
    from speechbrain_slm.speech.tts import nanotts

    assert NanoTTS is nanotts.NanoTTS


def test_a_name_that_never_was_is_none():
    for name in ("corpus.nothing", "nothing", "corpus.tts.nothing"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"speechbrain_slm.{name}")
