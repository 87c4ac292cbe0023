"""Make NaCl.uxd, what a laboratory diffractometer would record of rock salt, simulated: python data/examples/make.py"""

from pathlib import Path

import numpy as np

from xxlib.crystals.crystal import Crystal, lattice_from_cell
from xxlib.diffraction.scattering import sticks
from xxlib.scans.scan import ANODES, KA2_RATIO

HERE = Path(__file__).parent
A = 5.6402  # angstrom, of NaCl at room temperature
START, STEP, STOP = 10.0, 0.03, 90.0  # degree
ZERO_SHIFT, WIDTH, LORENTZIAN = 0.02, 0.06, 0.5  # degree; degree (standard deviation); share
HEIGHT, BACKGROUND = 5000, 60  # counts

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def counts():
    """2 theta (n,) in degree and counts (n,) with the doublet of Cu, air scattering and counting noise."""
    crystal = Crystal(
        "NaCl", lattice_from_cell(A, A, A, 90, 90, 90), np.array([11] * 4 + [17] * 4), np.concatenate([FCC, FCC + 0.5]),
        np.ones(8),
    )  # fmt: skip
    two_theta = np.arange(START, STOP + STEP / 2, STEP)
    peaks = np.zeros(len(two_theta))
    for wavelength, share in zip(ANODES["Cu"], (1, KA2_RATIO)):
        lines = sticks(crystal, wavelength)
        for angle, intensity in zip(lines.two_theta, lines.intensity):
            u = (two_theta - angle - ZERO_SHIFT) / WIDTH
            profile = LORENTZIAN / (1 + u**2 / (2 * np.log(2))) + (1 - LORENTZIAN) * np.exp(-(u**2) / 2)
            peaks += share * intensity / 100 * profile
    expected = HEIGHT * peaks + BACKGROUND + 400 * np.exp(-(two_theta - START) / 6)
    return two_theta, np.random.default_rng(0).poisson(expected)


if __name__ == "__main__":
    two_theta, intensity = counts()
    ka1, ka2 = ANODES["Cu"]
    header = ["; simulated by data/examples/make.py, not measured", "_SAMPLE='NaCl, simulated'", "_ANODE='Cu'"]
    header += [f"_WL1={ka1:.5f}", f"_WL2={ka2:.5f}", f"_WLRATIO={KA2_RATIO}", "_DRIVE='COUPLED'", "_STEPTIME=1.0"]
    header += [f"_STEPSIZE={STEP}", f"_START={START}", "_2THETACOUNTS"]
    rows = [f"{angle:8.3f} {count:6d}" for angle, count in zip(two_theta, intensity)]
    (HERE / "NaCl.uxd").write_text("\n".join([*header, *rows]) + "\n")
