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
    stories, kept, ledger = defaultdict(lambda: defaultdict(list)), [], []
    for fact in facts:
        stories[fact["story_id"]][fact["sentence"]].append(fact)
    for story in sorted(stories):
        whole, had = [], 0
        order = sorted(stories[story], key=lambda n: -1 if n is None else n)
        for number in order:
            rows = stories[story][number]
            reasons = _reasons(rows, languages, max_ratio)
            # Of a language that is not wanted: that hurts no other.
            others = [row for row in rows if row["language"] not in languages]
            had += len(others) < len(rows)
            if len(others) < len(rows) and sum(map(bool, reasons)) == len(
                others
            ):
                whole.append({row["language"]: row for row in rows})
                rows, reasons = others, [row["reason"] for row in others]
            ledger += [
                _entry(story, row, reason or ELSEWHERE)
                for row, reason in zip(rows, reasons, strict=True)
            ]
        if goes(had, len(whole)):
            ledger += [
                _entry(story, sentence[language], TOO_FEW)
                for sentence in whole
                for language in languages
            ]
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


def _entry(story, row, reason):
    return {
        "story_id": story,
        "sentence": row["sentence"],
        "language": row["language"],
        "place": row["source"],
        "action": "dropped",
        "reason": reason,
    }


def _reasons(rows, languages, max_ratio):
    """Say of each row of a sentence why it goes; empty if it is good."""
    counts = Counter(row["language"] for row in rows)
    missing = [name for name in languages if not counts[name]]
    reasons = []
    for row in rows:
        reason = row["reason"]
        if not reason and counts[row["language"]] > 1:
            reason = (
                f"not alone: stands {counts[row['language']]} times in "
                f"'{row['language']}'"
            )
        if not reason and missing:
            reason = f"no row in {', '.join(missing)}"
        reasons.append(reason)
    wanted = [row for row in rows if row["language"] in languages]
    spoken = {row["language"]: _seconds(row) for row in wanted}
    good = not any(
        reason
        for row, reason in zip(rows, reasons, strict=True)
        if row["language"] in languages
    )
    if max_ratio and wanted and good:
        shortest = min(spoken, key=spoken.get)
        longest = max(spoken, key=spoken.get)
        if spoken[longest] > max_ratio * spoken[shortest]:
            found = (
                f"lengths differ: {spoken[longest]:.2f} s in {longest} and "
                f"{spoken[shortest]:.2f} s in {shortest}; max_ratio is "
                f"{max_ratio}"
            )
            reasons = [reason or found for reason in reasons]
    return reasons


def _seconds(row):
    # 0 where the row is bad, or nobody asks.
    return row.get("num_samples", 0) / (row.get("sample_rate") or 1)
