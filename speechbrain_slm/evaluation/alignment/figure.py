"""The alignment of runs as a figure."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.evaluation.alignment.report import check_comparable, select
from speechbrain_slm.utils.atomic import atomic_path

# The stricter comparison is the solid line.
STYLES = {"different": "-", "same": "--"}
# (label, its key in a record, the key of its baseline); where there is no such
# key, the matched galleries have it.
ROWS = (
    ("cosine", "cosine", "mismatched"),
    ("margin of cosines", "margin", None),
    ("P@1, {}\n(share; matched gallery)", "p1_forward", "chance"),
    ("MEXA\n(share; matched gallery)", "mexa", None),
    ("linear CKA", "cka", "cka_mismatched"),
)


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
    pair = [first[0][f"{side}_language"] for side in ("source", "target")]
    size = (1.2 + 3.2 * len(poolings), 1.6 + 2.2 * len(ROWS))
    figure = Figure(size, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(ROWS), len(poolings), sharex=True, sharey="row", squeeze=False
    )
    for axes, (label, key, baseline) in zip(grid, ROWS, strict=True):
        axes[0].set_ylabel(label.format(_plain(" to ".join(pair))))
        for axis, pooling in zip(axes, poolings, strict=True):
            axis.grid(alpha=0.3)
            if baseline == "chance":
                chance = _values(first[0], baseline)[0]
                axis.axhline(chance, color="0.5", linestyle=":")
            for number, records in enumerate(chosen.values()):
                own = [r for r in records if r["pooling"] == pooling]
                _draw_run(axis, own, voices, key, baseline, f"C{number}")
    for axis, pooling in zip(grid[0], poolings, strict=True):
        axis.set_title(_plain(f"pooling: {pooling}"))
    for axis in grid[-1]:
        axis.set_xlabel("layer (0: embeddings)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    _draw_legend(figure, list(runs), voices)
    what = next(iter(runs.values()))
    figure.suptitle(
        f"Alignment of {_plain(' and '.join(pair))}: {first[0]['n']} pairs a "
        f"curve (level: {what['level']}), galleries of {what['gallery']}; "
        "bands: 95 %",
        fontsize="medium",
    )
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")


def _values(record: dict, key: str) -> list[float | None]:
    """Return a value, and its low and high where it has them."""
    found = record if key in record else record["retrieval_matched"]
    return [found.get(f"{key}{end}") for end in ("", "_low", "_high")]


def _draw_run(axis, records, voices, key, baseline, colour):
    records = sorted(records, key=lambda record: record["layer"])
    for voice in voices:
        points = [record for record in records if record["voice"] == voice]
        layers = [record["layer"] for record in points]
        values, low, high = zip(*(_values(r, key) for r in points), strict=True)
        how = {"color": colour, "linewidth": 1.6, "marker": "."}
        axis.plot(layers, values, STYLES[voice], **how)
        if low[0] is not None:
            axis.fill_between(layers, low, high, color=colour, alpha=0.12, lw=0)
        # Of one voice alone: those of both lie together.
        if baseline in points[0] and voice == voices[0]:
            values = [record[baseline] for record in points]
            axis.plot(layers, values, ":", color=colour, linewidth=1.2)


def _draw_legend(figure, names, voices):
    from matplotlib.lines import Line2D

    told = {"different": "another voice", "same": "the same voice"}
    labels = {
        STYLES[v]: f"translation by {told[v]}" for v in told if v in voices
    }
    labels[":"] = "mismatch of its length and voice; grey: chance"
    lines = [
        Line2D([], [], color=f"C{number}", linewidth=3, label=_plain(name))
        for number, name in enumerate(names)
    ]
    lines += [
        Line2D([], [], color="0.3", linestyle=style, label=label)
        for style, label in labels.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2)
