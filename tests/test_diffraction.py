"""Sticks: those of pymatgen 2024.11.13, and what physics says of any powder pattern."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.analysis.diffraction.xrd import ATOMIC_SCATTERING_PARAMS, WAVELENGTHS, XRDCalculator
from pymatgen.core import Lattice, Structure

from xxlib.crystals.crystal import Crystal, RejectedCrystal, lattice_from_cell
from xxlib.crystals.elements import symbol
from xxlib.crystals.structures import crystal_from_structure
from xxlib.diffraction import kernel as diffraction_kernel
from xxlib.diffraction.scattering import PATTERN_RANGE, STORED_RANGE, pack, scattering_factors, sticks, sticks_of
from xxlib.diffraction.wavelengths import ANODES, CU_KA, emission_lines

FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def crystal(cell, numbers, frac, occupancies=None):
    occupancies = np.ones(len(numbers)) if occupancies is None else np.array(occupancies)
    return Crystal("test", lattice_from_cell(*cell), np.array(numbers), np.array(frac, float), occupancies)


def rock_salt(a=5.64):
    return crystal((a, a, a, 90, 90, 90), [11] * 4 + [17] * 4, np.concatenate([FCC, FCC + 0.5]))


def triclinic():
    frac = [[0.11, 0.23, 0.31], [0.4, 0.15, 0.67], [0.77, 0.52, 0.05]]
    return crystal((4.1, 5.3, 6.7, 82, 95, 103), [14, 8, 26], frac)


def assert_same_lines(first, second, rtol=1e-9):
    assert len(first.two_theta) == len(second.two_theta)
    assert np.allclose(first.two_theta, second.two_theta, rtol=0, atol=1e-9)
    assert np.allclose(first.intensity, second.intensity, rtol=rtol, atol=0)


@pytest.fixture(scope="module")
def references(shared_data):
    """(crystal, two_theta, intensity) of the 150 reference crystals of mp36k."""
    stored = pq.read_table(shared_data / "mp36k" / "sticks_pymatgen_2024.11.13.parquet")
    ids = stored["mp_id"].to_pylist()
    rows = pq.read_table(shared_data / "mp36k" / "crystals.parquet", filters=[("mp_id", "in", ids)]).to_pylist()
    rows = {row["mp_id"]: row for row in rows}
    out = []
    for line in stored.to_pylist():
        row = rows[line["mp_id"]]
        cell = [row[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")]
        frac = np.array(row["frac_coords"]).reshape(-1, 3)
        two_theta, intensity = np.array(line["two_theta"]), np.array(line["intensity"])
        out.append((crystal(cell, row["atomic_numbers"], frac), two_theta, intensity))
    assert len(out) == 150
    return out


def test_reference_of_pymatgen_2024(references):
    for structure, two_theta, intensity in references:
        lines = sticks(structure, two_theta_range=PATTERN_RANGE)
        assert len(lines.two_theta) == len(two_theta)
        assert np.abs(lines.two_theta - two_theta).max() < 1e-9
        assert np.abs(lines.intensity / intensity - 1).max() < 1e-6


def test_lines_are_sorted_scaled_and_in_range(references):
    for structure, _, _ in references[::5]:
        lines = sticks(structure)
        assert np.isclose(lines.intensity.max(), 100, rtol=1e-12)
        assert lines.intensity.min() > 1e-3
        assert (np.diff(lines.two_theta) > 0).all()
        assert STORED_RANGE[0] <= lines.two_theta[0] and lines.two_theta[-1] <= STORED_RANGE[1]


def test_bragg_law_holds_for_every_line(references):
    for structure in [rock_salt(), triclinic(), *(reference for reference, _, _ in references[::5])]:
        lines = sticks(structure)
        g = lines.hkl @ np.linalg.inv(structure.lattice).T
        bragg = 2 * np.degrees(np.arcsin(CU_KA * np.linalg.norm(g, axis=1) / 2))
        assert np.abs(lines.two_theta - bragg).max() < 2e-5  # lines within 1e-5 degree are one


def test_rock_salt():
    lines = sticks(rock_salt())
    parity = lines.hkl % 2
    assert (parity == parity[:, :1]).all()  # all even or all odd
    # h^2 + k^2 + l^2, and the textbook's order of strength: 200, 220, 222, 420, 111
    assert (lines.hkl.astype(int) ** 2).sum(1).tolist()[:8] == [3, 4, 8, 11, 12, 16, 19, 20]
    assert lines.intensity[1] == 100 and 50 < lines.intensity[2] < 75 and lines.intensity[0] < 15


def test_indices_of_a_long_cell_are_not_wrapped():
    # l reaches 176 here, more than a byte holds: each line must lie where Bragg's law puts its own indices.
    a, c = 3.0, 190.0
    lines = sticks(crystal((a, a, c, 90, 90, 90), [26, 8, 14], [[0, 0, 0], [0, 0, 0.31], [0, 0, 0.72]]))
    g = np.linalg.norm(lines.hkl / np.array([a, a, c]), axis=1)
    assert np.abs(lines.hkl).max() > 127
    assert np.allclose(2 * np.degrees(np.arcsin(CU_KA * g / 2)), lines.two_theta, atol=1e-4)


def test_whole_degrees_are_degrees():
    whole, decimal = (sticks(rock_salt(), two_theta_range=angles) for angles in ((10, 60), (10.0, 60.0)))
    assert np.array_equal(whole.two_theta, decimal.two_theta) and np.array_equal(whole.intensity, decimal.intensity)
    assert len(diffraction_kernel.of_all.signatures) == 1  # compiled once


def test_every_reflection_in_range_is_counted():
    # One atom in a simple cubic cell: no line is absent, and each is where h^2 + k^2 + l^2 says.
    a = 3.35
    lines = sticks(crystal((a, a, a, 90, 90, 90), [84], [[0, 0, 0]]))
    squares = [n for n in range(1, 20) if n not in (7, 15) and CU_KA * np.sqrt(n) / (2 * a) < np.sin(np.radians(45.5))]
    assert np.allclose(
        lines.two_theta, 2 * np.degrees(np.arcsin(CU_KA * np.sqrt(squares) / (2 * a))), rtol=0, atol=1e-9
    )


def test_scaling_the_cell_scales_the_spacings():
    small, large = sticks(triclinic()), replace(triclinic(), lattice=triclinic().lattice * 1.02)
    large = sticks(large)
    spacing = {tuple(hkl): angle for hkl, angle in zip(large.hkl.tolist(), large.two_theta)}
    both = [(tuple(hkl), angle) for hkl, angle in zip(small.hkl.tolist(), small.two_theta) if tuple(hkl) in spacing]
    pairs = [(angle, spacing[hkl]) for hkl, angle in both]
    assert len(pairs) > 100
    before, after = np.sin(np.radians(np.array(pairs).T / 2))
    assert np.allclose(before / after, 1.02, rtol=1e-9)


def test_scaling_cell_and_wavelength_moves_no_line():
    scaled = replace(triclinic(), lattice=triclinic().lattice * 1.1)
    before, after = sticks(triclinic()), sticks(scaled, wavelength=CU_KA * 1.1)
    assert np.allclose(before.two_theta[:50], after.two_theta[:50], rtol=0, atol=1e-9)


@pytest.mark.parametrize("structure", [rock_salt(), triclinic()], ids=["rock salt", "triclinic"])
def test_nothing_depends_on_how_the_crystal_is_written(structure):
    lines = sticks(structure)
    shifted = replace(structure, frac_coords=structure.frac_coords + np.array([0.137, -0.412, 2.05]))
    assert_same_lines(lines, sticks(shifted), rtol=1e-7)
    order = np.random.default_rng(0).permutation(len(structure.atomic_numbers))
    arrays = {name: getattr(structure, name)[order] for name in ("atomic_numbers", "frac_coords", "occupancies")}
    assert_same_lines(lines, sticks(replace(structure, **arrays)), rtol=1e-7)
    axes = replace(structure, lattice=structure.lattice[[2, 0, 1]], frac_coords=structure.frac_coords[:, [2, 0, 1]])
    assert_same_lines(lines, sticks(axes), rtol=1e-7)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert_same_lines(lines, sticks(replace(structure, lattice=structure.lattice @ rotation)), rtol=1e-7)
    halves = np.concatenate([structure.frac_coords / [2, 1, 1], structure.frac_coords / [2, 1, 1] + [0.5, 0, 0]])
    doubled = Crystal(
        "2 1 1",
        structure.lattice * [[2], [1], [1]],
        np.tile(structure.atomic_numbers, 2),
        halves,
        np.tile(structure.occupancies, 2),
    )
    assert_same_lines(lines, sticks(doubled), rtol=1e-6)


def test_primitive_cell_has_the_lines_of_the_conventional_one():
    conventional = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    primitive = conventional.get_primitive_structure()
    assert (len(conventional), len(primitive)) == (8, 2)
    both = [sticks(crystal_from_structure(structure, "NaCl")) for structure in (conventional, primitive)]
    assert_same_lines(*both, rtol=1e-7)


def test_mixed_site_scatters_as_its_average():
    # Against pymatgen's own calculator (2026: it merges lines by rounding, which is the same for a small cubic cell).
    structure = Structure(Lattice.cubic(3.59), [{"Fe": 0.7, "Ni": 0.3}] * 4, FCC)
    expected = XRDCalculator(wavelength=CU_KA).get_pattern(structure, two_theta_range=STORED_RANGE)
    lines = sticks(crystal_from_structure(structure, "FeNi"))
    assert np.allclose(lines.two_theta, expected.x, rtol=0, atol=1e-7)
    assert np.allclose(lines.intensity, expected.y, rtol=1e-7)
    # Amplitudes, not intensities, average: |0.7 F(Fe) + 0.3 F(Ni)|, each on the scale of its scattering factor.
    pure = {z: sticks(crystal((3.59, 3.59, 3.59, 90, 90, 90), [z] * 4, FCC)).intensity for z in (26, 28)}
    amplitudes = {z: scattering_factor(z, lines.two_theta[0]) * np.sqrt(i / i[0]) for z, i in pure.items()}
    average = 0.7 * amplitudes[26] + 0.3 * amplitudes[28]
    assert np.allclose(np.sqrt(lines.intensity / lines.intensity[0]), average / average[0], rtol=1e-6)


def scattering_factor(z, two_theta):
    """Of element z at an angle in degree, by the formula of De Graef and McHenry."""
    a, b = np.array(ATOMIC_SCATTERING_PARAMS[symbol(z)]).T
    s2 = (np.sin(np.radians(two_theta / 2)) / CU_KA) ** 2
    return z - 41.78214 * s2 * (a * np.exp(-b * s2)).sum()


def test_vacancies_weaken_their_sublattice():
    # In rock salt the odd lines are the difference of the two sublattices, the even ones their sum.
    full = sticks(rock_salt())
    missing = sticks(replace(rock_salt(), occupancies=np.array([0.9] * 4 + [1.0] * 4)))
    odd, even = 0, 1  # 111 and 200
    assert missing.intensity[odd] / missing.intensity[even] > 1.2 * full.intensity[odd] / full.intensity[even]


def test_no_line_in_range_is_refused():
    tiny = crystal((2, 2, 2, 90, 90, 90), [26], [[0, 0, 0]])
    assert sticks(tiny).two_theta[0] > 45
    with pytest.raises(RejectedCrystal, match="no diffraction line"):
        sticks(tiny, two_theta_range=(4.0, 40.0))
    with pytest.raises(RejectedCrystal, match="no diffraction line"):
        sticks(tiny, wavelength=4.5)


# Many crystals at once


def test_a_batch_is_its_crystals_one_by_one(references):
    crystals = [rock_salt(), triclinic(), *(structure for structure, _, _ in references[:30])]
    together = sticks_of(pack(crystals), hkl=True)
    assert len(together.offsets) == len(crystals) + 1
    for c, structure in enumerate(crystals):
        alone, lines = sticks(structure), slice(together.offsets[c], together.offsets[c + 1])
        for name in ("two_theta", "intensity", "hkl"):
            assert np.array_equal(getattr(alone, name), getattr(together, name)[lines])
    plain = sticks_of(pack(crystals))
    assert np.array_equal(plain.intensity, together.intensity) and plain.hkl.shape == (0, 3)


def test_threads_run_side_by_side_and_give_the_same_bits(references):
    packed = pack([structure for structure, _, _ in references])
    assert diffraction_kernel.of_all.targetoptions["nogil"]
    with ThreadPoolExecutor(3) as threads:
        one, *others = threads.map(lambda _: sticks_of(packed, hkl=True), range(3))
    for name in ("two_theta", "intensity", "hkl", "offsets", "strongest"):
        for other in others:
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_crystal_without_lines_leaves_an_empty_place():
    tiny = crystal((2, 2, 2, 90, 90, 90), [26], [[0, 0, 0]])
    lines = sticks_of(pack([rock_salt(), tiny, rock_salt()]), two_theta_range=(4.0, 40.0))
    first, none, third = np.diff(lines.offsets)
    assert first == third > 0 and none == 0
    assert len(sticks_of(pack([])).two_theta) == 0


# Wavelengths, thermal motion


@pytest.mark.parametrize("anode", ANODES)
@pytest.mark.parametrize("line", ["Ka", "Ka1", "Ka2"])
def test_wavelengths_have_the_names_of_pymatgen(anode, line):
    assert emission_lines(anode + line) == ((WAVELENGTHS[anode + line], 1.0),)
    expected = XRDCalculator(wavelength=anode + line).get_pattern(nacl(), two_theta_range=(10, 80))
    lines = sticks(crystal_from_structure(nacl(), "NaCl"), wavelength=anode + line, two_theta_range=(10, 80))
    assert np.allclose(lines.two_theta, expected.x, rtol=0, atol=1e-7)
    assert np.allclose(lines.intensity, expected.y, rtol=1e-7)


def test_the_doublet_is_two_patterns_two_to_one():
    first, second = (sticks(rock_salt(), wavelength="Cu" + line) for line in ("Ka1", "Ka2"))
    both = sticks(rock_salt(), wavelength="CuKa12")
    assert len(both.two_theta) == len(first.two_theta) + len(second.two_theta)
    assert (np.diff(both.two_theta) > 0).all() and both.intensity.max() == 100
    in_first = np.isin(both.two_theta, first.two_theta)
    assert np.array_equal(both.two_theta[~in_first], second.two_theta)
    assert np.array_equal(both.hkl[in_first], first.hkl)
    # Of one line the ratio is 2 but for the LP factor, which differs by little between the two angles.
    assert np.allclose(both.intensity[in_first] / both.intensity[~in_first], 2, rtol=0.02)
    assert np.allclose(both.intensity[in_first] / both.intensity[in_first].max() * 100, first.intensity, rtol=1e-12)


def test_an_unknown_wavelength_is_named():
    with pytest.raises(ValueError, match="no wavelength 'CuKb'"):
        sticks(rock_salt(), wavelength="CuKb")


def test_thermal_motion_is_that_of_pymatgen():
    calculator = XRDCalculator(wavelength=CU_KA, debye_waller_factors={"Na": 2.0, "Cl": 0.5})
    expected = calculator.get_pattern(nacl(), two_theta_range=STORED_RANGE)
    lines = sticks(crystal_from_structure(nacl(), "NaCl"), debye_waller={11: 2.0, 17: 0.5})
    assert np.allclose(lines.intensity, expected.y, rtol=1e-7)
    assert not np.allclose(lines.intensity, sticks(crystal_from_structure(nacl(), "NaCl")).intensity, rtol=1e-2)


def test_the_table_of_scattering_factors_is_exact():
    table = scattering_factors(600)  # s^2 up to 1 per angstrom^2
    for z in (1, 8, 26, 57, 98):
        a, b = np.array(ATOMIC_SCATTERING_PARAMS[symbol(z)]).T
        s2 = np.random.default_rng(z).uniform(0, 1, 200)
        exact = z - 41.78214 * s2 * (a * np.exp(-b * s2[:, None])).sum(1)
        values = diffraction_kernel._factors(np.array([z]), 4 * s2, table, np.zeros(99))[:, 0]
        assert np.abs(values / exact - 1).max() < 2e-11


def nacl():
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
