"""Speakers: one voice a language, paired so that a story keeps its teller."""

import pyarrow.compute as pc

from speechbrain_slm.utils.hashing import identity_of


def draw_speaker(seed, story_id, speakers):
    """Draw the speaker who tells a story.

    Arguments
    ---------
    seed : int
        Another seed draws others.
    story_id : str
        The story.
    speakers : iterable of str
        Their names; the order does not count.

    Returns
    -------
    str
        A pure function of the arguments.

    Example
    -------
    >>> draw_speaker(1, "train-000001", ["ann", "ben"]) in ("ann", "ben")
    True
    """
    names = sorted(speakers)
    return names[int(identity_of([seed, story_id]), 16) % len(names)]


def choose_speakers(catalogue, names):
    """Take the named speakers from a catalogue.

    Arguments
    ---------
    catalogue : dict
        Speakers: name -> {language: Voice}.
    names : list of str
        Those to take.

    Returns
    -------
    dict
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


def check_voices(tts, speakers, languages):
    """Refuse speakers who cannot speak a language.

    Arguments
    ---------
    tts : TextToSpeech
        The back-end.
    speakers : dict
        name -> {language: Voice}.
    languages : list of str
        What each must speak.

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


def check_speakers(path, table, speakers):
    """Refuse stories that someone unknown tells, or more than one speaker.

    Arguments
    ---------
    path : str or Path
        Named in the error.
    table : pyarrow.Table
        Columns ``story_id`` and ``speaker``.
    speakers : iterable of str
        Who may tell a story.

    Raises
    ------
    ValueError
        Names the speaker, or the story.
    """
    unknown = set(pc.unique(table["speaker"]).to_pylist()) - set(speakers)
    if unknown:
        raise ValueError(
            f"{path}: unknown speaker(s) {', '.join(map(repr, unknown))}; "
            f"expected one of {', '.join(speakers)}"
        )
    told = table.group_by("story_id").aggregate([("speaker", "count_distinct")])
    several = told.filter(pc.greater(told["speaker_count_distinct"], 1))
    if len(several):
        raise ValueError(
            f"{path}: story '{several['story_id'][0]}' has more than one "
            "speaker; expected one from its first sentence to its last"
        )
