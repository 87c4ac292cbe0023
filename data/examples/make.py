"""Make NaCl.uxd and LaB6.uxd, what a laboratory diffractometer would record of rock salt and of the standard lanthanum
hexaboride, simulated; and figures/answer, what the released model says of the latter:  python data/examples/make.py
"""

import re
from pathlib import Path

import numpy as np

from xxlib import plots
from xxlib.answering.calibration import LEVEL
from xxlib.crystals.crystal import Crystal, lattice_from_cell
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.scattering import sticks
from xxlib.predict import Predictor
from xxlib.scans.samples import read_sample

HERE = Path(__file__).parent
KA, KA2_RATIO = (1.5405929, 1.5444274), 0.5  # angstrom, of Cu; intensity of the second over the first
START, STEP, STOP = 10.0, 0.03, 90.0  # degree
ZERO_SHIFT, WIDTH, LORENTZIAN = 0.02, 0.06, 0.5  # degree; degree (standard deviation); share
HEIGHT, BACKGROUND = 5000, 60  # counts

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
X = 0.1996  # of boron in LaB6
BORON = np.array([[x, 0.5, 0.5] for x in (X, -X)] + [[0.5, x, 0.5] for x in (X, -X)] + [[0.5, 0.5, x] for x in (X, -X)])
# Edge of the cell in angstrom at room temperature, atomic numbers, places.
CUBIC = {
    "NaCl": (5.6402, [11] * 4 + [17] * 4, np.concatenate([FCC, FCC + 0.5])),
    "LaB6": (4.1569, [57] + [5] * 6, np.concatenate([np.zeros((1, 3)), BORON % 1])),
}


def counts(formula="NaCl"):
    """2 theta (n,) in degree and counts (n,) with the doublet of Cu, air scattering and counting noise."""
    a, numbers, places = CUBIC[formula]
    crystal = Crystal(formula, lattice_from_cell(a, a, a, 90, 90, 90), np.array(numbers), places, np.ones(len(places)))
    two_theta = np.arange(START, STOP + STEP / 2, STEP)
    peaks = np.zeros(len(two_theta))
    for wavelength, share in zip(KA, (1, KA2_RATIO)):
        lines = sticks(crystal, wavelength)
        for angle, intensity in zip(lines.two_theta, lines.intensity):
            u = (two_theta - angle - ZERO_SHIFT) / WIDTH
            profile = LORENTZIAN / (1 + u**2 / (2 * np.log(2))) + (1 - LORENTZIAN) * np.exp(-(u**2) / 2)
            peaks += share * intensity / 100 * profile
    expected = HEIGHT * peaks + BACKGROUND + 400 * np.exp(-(two_theta - START) / 6)
    return two_theta, np.random.default_rng(0).poisson(expected)


def write(formula):
    """Write the scan as a Bruker .uxd file."""
    two_theta, intensity = counts(formula)
    ka1, ka2 = KA
    header = ["; simulated by data/examples/make.py, not measured", f"_SAMPLE='{formula}, simulated'", "_ANODE='Cu'"]
    header += [f"_WL1={ka1:.5f}", f"_WL2={ka2:.5f}", f"_WLRATIO={KA2_RATIO}", "_DRIVE='COUPLED'", "_STEPTIME=1.0"]
    header += [f"_STEPSIZE={STEP}", f"_START={START}", "_2THETACOUNTS"]
    rows = [f"{angle:8.3f} {count:6d}" for angle, count in zip(two_theta, intensity)]
    (HERE / f"{formula}.uxd").write_text("\n".join([*header, *rows]) + "\n")


def picture(formula, labels):
    """Figure of what the released model says of a scan; labels: the truth by name with unit."""
    model, scan = Predictor.load(), HERE / f"{formula}.uxd"
    (answer,), explanation = model.answer([read_sample(formula, scan)]), model.explanation(formula, scan)
    values = {f"{TARGETS[name].title} ({TARGETS[name].unit})": value for name, value in answer.values.items()}
    first = explanation.table().iloc[0]
    written = re.sub(r"(\d+)", r"$_{\1}$", first["known_formula"])
    crystal = f"lines of a known crystal: {written}, {first['id']}"
    lines = sticks(explanation.crystal(1)).two_theta
    probabilities, sets = answer.probabilities["crystal_system"], answer.sets["crystal_system"]
    conditioned = answer.sample.conditioned
    return plots.answered(conditioned, crystal, lines, values, probabilities, sets, LEVEL, labels)


if __name__ == "__main__":
    for formula in CUBIC:
        write(formula)
    figure = picture("LaB6", {"formation energy (eV/atom)": -0.561, "band gap (eV)": 0.0})  # mp-2680
    plots.save_figure(figure, "answer")
