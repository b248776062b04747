"""Endings that are off a story's topic: the negatives of sTC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_slm.utils.hashing import identity_of

if TYPE_CHECKING:
    from speechbrain_slm.benchmarks.cloze_texts import ClozeItem

# Words that two stories may share without being about the same things.
STOP_WORDS = {
    "de": """aber alle allen alles als also am an auch auf aus bei bis da dann
        das dass dein dem den der des die dies diese dieser doch dort du durch
        ein eine einem einen einer er es für ganz hab habe haben hat hatte
        hatten her hier hin ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in
        ist ja jede jeden jeder jetzt kein keine konnte konnten man mehr mein
        mit musste nach nicht noch nun nur ob oder ohne schon sehr sein seine
        seinem seinen seiner sich sie sind so soll sollte über um und uns
        unter viel vom von vor war waren was weil wenn wer wie wieder wir wird
        wo wollte wollten wurde wurden zu zum zur""",
    "en": """a about after again all also always am an and any are as at away
        back be because been before being both but by can cannot could day did
        do does done down each even every everyone first for from get go got
        had has have he her here him himself herself his how i if in into is
        it its just last let like little long made make many me more most much
        my never new next no not nothing now of off on once one only or other
        our out over own put s said same saw see she so some soon still such t
        take than that the their them themselves then there these they thing
        this those three through time to together told too took two until up
        us very wanted was way we well went were what when where which while
        who whole why will with without would you your""",
    "es": """a al algo algunos ante antes así aún aunque cada casi como con
        cual cuando de del desde después día dijo donde dos e el él ella ellas
        ellos en entonces era eran es esa ese eso esta estaba estaban este
        esto fue fueron ha había habían hacer han hasta hay hizo la las le les
        lo los luego más me mi mientras mucho muy nada ni no nos nunca o otra
        otro otros para pero podía poco por porque primera primero pudo que
        qué quería se sea ser si sí siempre sin sobre solo su sus también tan
        tanto te tenía tenían tiempo toda todas todo todos tras tu tuvo un una
        unas uno unos vez y ya yo""",
    "fr": """a ai alors après as au aucun aucune aussi autre autres aux avaient
        avait avant avec avoir beaucoup bien bientôt c ce cela celle celui ces
        cet cette ceux chaque chez comme comment d dans de déjà depuis dernier
        dernière des desquels deux devant dit donc dont du elle elles en encore
        enfin entre es est et étaient était été être eu eux fait faire fois
        font il ils j jamais je jour jusqu jusque l la là le les leur leurs lui
        m ma mais me même mes moi moins mon n ne ni nos notre nous on ont ou où
        par parce pas pendant petit petite peu peut plus pour pourquoi
        pouvaient pouvait premier première près presque pris puis qu quand que
        quel quelle quelque quelques qui quoi rien s sa sans se ses si soi son
        sont sous sur t ta te tes toi ton toujours tous tout toute toutes très
        trois trop tu un une va vers voir voulait voulaient vous vu y""",
    "it": """a ad agli ai al alla alle allo anche ancora avanti aveva avevano
        bene c che chi ci come con così cui da dagli dal dalla dalle dei del
        della delle dello di disse dopo dove due e è ed era erano essere fa
        fare fatto fino fu gli ha hanno i il in io la le lei lo loro lui ma
        mai me mentre mi mia mio molto ne nei nel nella nelle no noi non nulla
        o ogni ora per perché più poco poi poteva prima quando quella quello
        questa questo qui sempre senza si sì solo sono sopra stata stato su sua
        sue sugli sul sulla suo suoi tanto te tra troppo tu tutta tutte tutti
        tutto un una uno va verso volta voleva""",
}
_STOP_WORDS = {name: set(words.split()) for name, words in STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
# Letters that tell a word: plant is planted and plantes. Words that are only
# alike count as one, too, which costs a candidate and never lets a hint pass.
_STEM = 5
# All nouns have one.
_CAPITALS = {"de"}


def topic_words(sentences: Iterable[str], language: str) -> set[str]:
    """Collect what some sentences are about: content words and names.

    The words are in small letters and cut after five, the names as they are.
    Inflected forms are the same word if their first five letters are
    (*plant*, *planted*, *plantes*). A name is a word with a capital that does
    not begin its sentence; it counts even where it is spelled like a stop
    word (*Will*).

    Example
    -------
    >>> sorted(topic_words(["Then Will planted an oak."], "en"))
    ['Will', 'oak', 'plant']
    """
    found = set()
    for sentence in sentences:
        words = _WORD.findall(sentence)
        for number, word in enumerate(words):
            capital = number and len(word) > 1 and word[0].isupper()
            if word.lower() not in _STOP_WORDS[language]:
                found.add(word.lower()[:_STEM])
            elif capital and language not in _CAPITALS:
                found.add(word)
    return found


def draw_topics(
    items: Sequence[ClozeItem], languages: Sequence[str], seed: int
) -> list[int | None]:
    """Draw for each item another one whose right ending is off its topic.

    Returns
    -------
    For each item the index of one whose right ending shares no name and
    no content word with the item's prompt and its right ending, in any of
    the languages that have stop words; None where there is no such one.
    """
    compared = [name for name in languages if name in _STOP_WORDS]
    if not compared:
        raise ValueError(
            f"languages: found {', '.join(languages)}, without stop words; "
            f"expected some of {', '.join(_STOP_WORDS)}. Add one, or its stop "
            "words to STOP_WORDS in speechbrain_slm/benchmarks/topics.py."
        )

    def words(texts):
        # The same spelling in two languages need not be one word.
        return {
            (language, word)
            for language in compared
            for word in topic_words(texts[language], language)
        }

    endings = [
        words({key: [text] for key, text in item.right.items()})
        for item in items
    ]
    stories = [
        words(item.prompt) | ending
        for item, ending in zip(items, endings, strict=True)
    ]
    digest = identity_of([seed, "off-topic endings"])
    rng = np.random.default_rng(int(digest, 16))
    order = rng.permutation(len(items))
    drawn = []
    for story in stories:
        # A walk through all items from a random place: every one that would do
        # can be drawn, and few are compared before one is found.
        walk = np.roll(order, rng.integers(len(items)))
        free = (int(i) for i in walk if not endings[i] & story)
        drawn.append(next(free, None))
    return drawn
