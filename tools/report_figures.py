"""What a page needs to draw: axes, curves and intervals in an SVG's units."""

from dataclasses import dataclass, field
from math import floor, isfinite, log10
from statistics import fmean

WIDTH, HEIGHT = 360, 220  # of a chart
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 10, 40
STRIP = 180  # width of an interval plot
BINS = 120  # points of a training curve, at most
MARKS = 6  # on a curve, about; all of them where there are few points


@dataclass(frozen=True)
class Curve:
    """One run in a chart; ``index`` says which colour, dash and mark."""

    name: str
    index: int
    points: list[tuple[float, float]]
    band: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def words(self) -> str:
        """Say where it begins and ends."""
        (first, begin), (last, end) = self.points[0], self.points[-1]
        return f"{self.name}: {begin:.3g} at {first:g}, {end:.3g} at {last:g}"

    @property
    def marked(self) -> list[tuple[float, float]]:
        """Return the points that get a mark, the last one among them."""
        step = max(1, round(len(self.points) / MARKS))
        return self.points[::-step] if step > 2 else self.points


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis."""

    title: str
    across: str  # what the horizontal axis counts
    curves: list[Curve]  # each of one point or more
    line: float | None = None  # where chance lies

    @property
    def xs(self) -> list[float]:
        """Return the ticks of the horizontal axis."""
        return ticks([x for curve in self.curves for x, _ in curve.points])

    @property
    def ys(self) -> list[float]:
        """Return the ticks of the vertical axis."""
        ys = [y for curve in self.curves for _, y in curve.points]
        ys += [
            y for curve in self.curves for one in curve.band for y in one[1:]
        ]
        return ticks([*ys, *([] if self.line is None else [self.line])])

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Say where a point lies on the page."""
        xs, ys = self.xs, self.ys
        across = (x - xs[0]) / (xs[-1] - xs[0])
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    def path(self, points: list[tuple[float, float]]) -> str:
        """Write points as SVG's ``points``."""
        return " ".join("{},{}".format(*self.place(*p)) for p in points)

    def around(self, curve: Curve) -> str:
        """Write the outline of a curve's band."""
        low = [(x, low) for x, low, _ in curve.band]
        return self.path(low + [(x, high) for x, _, high in curve.band[::-1]])


@dataclass(frozen=True)
class Strip:
    """The scale of small interval plots, in percent."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Say where a value lies."""
        return round(STRIP * (value - self.low) / (self.high - self.low), 1)


def strip_of(records: list[dict]) -> Strip:
    """Choose a scale that holds the intervals of records, and chance."""
    low = min(min(r["ci_low"], r["chance"]) for r in records)
    high = max(max(r["ci_high"], r["chance"]) for r in records)
    low = 10 * floor(min(max(low, 0), 99) / 10)
    return Strip(low, min(100, 10 * (floor(high / 10) + 1)))


def binned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours, so that a long log stays a readable curve."""
    size = -(-len(points) // BINS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (fmean(x for x, _ in group), fmean(y for _, y in group))
        for group in groups
    ]


def ticks(values: list[float]) -> list[float]:
    """Choose 4 to 7 round values that hold all of them."""
    low, high = min(values), max(values)
    spread = high - low
    if spread < 1e-9:  # A step of it would be lost in rounding.
        spread = max(abs(high), 1.0)
    if not isfinite(spread):
        raise ValueError(f"values from {low} to {high} cannot be drawn")
    power = 10 ** floor(log10(spread / 4))
    step = next(s * power for s in (1, 2, 5, 10) if spread / (s * power) <= 5)
    first = floor(low / step)
    last = max(-floor(-high / step), first + 1)
    return [round(step * k, 10) for k in range(first, last + 1)]


def loss_charts(runs: dict[int, tuple[str, list[dict]]]) -> list[Chart]:
    """Draw the losses of training logs: one chart of each kind.

    Arguments
    ---------
    runs : Place of a run among all -> its name and its log.
    """
    kinds: dict[str, list] = {}
    for place, (name, log) in runs.items():
        found: dict[str, list] = {}
        for entry in log:
            losses = {"Training loss": entry["loss"]} if "loss" in entry else {}
            for source, value in entry.get("valid", {}).items():
                # Of pairs, there are two measures beside the loss.
                no_loss = source.endswith((" accuracy", " margin"))
                kind = "Validation" if no_loss else "Validation loss"
                losses[f"{kind}: {source}"] = value
            for kind, value in losses.items():
                found.setdefault(kind, []).append((entry["step"], value))
        for kind, points in found.items():
            curves = kinds.setdefault(kind, [])
            curves.append(Curve(name, place, binned(points)))
    return [Chart(kind, "steps", curves) for kind, curves in kinds.items()]


# (title, key of the measure); where a record has no such key, its matched
# galleries have.
_MEASURES = (
    ("Margin of cosines", "margin"),
    ("P@1, to the translation", "p1_forward"),
    ("Linear CKA", "cka"),
)
_VOICES = {"same": "same voice", "different": "another voice"}


def alignment_charts(runs: dict[int, tuple[str, list[dict]]]) -> list[Chart]:
    """Draw alignment over the layers, a chart a measure and voice.

    Arguments
    ---------
    runs : Place of a run among all -> its name, and records of one pooling.
    """
    charts = []
    voices = dict.fromkeys(r["voice"] for _, rs in runs.values() for r in rs)
    for title, key in _MEASURES:
        for voice in voices:
            curves, line = [], None
            for place, (name, records) in runs.items():
                found = sorted(
                    (record["layer"], *_measured(record, key))
                    for record in records
                    if record["voice"] == voice
                )
                if not found:
                    continue
                line = found[0][-1]
                points = [(layer, value) for layer, value, *_ in found]
                ends = [
                    (layer, *e) for layer, _, *e, _ in found if e[0] is not None
                ]
                curves.append(Curve(name, place, points, ends))
            if curves:
                told = f"{title}, {_VOICES.get(voice, voice)}"
                charts.append(Chart(told, "layers", curves, line))
    return charts


def _measured(record, key):
    """Return a measure, its interval's ends and its chance."""
    found = record if key in record else record["retrieval_matched"]
    values = [found.get(f"{key}{end}") for end in ("", "_low", "_high")]
    return (*values, None if found is record else found["chance"])
