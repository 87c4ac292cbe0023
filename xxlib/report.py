"""Answers for many samples -> a page with pictures that stands alone: what predict writes as answers.html"""

import base64
import io

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from xxlib import PACKAGE, __version__, plots
from xxlib.answering.answer import SampleAnswer
from xxlib.answering.calibration import LEVEL
from xxlib.answering.predictor import Predictor
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.patterns import N_POINTS
from xxlib.scans.folder import Series


def page(model: Predictor, answers: list[SampleAnswer], series: Series | None = None, axis: str = "two_theta") -> str:
    """The report as HTML: a row a sample, the series where it is one, then each sample with its scan and warnings."""
    regressions = [name for name in model.targets if model.targets[name].kind == "regression"]
    classes = [name for name in model.targets if name not in regressions]
    drawn = None
    if series is not None and np.isfinite(series.values).sum() > 1:
        drawn = _picture(series_figure(answers, series, axis))
    template = jinja2.Template((PACKAGE / "report.html").read_text(), autoescape=True, trim_blocks=True)
    samples = [(answer, None if answer.refused else _picture(sample_figure(answer, axis))) for answer in answers]
    return template.render(
        model=model, version=__version__, samples=samples, targets=TARGETS, regressions=regressions, classes=classes,
        level=f"{LEVEL:.0%}", series=series, drawn=drawn,
        n_refused=sum(bool(answer.refused) for answer in answers),
    )  # fmt: skip


def sample_figure(answer: SampleAnswer, axis: str = "two_theta") -> Figure:
    """The scan of a sample, with the lines of the known crystal that explains it, and its classes."""
    name = next(iter(answer.probabilities), None)
    probabilities, sets = ({}, ()) if name is None else (answer.probabilities[name], answer.sets[name])
    pattern, known = answer.sample.pattern if "xrd" in answer.sample.modalities else None, ("", ())
    if first := answer.known_crystal:
        known = f"{first['known_formula']}, {first['id']}", answer.explanation.two_theta(1)
    return plots.sheet(pattern, answer.sample.conditioned, probabilities, sets, LEVEL, axis, known)


def series_figure(answers: list[SampleAnswer], series: Series, axis: str = "two_theta") -> Figure:
    """The lines of a series, and its answers."""
    given = [k for k, value in enumerate(series.values) if np.isfinite(value)]
    empty = np.full(N_POINTS, np.nan)
    patterns = [answers[k].sample.pattern if "xrd" in answers[k].sample.modalities else empty for k in given]
    names = dict.fromkeys(name for answer in answers for name in answer.values)
    regressions = {
        f"{TARGETS[name].title} ({TARGETS[name].unit})": [answers[k].values.get(name, (np.nan,) * 3) for k in given]
        for name in names
    }
    name = next((name for answer in answers for name in answer.probabilities), None)
    probabilities = {
        label: [answers[k].probabilities.get(name, {}).get(label, np.nan) for k in given]
        for label in (TARGETS[name].classes if name else ())
    }
    return plots.series(patterns, series.values[given], series.label, regressions, probabilities, axis)


def _picture(figure):
    """An <img> of a Figure, part of the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup(f'<img alt="" src="data:image/png;base64,{data}">')
