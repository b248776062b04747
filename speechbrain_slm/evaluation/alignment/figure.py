"""The alignment of runs as a figure."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from speechbrain_slm.evaluation.alignment.report import check_comparable, select
from speechbrain_slm.utils.atomic import atomic_path

# The stricter comparison is the solid line.
STYLES = {"different": "-", "same": "--"}
MATCHED = "retrieval_matched"


def draw_alignment(
    runs: dict[str, dict],
    path: str | Path,
    languages: Sequence[str] | None = None,
) -> None:
    """Draw the alignment of runs (name -> content) over the layers.

    Rows are measures and columns poolings; a run has a colour, a voice a line
    style. Bands are 95 % intervals. ``languages`` are source and target.
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
                own = [r for r in records if r["pooling"] == pooling]
                _draw_run(axis, own, voices, curve, baseline, f"C{number}")
    for axis, pooling in zip(grid[0], poolings, strict=True):
        axis.set_title(_plain(f"pooling: {pooling}"))
    for axis in grid[-1]:
        axis.set_xlabel("layer (0: embeddings)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    _describe(figure, first[0], next(iter(runs.values())), list(runs), voices)
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")


Curve = Callable[[dict], tuple]


def _rows(record: dict) -> list[tuple[str, Curve, Curve | float | None]]:
    """Return (label, curve, baseline) of each row of the figure.

    A curve gives value, low and high of a record. A baseline is a curve, a
    constant or None.
    """

    def plain(name, record):
        return record[name], None, None

    def bounded(name, record):
        return tuple(record[f"{name}{end}"] for end in ("", "_low", "_high"))

    def matched(name, record):
        return bounded(name, record[MATCHED])

    direction = f"{record['source_language']} to {record['target_language']}"
    return [
        ("cosine", partial(bounded, "cosine"), partial(plain, "mismatched")),
        ("margin of cosines", partial(bounded, "margin"), None),
        (
            f"P@1, {_plain(direction)}\n(share; matched gallery)",
            partial(matched, "p1_forward"),
            record[MATCHED]["chance"],
        ),
        ("MEXA\n(share; matched gallery)", partial(matched, "mexa"), None),
        ("linear CKA", partial(plain, "cka"), partial(plain, "cka_mismatched")),
    ]


def _draw_run(axis, records, voices, curve, baseline, colour):
    for voice in voices:
        points = [record for record in records if record["voice"] == voice]
        points.sort(key=lambda record: record["layer"])
        layers = [record["layer"] for record in points]
        values, low, high = zip(*map(curve, points), strict=True)
        how = {"color": colour, "linewidth": 1.6, "marker": "."}
        axis.plot(layers, values, STYLES[voice], **how)
        if low[0] is not None:
            axis.fill_between(layers, low, high, color=colour, alpha=0.12, lw=0)
        # Of one voice alone: those of both lie together.
        if callable(baseline) and voice == voices[0]:
            values = [baseline(record)[0] for record in points]
            axis.plot(layers, values, ":", color=colour, linewidth=1.2)


def _describe(figure, record, results, names, voices):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=f"C{number}", linewidth=3, label=_plain(name))
        for number, name in enumerate(names)
    ]
    labels = {
        STYLES[voice]: f"translation by {whose} voice"
        for voice, whose in (("different", "another"), ("same", "the same"))
        if voice in voices
    }
    labels[":"] = "mismatch of its length and voice; grey: chance"
    handles += [
        Line2D([], [], color="0.3", linestyle=style, label=label)
        for style, label in labels.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    pair = f"{record['source_language']} and {record['target_language']}"
    figure.suptitle(
        f"{_plain(f'Alignment of {pair}: ')}{record['n']} pairs a curve "
        f"(level: {results['level']}), galleries of {results['gallery']}; "
        "bands: 95 %",
        fontsize="medium",
    )
