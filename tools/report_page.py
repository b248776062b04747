"""The report as one HTML page that needs nothing but itself."""

from html import escape
from math import floor, log10
from pathlib import Path
from statistics import fmean
from string import Template

TEMPLATE = Path(__file__).with_name("report.html")
COLOURS = 6  # run colours in the template, used in turn
BINS = 120  # points of a training curve, at most
WIDTH, HEIGHT = 360, 210  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 26
STRIP = 180  # width of an interval plot
PART_NAMES = {
    "prompt": "Prompt",
    "right": "Right ending",
    "wrong": "Wrong ending (sSC)",
    "topic": "Wrong ending (sTC)",
}


def render(models, rows, examples):
    """Make the page of ``report.Model`` columns, rows and clips; HTML."""
    names = [model.name for model in models]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        legend=_legend(names),
        scores=_scores(names, rows),
        scoring=escape(models[0].results["scoring"]),
        charts="".join(_charts(models)),
        training=_training(models),
        listen=_listen(examples),
        identities=_identities(models),
    )


def _legend(names):
    return "".join(f"<span>{_label(*item)}</span>" for item in enumerate(names))


def _label(index, name):
    return f'<i class="run{index % COLOURS}"></i>{escape(name)}'


def _scores(names, rows):
    records = [record for *_, found in rows for record in found.values()]
    low = min(min(r["ci_low"], r["chance"]) for r in records)
    high = max(max(r["ci_high"], r["chance"]) for r in records)
    low = 10 * floor(min(max(low, 0), 99) / 10)
    high = min(100, 10 * (floor(high / 10) + 1))
    head = ["Metric", "Direction", "n"]
    head += [_label(*item) for item in enumerate(names)]
    lines, before = [], None
    for metric, direction, found in rows:
        kind = "mean" if direction == "cross-lingual" else ""
        first = "first" if metric != before else ""
        before = metric
        n = next(iter(found.values()))["n"]
        cells = "".join(_cell(found.get(name)) for name in names)
        strip = _strip([found.get(name) for name in names], low, high)
        lines.append(
            f'<tr class="{kind} {first}"><th scope="row">{escape(metric)}</th>'
            f"<td>{escape(direction).replace('&gt;', ' → ')}</td>"
            f'<td class="n">{escape(str(n))}</td>{cells}'
            f'<td class="strip">{strip}</td></tr>'
        )
    scale = f"<span>{low} %</span><span>{high} %</span>"
    strip = f'<th scope="col" class="strip">{scale}</th>'
    return f"<table>{_head(head, strip)}{''.join(lines)}</tbody></table>"


def _head(cells, more=""):
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in cells)
    return f"<thead><tr>{columns}{more}</tr></thead><tbody>"


def _cell(record):
    if record is None:
        return '<td class="score">not measured</td>'
    by_chance = record["ci_low"] <= record["chance"] <= record["ci_high"]
    mark = '<abbr title="the interval contains chance">○</abbr>'
    return (
        f'<td class="score {"chance" if by_chance else ""}">'
        f"<b>{record['accuracy']:.1f}</b>{mark if by_chance else ''} "
        f"<small>{record['ci_low']:.1f} to {record['ci_high']:.1f}</small></td>"
    )


def _strip(records, low, high):
    """Draw the intervals of one row over a line at chance."""

    def x(value):
        return round(STRIP * (value - low) / (high - low), 1)

    height = 10 * len(records) + 14
    shapes = []
    for index, record in enumerate(records):
        if record is None:
            continue
        y = 10 * index + 12
        x1, x2 = x(record["ci_low"]), x(record["ci_high"])
        shapes.append(
            f'<g class="run{index % COLOURS}">'
            f'<line x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(record["accuracy"])}" cy="{y}" r="3.5"/></g>'
        )
    chance = x(next(record for record in records if record)["chance"])
    return (
        f'<svg viewBox="0 0 {STRIP} {height}" width="{STRIP}" '
        f'height="{height}" aria-hidden="true"><line class="chance" '
        f'x1="{chance}" x2="{chance}" y1="0" y2="{height}"/>'
        f"{''.join(shapes)}</svg>"
    )


def _charts(models):
    logs = [model.log for model in models]
    losses = [
        _binned([(e["step"], e["loss"]) for e in log if "loss" in e])
        for log in logs
    ]
    yield _chart("Training loss", losses, models)
    valid = [[(e["step"], e.get("valid", {})) for e in log] for log in logs]
    for name in dict.fromkeys(n for log in valid for _, e in log for n in e):
        curves = [[(s, e[name]) for s, e in log if name in e] for log in valid]
        yield _chart(f"Validation loss: {name}", curves, models)


def _binned(points):
    """Average neighbours, so that a long log stays a readable curve."""
    size = -(-len(points) // BINS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [tuple(map(fmean, zip(*group, strict=True))) for group in groups]


def _chart(title, curves, models):
    points = [point for curve in curves for point in curve]
    if not points:
        return ""
    xs, ys = _ticks([p[0] for p in points]), _ticks([p[1] for p in points])

    def place(point):
        across = (point[0] - xs[0]) / (xs[-1] - xs[0])
        up = (point[1] - ys[0]) / (ys[-1] - ys[0])
        x = LEFT + across * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [f"<title>{escape(title)}</title>"]
    for tick in ys:
        x, y = place((xs[0], tick))
        parts.append(
            f'<line class="grid" x1="{x}" x2="{WIDTH - RIGHT}" y1="{y}" '
            f'y2="{y}"/><text x="{x - 6}" y="{y + 4}" text-anchor="end">'
            f"{tick:g}</text>"
        )
    for tick in xs:
        x, y = place((tick, ys[0]))
        anchor = "end" if tick == xs[-1] else "middle"
        parts.append(
            f'<text x="{x}" y="{y + 17}" text-anchor="{anchor}">{tick:g}</text>'
        )
    for index, (model, curve) in enumerate(zip(models, curves, strict=True)):
        if not curve:
            continue
        path = " ".join(f"{x},{y}" for x, y in map(place, curve))
        x, y = place(curve[-1])
        last = f"{model.name}: {curve[-1][1]:.3f} at the end"
        parts.append(
            f'<g class="run{index % COLOURS}"><polyline points="{path}"/>'
            f'<circle cx="{x}" cy="{y}" r="3.5"><title>{escape(last)}</title>'
            "</circle></g>"
        )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}'
        "</svg></figure>"
    )


def _ticks(values):
    """Choose 4 to 7 round values that hold all of them."""
    low, high = min(values), max(values)
    spread = high - low
    if spread < 1e-9:  # A step of it would be lost in rounding.
        spread = max(abs(high), 1.0)
    power = 10 ** floor(log10(spread / 4))
    step = next(s * power for s in (1, 2, 5, 10) if spread / (s * power) <= 5)
    first = floor(low / step)
    last = max(-floor(-high / step), first + 1)
    return [round(step * k, 10) for k in range(first, last + 1)]


def _training(models):
    languages = dict.fromkeys(name for model in models for name in model.tokens)
    head = ["Run", "Parameters", "Steps"]
    head += [f"Tokens, {escape(name)}" for name in languages]
    lines = [_head([*head, "Seconds"])]
    for model in models:
        tokens = "".join(
            f"<td>{model.tokens.get(name, 0):,}</td>" for name in languages
        )
        began = model.training.get("seconds_from_step")
        note = f" <small>(from step {began:,})</small>" if began else ""
        lines.append(
            f'<tr><th scope="row">{escape(model.name)}</th>'
            f"<td>{model.training['parameters']:,}</td>"
            f"<td>{model.training['steps']:,}</td>{tokens}"
            f"<td>{model.training['seconds']:,.0f}{note}</td></tr>"
        )
    return f'<table class="numbers">{"".join(lines)}</tbody></table>'


def _listen(examples):
    if not examples:
        return "<p>No manifest was given.</p>"
    stories = {}
    for clip in examples:
        story = stories.setdefault((clip.story, clip.speaker), {})
        story.setdefault(clip.part, []).append(clip)
    return "".join(
        f"<section><h3>{escape(story)} <small>voice {escape(speaker)}"
        f"</small></h3>{''.join(_part(*item) for item in parts.items())}"
        "</section>"
        for (story, speaker), parts in stories.items()
    )


def _part(part, clips):
    title = PART_NAMES.get(part, part)
    figures = "".join(
        f'<figure lang="{escape(clip.language)}"><figcaption>'
        f"<b>{escape(clip.language)}</b> {escape(clip.text)}</figcaption>"
        f'<audio controls preload="none" src="data:audio/flac;base64,'
        f'{clip.flac}"></audio></figure>'
        for clip in clips
    )
    return f"<h4>{escape(title)}</h4><div class='pair'>{figures}</div>"


def _identities(models):
    shared = models[0].results
    lines = [
        (f"model {model.name}", model.results["model"]) for model in models
    ]
    lines += [(key, shared[key]) for key in ("tokenizer", "units", "items")]
    return "".join(
        f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>"
        for name, value in lines
    )
