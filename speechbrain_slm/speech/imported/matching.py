"""Which sentences of a spoken corpus are good in every language."""

from collections import Counter, defaultdict

from speechbrain_slm.utils.ledger import ELSEWHERE, TOO_FEW, goes


def align(
    facts: list[dict], languages: list[str], max_ratio: float | None = None
) -> tuple[list[dict], list[dict]]:
    """Keep the sentences that are good in every language, numbered anew.

    Arguments
    ---------
    facts : All rows of some stories, with the fields of ``FACTS``.
    languages : Those that every sentence needs.
    max_ratio
        How many times as long as in another language a sentence may last.

    Returns
    -------
    list of dict
        Rows of a manifest, a story's languages one after the other.
    list of dict
        The ledger: an entry for each row that was dropped, in the numbers of
        the source, and one for each story that goes as a whole.
    """
    kept: list[dict] = []
    ledger: list[dict] = []
    stories: dict = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        stories[fact["story_id"]][fact["sentence"]].append(fact)

    def drop(row: dict, reason: str) -> None:
        entry = {"story_id": row["story_id"], "sentence": row["sentence"]}
        entry |= {"language": row["language"], "place": row["source"]}
        ledger.append({**entry, "action": "dropped", "reason": reason})

    for story in sorted(stories):
        whole, had = [], 0
        # Rows whose number cannot be read stand at None.
        order = sorted(stories[story], key=lambda n: -1 if n is None else n)
        for number in order:
            rows = stories[story][number]
            reasons = _reasons(rows, languages, max_ratio)
            # One of a language that is not wanted hurts no other.
            ours = [row["language"] in languages for row in rows]
            bad = any(
                why for why, own in zip(reasons, ours, strict=True) if own
            )
            good = any(ours) and not bad
            if good:
                whole.append({row["language"]: row for row in rows})
            had += any(ours)
            for row, reason, own in zip(rows, reasons, ours, strict=True):
                if not (good and own):
                    drop(row, reason or ELSEWHERE)
        if goes(had, len(whole)):
            for sentence in whole:
                for language in languages:
                    drop(sentence[language], TOO_FEW)
            whole = []
        if not whole:
            entry = {"story_id": story, "action": "dropped", "reason": TOO_FEW}
            ledger.append(entry)
        kept += [
            {**sentence[language], "sentence": number}
            for language in languages
            for number, sentence in enumerate(whole)
        ]
    return kept, ledger


def _reasons(
    rows: list[dict], languages: list[str], max_ratio: float | None
) -> list[str]:
    """Say of each row of a sentence why it goes; empty if it is good."""
    counts = Counter(row["language"] for row in rows)
    missing = ", ".join(name for name in languages if not counts[name])
    reasons = []
    for row in rows:
        reason, times = row["reason"], counts[row["language"]]
        if not reason and times > 1:
            reason = f"not alone: stands {times} times in '{row['language']}'"
        elif not reason and missing:
            reason = f"no row in {missing}"
        reasons.append(reason)
    wanted = [
        (row["num_samples"] / row["sample_rate"], row["language"])
        for row, reason in zip(rows, reasons, strict=True)
        if not reason
    ]
    if max_ratio and len(wanted) == len(languages):
        (short, one), (long, other) = min(wanted), max(wanted)
        if long > max_ratio * short:
            found = (
                f"lengths differ: {long:.2f} s in {other} and {short:.2f} s in "
                f"{one}; max_ratio is {max_ratio}"
            )
            reasons = [reason or found for reason in reasons]
    return reasons
