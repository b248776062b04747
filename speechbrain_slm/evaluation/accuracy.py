"""From the scores of items to accuracies with intervals."""

from speechbrain_slm.evaluation.likelihood import CONVENTIONS
from speechbrain_slm.evaluation.statistics import wilson_interval

# Percent; of two endings a coin picks one.
CHANCE = 50.0


def direction_of(prompt_language, ending_language):
    """Name a direction: ``en``, or ``en>fr`` for a prompt in English.

    Arguments
    ---------
    prompt_language : str
        The prompt's language.
    ending_language : str
        The endings' language.

    Returns
    -------
    str
        The name.
    """
    if prompt_language == ending_language:
        return prompt_language
    return f"{prompt_language}>{ending_language}"


def summarise(scores):
    """Turn the scores of items into accuracies.

    Arguments
    ---------
    scores : pyarrow.Table
        What :func:`score_items` returns.

    Returns
    -------
    list of dict
        One record a metric, direction and convention (``metric``,
        ``direction``, ``scoring``, ``n``, ``ties``, ``accuracy``, ``ci_low``,
        ``ci_high``, ``chance``; percent), monolingual directions first.
    list of dict
        The same over all cross-lingual directions (``cross_lingual``). An
        item's credit is the mean over its directions, and ``n`` counts the
        items once, because the directions of an item are not independent.
    """
    groups, crossed = {}, {}
    for row in scores.to_pylist():
        languages = row["prompt_language"], row["ending_language"]
        cross = languages[0] != languages[1]
        key = (row["benchmark"], cross, direction_of(*languages))
        groups.setdefault(key, []).append(row)
        if cross:
            credits = crossed.setdefault(row["benchmark"], {})
            credits.setdefault(row["item_id"], []).append(row)
    records = [
        _record(metric, direction, convention, [[row] for row in rows])
        for (metric, _, direction), rows in sorted(groups.items())
        for convention in CONVENTIONS
    ]
    means = [
        _record(metric, "cross_lingual", convention, list(items.values()))
        for metric, items in sorted(crossed.items())
        for convention in CONVENTIONS
    ]
    return records, means


def _record(metric, direction, convention, items):
    credits = [
        sum(row[convention] for row in rows) / len(rows) for rows in items
    ]
    low, high = wilson_interval(sum(credits), len(credits))
    return {
        "metric": metric,
        "direction": direction,
        "scoring": convention,
        "n": len(credits),
        "ties": sum(row[convention] == 0.5 for rows in items for row in rows),
        "accuracy": 100 * sum(credits) / len(credits),
        "ci_low": 100 * low,
        "ci_high": 100 * high,
        "chance": CHANCE,
    }


def results_table(results):
    """Lay out the accuracies under the main convention for a log.

    Arguments
    ---------
    results : dict
        What :func:`evaluate_cloze` returns.

    Returns
    -------
    str
        One line a metric and direction.
    """
    lines = [
        f"{'metric':8}{'direction':15}{'n':>6}{'accuracy':>10}  "
        f"95 % interval  ({results['scoring']}, chance {CHANCE:.0f})"
    ]
    lines += [
        f"{record['metric']:8}{record['direction']:15}{record['n']:6}"
        f"{record['accuracy']:10.2f}  "
        f"[{record['ci_low']:.2f}, {record['ci_high']:.2f}]"
        for record in [*results["records"], *results["cross_lingual"]]
        if record["scoring"] == results["scoring"]
    ]
    return "\n".join(lines)
