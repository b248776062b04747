"""Alignment by layer, learning curves and scaling, as tables."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from results_cells import (
    BASE,
    COMPARED,
    METRICS,
    SCORING,
    SETS,
    TUNED,
    by_set,
    common_seeds,
    difference_text,
    differences,
    heading,
    missing,
    shown,
    spread,
    table,
)
from results_files import ENDS, MONOLINGUAL, Results, deviation

from speechbrain_slm.evaluation.cloze.accuracy import CROSS_LINGUAL

POOLING, VOICE = "mean", "different"
MEASURES = {"margin": "margin of cosines", "p1": "P@1"}
MILLION = 1e6


class Point(NamedTuple):
    """A value at a place, and its 95 % interval."""

    x: float  # million tokens
    value: float
    low: float
    high: float


def aligned(model: dict, layer: int, measure: str) -> tuple[float, ...] | None:
    """Return a measure of a layer, and its interval's ends.

    P@1 is the mean of both ways; pairs are of different voices.
    """
    keys = ("p1_forward", "p1_backward") if measure == "p1" else (measure,)
    for one in model["alignment"]:
        what = one["layer"], one["voice"], one["pooling"]
        if what == (layer, VOICE, POOLING):
            return tuple(fmean(one[k + end] for k in keys) for end in ENDS)
    return None


def layers_of(results: Results, units: str, run: str) -> list[int]:
    """List the layers whose alignment is known."""
    return sorted(
        {
            one["layer"]
            for model in results.models(units, run)
            for one in model["alignment"]
            if (one["voice"], one["pooling"]) == (VOICE, POOLING)
        }
    )


def alignment_table(results: Results) -> str:
    """Draw margin and P@1 of each layer, mean over seeds."""
    runs = BASE, *COMPARED, "shuffled"
    header = ["layer"]
    header += [f"{MEASURES[m]}, `{run}`" for m in MEASURES for run in runs]

    def draw(units):
        layers = {n for run in runs for n in layers_of(results, units, run)}
        rows = [
            [
                str(layer),
                *(
                    _over_seeds(results, units, run, layer, measure)
                    for measure in MEASURES
                    for run in runs
                ),
            ]
            for layer in sorted(layers)
        ]
        return table(header, rows)

    return by_set(results, draw)


def _over_seeds(results, units, run, layer, measure):
    found = _aligned_seeds(results, units, run, layer, measure)
    values = [one[0] for one in found]
    return spread(fmean(values), deviation(values), ".3f") if values else "-"


def _aligned_seeds(results, units, run, layer, measure, step=None, seeds=None):
    models = results.models(units, run, step, seeds)
    found = [aligned(model, layer, measure) for model in models]
    return [one for one in found if one]


def best_layer(results: Results, units: str) -> int | None:
    """Return the layer where P@1 of the interleaved run ends highest."""
    run = COMPARED[0]
    scores = {
        layer: fmean(one[0] for one in found)
        for layer in layers_of(results, units, run)
        if (found := _aligned_seeds(results, units, run, layer, "p1"))
    }
    return max(scores, key=lambda layer: scores[layer], default=None)


def curves(
    results: Results, units: str, runs: Sequence[str]
) -> dict[str, dict[str, list[Point]]]:
    """Return what is followed -> run -> its points, the last model's too."""
    layer = best_layer(results, units)
    followed: dict[str, Callable] = {
        heading(metric, direction): _scores(results, units, metric, direction)
        for direction in (CROSS_LINGUAL, MONOLINGUAL)
        for metric in METRICS
    }
    for measure, name in MEASURES.items():
        if layer is not None:
            name = f"{name}, layer {layer}"
            followed[name] = alignments(results, units, layer, measure)
    found: dict[str, dict[str, list[Point]]] = {}
    for name, point in followed.items():
        for run in runs:
            steps = results.steps(units, run)
            seeds = followed_seeds(results, units, run)
            points = [
                point(run, step, seeds) for step in [*steps, None] if steps
            ]
            # The last model is a snapshot's once more where steps end there.
            unique = {one.x: one for one in points if one}
            if unique:
                found.setdefault(name, {})[run] = [
                    unique[x] for x in sorted(unique)
                ]
    return found


def followed_seeds(results: Results, units: str, run: str) -> frozenset[int]:
    """Return the seeds with all snapshots: a curve is of the same models."""
    steps = results.steps(units, run)
    found = [results.seeds(units, run, step) for step in [*steps, None]]
    return frozenset.intersection(*found)


def _scores(results, units, metric, direction):
    def point(run, step, seeds=None):
        cell = results.cell(units, run, metric, direction, SCORING, step, seeds)
        if cell is None:
            return None
        x = _tokens(results.models(units, run, step, seeds))
        return Point(x, cell.accuracy, cell.low, cell.high)

    return point


def alignments(
    results: Results, units: str, layer: int, measure: str
) -> Callable[..., Point | None]:
    """Return what finds the alignment of a run at a step, in one layer."""

    def point(run, step, seeds=None):
        what = layer, measure, step, seeds
        found = _aligned_seeds(results, units, run, *what)
        if not found:
            return None
        x = _tokens(results.models(units, run, step, seeds))
        return Point(x, *map(fmean, zip(*found, strict=True)))

    return point


def _tokens(models):
    return models[0]["tokens"] / MILLION if models else 0.0


def parting(one: list[Point], other: list[Point]) -> float | None:
    """Say where two curves part: million tokens, or None.

    The first of the points both have from which on, to the last of them, the
    intervals of ``one`` lie above those of ``other``.

    Example
    -------
    >>> flat = [Point(x, 50, 48, 52) for x in (1, 2, 3)]
    >>> parting([Point(x, 50 * x, 49 * x, 51 * x) for x in (1, 2, 3)], flat)
    2
    """
    below = {point.x: point for point in other}
    found = None
    for point in reversed([point for point in one if point.x in below]):
        if point.low <= below[point.x].high:
            break
        found = point.x
    return found


def curve_table(results: Results, runs: Sequence[str]) -> str:
    """Draw the points of all curves, and where they part from the baseline."""

    def draw(units):
        found = curves(results, units, runs)
        header = ["run", "M tokens", "seeds", *found]
        rows = []
        for run in runs:
            points = {
                name: {p.x: p for p in by_run.get(run, [])}
                for name, by_run in found.items()
            }
            for x in sorted({x for one in points.values() for x in one}):
                cells = [one.get(x) for one in points.values()]
                seeds = len(followed_seeds(results, units, run))
                texts = [
                    _point_text(name, p)
                    for name, p in zip(points, cells, strict=True)
                ]
                own = [f"`{run}`", f"{x:.2f}", str(seeds)]
                rows.append(own + texts)
        gone = [run for run in runs if not results.steps(units, run)]
        note = f"No snapshots of {', '.join(gone)}."
        if not rows:
            return note
        note = f"\n\n{note}" if gone else ""
        # Without snapshots a run has one point: it cannot be said to part.
        told = [run for run in runs if run not in gone]
        return table(header, rows) + note + _partings(found, told)

    return by_set(results, draw)


def _point_text(name, point):
    if point is None:
        return "-"
    form = ".3f" if name.startswith(tuple(MEASURES.values())) else ".1f"
    return f"{point.value:{form}} [{point.low:{form}}, {point.high:{form}}]"


def _partings(found, runs):
    """Say at how many tokens each run parts from the baseline, in what."""
    others = [run for run in runs if run != BASE]
    if BASE not in runs or not others:
        return ""
    where = {
        name: [parting(by_run.get(r, []), by_run.get(BASE, [])) for r in others]
        for name, by_run in found.items()
    }
    rows = [
        [name, *("never" if x is None else f"{x:.2f}" for x in ones)]
        for name, ones in where.items()
    ]
    scores = heading(METRICS[0], CROSS_LINGUAL)
    for name, ones in where.items():
        if name.startswith(tuple(MEASURES.values())) and scores in where:
            pairs = zip(ones, where[scores], strict=True)
            rows.append([f"{name}, against {scores}", *map(_order, pairs)])
    header = ["above the baseline from", *(f"`{r}`, M tokens" for r in others)]
    return f"\n\n{table(header, rows)}"


def _order(pair):
    alignment, accuracy = pair
    if alignment is None:
        alone = accuracy is not None
        return "accuracy alone parts" if alone else "neither parts"
    if accuracy is None:
        return "alignment alone parts"
    if alignment == accuracy:
        return "at the same point"
    return "leads" if alignment < accuracy else "follows"


def scaling_table(results: Results) -> str:
    """Draw sizes and budgets, two runs of each; one of them is the main one."""
    crossing = [(metric, CROSS_LINGUAL) for metric in METRICS]
    own = [(metric, MONOLINGUAL) for metric in METRICS]
    header = ["parameters", "M tokens", "seeds"]
    for column in (*crossing, *own):
        header += [f"{heading(*column)}, `{run}`" for run in (BASE, TUNED)]
        header.append("difference")

    def draw(units):
        runs = results.runs(units)
        names = {
            run.removeprefix(base)
            for base in (BASE, TUNED)
            for run in runs
            if run == base or run.startswith(f"{base}-")
        }
        rows = [_scaled(results, units, n, (*crossing, *own)) for n in names]
        texts = [
            [f"{size / MILLION:.2f} M", f"{tokens / MILLION:.2f}", *cells]
            for size, tokens, cells in sorted(rows)
        ]
        return table(header, texts) + missing(results, units, "scaling")

    others = (units for units, kind in results.expected if kind == "scaling")
    return by_set(results, draw, dict.fromkeys([*SETS, *others]))


def _scaled(results, units, name, columns):
    """Return parameters, tokens and cells of both runs of a size."""
    runs = [f"{run}{name}" for run in (BASE, TUNED)]
    models = [results.models(units, run) for run in runs]
    common = common_seeds(results, units, *runs)
    cells = [str(len(common))]
    found = differences(results, units, runs[0], runs[1:], columns)
    gains = {(one["metric"], one["direction"]): one for one in found}
    for column in columns:
        both = (
            results.cell(units, run, *column, SCORING, seeds=common or None)
            for run in runs
        )
        gain = gains.get(column)
        cells += [*map(shown, both), difference_text(gain) if gain else "-"]
    first = next(filter(None, models))[0]
    return first["parameters"], first["tokens"], cells
