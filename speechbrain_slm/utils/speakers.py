"""Speakers: one voice a language, paired so that a story keeps its teller."""

from collections.abc import Iterable

from speechbrain_slm.utils.hashing import identity_of

SPEAKER_PER = ("story", "sentence")


def draw_speaker(
    seed: int,
    story_id: str,
    speakers: Iterable[str],
    sentence: int | None = None,
) -> str:
    """Draw the speaker who tells a story, or one sentence of it.

    Arguments
    ---------
    speakers : Their names; the order does not count.
    sentence : Its number in the story; by default one speaker tells all.

    Returns
    -------
    A pure function of the arguments: the same in every language.

    Example
    -------
    >>> draw_speaker(1, "train-000001", ["ann", "ben"]) in ("ann", "ben")
    True
    """
    names = sorted(speakers)
    key = [seed, story_id, *([] if sentence is None else [sentence])]
    return names[int(identity_of(key), 16) % len(names)]


def check_speaker_per(speaker_per: str) -> None:
    """Refuse a value of ``speaker_per`` that means nothing.

    Arguments
    ---------
    speaker_per : What has a speaker of its own, one of ``SPEAKER_PER``.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if speaker_per not in SPEAKER_PER:
        raise ValueError(
            f"speaker_per is {speaker_per!r}; expected one of "
            f"{', '.join(SPEAKER_PER)}"
        )


def choose_speakers(catalogue: dict, names: list[str]) -> dict:
    """Take the named speakers from a catalogue.

    Arguments
    ---------
    catalogue : Speakers: name -> {language: Voice}.

    Returns
    -------
    The speakers taken.

    Raises
    ------
    ValueError
        If a name is not in the catalogue, or none is given.
    """
    unknown = [name for name in names if name not in catalogue]
    if unknown or not names:
        raise ValueError(
            f"speakers: found {list(names)}; expected one or more of "
            f"{', '.join(catalogue)}"
        )
    return {name: catalogue[name] for name in names}


def check_voices(tts, speakers: dict, languages: list[str]) -> None:
    """Refuse speakers who cannot speak a language.

    Arguments
    ---------
    tts : TextToSpeech
        The back-end.
    speakers : name -> {language: Voice}.

    Raises
    ------
    ValueError
        Names the speaker, and the language or the voice.
    """
    for name, voices in speakers.items():
        for language in languages:
            if language not in voices:
                raise ValueError(
                    f"speaker '{name}' has no voice for the language "
                    f"'{language}'; found {', '.join(voices)}. Add one to the "
                    "speaker's entry, or choose another speaker."
                )
            try:
                tts.check_voice(voices[language])
            except ValueError as error:
                raise ValueError(f"speaker '{name}': {error}") from error
