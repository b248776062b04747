"""The alignment of runs as a figure."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.evaluation.alignment.report import check_comparable, select
from speechbrain_slm.utils.atomic import atomic_path

# The stricter comparison is the solid line.
STYLES = {"different": "-", "same": "--"}


def draw_alignment(
    runs: dict, path: str | Path, languages: Sequence[str] | None = None
) -> None:
    """Draw the alignment of runs over the layers.

    Rows are measures and columns poolings; a run has a colour, a voice a line
    style. Bands are 95 % intervals.

    Arguments
    ---------
    runs : Name -> content of ``alignment.json``.
    languages : Source and target; by default the first two.

    Raises
    ------
    ValueError
        If the runs were not measured on the same pairs, or not on these
        languages.
    """
    # Not pyplot, which keeps figures and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_comparable(runs)
    chosen = {name: select(runs[name], languages) for name in runs}
    first = next(iter(chosen.values()))
    poolings = list(dict.fromkeys(record["pooling"] for record in first))
    voices = [v for v in STYLES if any(r["voice"] == v for r in first)]
    rows = _rows(first[0])
    figure = Figure(
        figsize=(1.2 + 3.2 * len(poolings), 1.6 + 2.2 * len(rows)),
        layout="constrained",
    )
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(rows), len(poolings), sharex=True, sharey="row", squeeze=False
    )
    for axes, (label, curve, baseline) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(label)
        for axis, pooling in zip(axes, poolings, strict=True):
            axis.grid(alpha=0.3)
            if isinstance(baseline, float):
                axis.axhline(baseline, color="0.5", linestyle=":")
            for number, records in enumerate(chosen.values()):
                for voice in voices:
                    points = [
                        record
                        for record in records
                        if (record["pooling"], record["voice"])
                        == (pooling, voice)
                    ]
                    points.sort(key=lambda record: record["layer"])
                    _draw(axis, points, curve, f"C{number}", STYLES[voice])
                    # Of one voice alone: those of both lie together.
                    if callable(baseline) and voice == voices[0]:
                        _draw(axis, points, baseline, f"C{number}", ":")
    for axis, pooling in zip(grid[0], poolings, strict=True):
        axis.set_title(_plain(f"pooling: {pooling}"))
    for axis in grid[-1]:
        axis.set_xlabel("layer (0: embeddings)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    _describe(figure, first, next(iter(runs.values())), list(runs), voices)
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)


def _plain(text):
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")


def _rows(record):
    """Return (label, curve, baseline) of each row of the figure.

    A curve gives value, low and high of a record. A baseline is a curve, a
    constant or None.
    """
    chance = record["retrieval_matched"]["chance"]

    def plain(name):
        return lambda r: (r[name], None, None)

    def bounded(name, nested=None):
        def values(record):
            inside = record[nested] if nested else record
            return tuple(
                inside[f"{name}{end}"] for end in ("", "_low", "_high")
            )

        return values

    direction = f"{record['source_language']} to {record['target_language']}"
    direction = _plain(direction)
    matched = "retrieval_matched"
    return [
        ("cosine", bounded("cosine"), plain("mismatched")),
        ("margin of cosines", bounded("margin"), None),
        (
            f"P@1, {direction}\n(share; matched gallery)",
            bounded("p1_forward", matched),
            chance,
        ),
        ("MEXA\n(share; matched gallery)", bounded("mexa", matched), None),
        ("linear CKA", plain("cka"), plain("cka_mismatched")),
    ]


def _draw(axis, points, curve, colour, style):
    layers = [record["layer"] for record in points]
    values, low, high = zip(*map(curve, points), strict=True)
    main = style != ":"
    axis.plot(
        layers,
        values,
        style,
        color=colour,
        linewidth=1.6 if main else 1.2,
        marker="." if main else None,
    )
    if low[0] is not None:
        axis.fill_between(layers, low, high, color=colour, alpha=0.12, lw=0)


def _describe(figure, records, results, names, voices):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=f"C{number}", linewidth=3, label=_plain(name))
        for number, name in enumerate(names)
    ]
    handles += [
        Line2D([], [], color="0.3", linestyle=STYLES[voice], label=label)
        for voice, label in (
            ("different", "translation by another voice"),
            ("same", "translation by the same voice"),
        )
        if voice in voices
    ]
    label = "mismatch of its length and voice; grey: chance"
    handles += [Line2D([], [], color="0.3", linestyle=":", label=label)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    one = records[0]
    figure.suptitle(
        _plain(
            f"Alignment of {one['source_language']} and "
            f"{one['target_language']}: "
        )
        + f"{one['n']} pairs a curve (level: {results['level']}), galleries of "
        f"{results['gallery']}; bands: 95 %",
        fontsize="medium",
    )
