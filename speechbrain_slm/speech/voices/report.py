"""The speaker check as a table, a figure and a JSON file."""

from pathlib import Path

import numpy as np

from speechbrain_slm.utils.atomic import atomic_path, write_atomic, write_json
from speechbrain_slm.utils.tables import markdown_row


def write_report(
    folder: str | Path, rows: list[dict], settings: dict
) -> list[str]:
    """Write ``voices.json``, ``voices.md`` and ``voices.png``.

    Arguments
    ---------
    rows : From :func:`speechbrain_slm.speech.voices.check.compare_voices`.
    settings
        What the numbers depend on: ``encoder``, ``compare``, ``threshold``,
        ``languages``, ``utterances``, ``seed``.

    Returns
    -------
    The speakers kept, by name.
    """
    folder = Path(folder)
    kept = sorted(row["speaker"] for row in rows if row["kept"])
    content = {"settings": settings, "kept": kept, "voices": rows}
    write_json(folder / "voices.json", content)
    write_atomic(folder / "voices.md", voices_table(rows, settings))
    _draw(folder / "voices.png", rows, settings)
    return kept


def voices_table(rows: list[dict], settings: dict) -> str:
    """Format the check as Markdown; see :func:`write_report`."""
    heads = "speaker|utterances|cosine, own languages|other speakers"
    table = [[*heads.split("|"), "nearest other", "kept"], ["---"] * 6]
    for row in rows:
        counts = ", ".join(f"{k} {n}" for k, n in row["utterances"].items())
        own, others, other = (
            "-" if row[name] is None else f"{row[name]:.3f}"
            for name in ("cosine", "others", "nearest_cosine")
        )
        nearest = f"{row['nearest']} ({other})" if row["nearest"] else "-"
        verdict = "yes" if row["kept"] else f"no: {row['reason']}"
        table.append([row["speaker"], counts, own, others, nearest, verdict])
    kept = sum(row["kept"] for row in rows)
    told = (
        f"{kept} of {len(rows)} speakers reach {settings['threshold']}; cosine "
        f"across {', '.join(settings['languages'])} of {settings['compare']}, "
        f"encoder {settings['encoder']}."
    )
    return "\n".join([*map(markdown_row, table), "", told, ""])


def _draw(path: Path, rows: list[dict], settings: dict) -> None:
    # Not pyplot: it would keep figures, and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((6, 1.2 + 0.3 * len(rows)), layout="constrained")
    axis = figure.add_subplot()
    for label, name, marker in (
        ("own languages (worst pair)", "cosine", "o"),
        ("nearest other speaker", "nearest_cosine", "x"),
        ("other speakers (mean)", "others", "|"),
    ):
        # What there is none of, None, is NaN, which is not drawn.
        values = [np.nan if row[name] is None else row[name] for row in rows]
        axis.plot(values, range(len(rows)), marker, label=label)
    axis.axvline(
        settings["threshold"], color="0.4", linestyle="--", label="threshold"
    )
    axis.set_yticks(range(len(rows)), [row["speaker"] for row in rows])
    axis.set_xlabel(f"cosine across languages (of {settings['compare']})")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
