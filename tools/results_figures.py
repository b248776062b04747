"""The figures of the page of results, as SVG."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from report_figures import HEIGHT, RIGHT, WIDTH, Chart, Curve
from results_cells import BASE, COMPARED, SETS
from results_curves import MEASURES, alignments, curves, layers_of
from results_files import Results


def figures(results: Results, runs: Sequence[str]) -> dict[str, str]:
    """Draw every figure: name of the file -> SVG."""
    found = {}
    for units in SETS:
        charts = {
            "curves": _curve_charts(curves(results, units, runs), runs),
            "alignment": _layer_charts(results, units),
        }
        for name, ones in charts.items():
            if ones:
                found[f"{name}-{units}.svg"] = draw_charts(ones)
    return found


def _curve_charts(found, runs):
    return [
        Chart(
            name,
            "million tokens",
            [_curve(run, runs.index(run), by_run[run]) for run in by_run],
            50.0 if "lingual" in name else None,
        )
        for name, by_run in found.items()
    ]


def _layer_charts(results, units):
    charts = []
    for measure, title in MEASURES.items():
        drawn = []
        for place, run in enumerate((BASE, *COMPARED)):
            point = {
                layer: alignments(results, units, layer, measure)(run, None)
                for layer in layers_of(results, units, run)
            }
            points = [p._replace(x=layer) for layer, p in point.items() if p]
            if points:
                drawn.append(_curve(run, place, points))
        if drawn:
            charts.append(Chart(title, "layers", drawn))
    return charts


def _curve(name, index, points):
    values = [(point.x, point.value) for point in points]
    band = [(point.x, point.low, point.high) for point in points]
    return Curve(name, index, values, band)


def draw_charts(charts: list[Chart]) -> str:
    """Draw charts under each other in one SVG, with a legend."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    size = {"width": WIDTH, "height": HEIGHT, "right": RIGHT}
    template = environment.get_template("results_figure.jinja")
    return template.render(charts=charts, size=size)
