"""q and d as axes: the same scan written along any of them gives the same pattern."""

import numpy as np
import pytest

from xxlib.diffraction.axes import AXES, along, two_theta_of
from xxlib.diffraction.patterns import TWO_THETA
from xxlib.diffraction.wavelengths import ANODES, CU_KA
from xxlib.scans.axes import scan_along
from xxlib.scans.conditioning import condition
from xxlib.scans.reading import read_scan
from xxlib.scans.scan import Scan, ScanError, checked

LINES = (2.82, 1.994, 1.628, 1.41, 1.261, 1.151)  # angstrom: rock salt, from (200)
MO = ANODES["Mo"][2]


def scan_of(wavelength):
    """A scan with Gaussian lines at the spacings LINES, on a flat background, of a tube's wavelength."""
    angle = np.arange(6.0, 80.0, 0.01) if wavelength < 1 else TWO_THETA
    counts = np.full(len(angle), 20.0)
    for line in two_theta_of("d", np.array(LINES), wavelength):
        counts += 1000 * np.exp(-0.5 * ((angle - line) / 0.08) ** 2)
    return Scan(two_theta=angle, intensity=counts, wavelength=wavelength)


@pytest.mark.parametrize("axis", AXES)
def test_along_and_back(axis):
    assert np.allclose(two_theta_of(axis, along(axis, TWO_THETA, CU_KA), CU_KA), TWO_THETA)
    with pytest.raises(ValueError, match="no axis 'r': choose among two_theta, q, d"):
        along("r", TWO_THETA, CU_KA)


def test_q_and_d_of_a_known_line():
    """(200) of rock salt, a = 5.64 angstrom: 31.70 degree with Cu K-alpha, q = 2 pi / 2.82."""
    angle = two_theta_of("d", np.array([2.82]), CU_KA)
    assert angle == pytest.approx(31.73, abs=0.02)
    assert along("q", angle, CU_KA) == pytest.approx(2 * np.pi / 2.82)


FILES = {
    "# q_A^-1 intensity": ("q", 1.0), "# unit = q_nm^-1\n# x intensity": ("q", 10.0), "Q (1/Å)\tI": ("q", 1.0),
    "d_A I": ("d", 1.0), "# d (nm), counts": ("d", 0.1), "d-spacing [Å] Intensity": ("d", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("wavelength", [CU_KA, MO])
@pytest.mark.parametrize("head", FILES)
def test_a_file_along_q_or_d_gives_the_pattern_of_the_scan(tmp_path, head, wavelength):
    axis, factor = FILES[head]
    scan, path = scan_of(wavelength), tmp_path / "scan.dat"
    values = factor * along(axis, scan.two_theta, wavelength)
    rows = "".join(f"{x:.9g}\t{y:.9g}\n" for x, y in zip(values, scan.intensity))
    path.write_text(f"# wavelength = {wavelength:.5f} A\n{head}\n{rows}", encoding="utf-8")
    read, expected = read_scan(path), condition(checked(scan))
    assert read.axis == axis and not read.warnings
    assert np.abs(condition(read).pattern - expected.pattern).max() < 0.1, "of 100"


def test_without_a_wavelength_the_lines_stand_where_they_must():
    scan = scan_of(MO)
    unknown = scan_along("q", along("q", scan.two_theta, MO), scan.intensity)
    assert any("Cu Kα was taken for the intensities" in warning for warning in unknown.warnings)
    pattern = condition(checked(unknown)).pattern
    for line in two_theta_of("d", np.array(LINES), CU_KA):
        near = np.abs(TWO_THETA - line) < 1
        assert TWO_THETA[near][pattern[near].argmax()] == pytest.approx(line, abs=0.03)
    given = condition(checked(unknown), "Mo")  # which moves nothing, and mends the intensities
    assert np.abs(given.pattern - condition(checked(scan)).pattern).max() < 0.1
    assert not any("was given and taken" in warning for warning in given.warnings)


def test_what_a_wavelength_does_not_reach():
    q = np.linspace(0.5, 12, 2000)
    with pytest.raises(ScanError, match=r"1.5418 angstrom does not reach .* Q of 8\.1\d* to 12 1/angstrom"):
        scan_along("q", q, np.ones(2000), wavelength=CU_KA)
    partly = scan_along("q", q, np.ones(2000))
    assert len(partly.two_theta) < 2000 and any("beyond what Cu Kα reaches" in warning for warning in partly.warnings)
