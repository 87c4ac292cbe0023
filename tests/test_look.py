"""What instrument and powder make of a candidate's lines: its slopes, and that it is found again."""

import numpy as np
import pytest
from test_candidates import library_of, stoichiometry
from test_datasets import rock_salt

from xxlib import PROJECT
from xxlib.candidates import calculated, refinement, search
from xxlib.candidates.calculated import KA2, LOOK, SHIFT, TEXTURE, THERMAL
from xxlib.candidates.exchange import exchanges
from xxlib.candidates.lines import families
from xxlib.candidates.observed import Observed
from xxlib.candidates.symmetry import free_parameters
from xxlib.crystals.crystal import space_group
from xxlib.datasets.sources.parquet import parquet
from xxlib.diffraction.effects import EFFECTS, Effects, draw
from xxlib.diffraction.scattering import sticks
from xxlib.diffraction.simulation import augmented


@pytest.fixture(scope="module")
def crystal():
    """A crystal of the embedded dataset with few symmetries, whose atoms may move."""
    records = parquet(PROJECT / "data" / "demo" / "crystals.parquet").records()
    return next(one for one in (record.crystal() for record in records) if space_group(one) in range(5, 60))


def under(effects, crystal, seed=0):
    """A pattern of a crystal under Effects."""
    lines = sticks(crystal)
    cell = np.array([[*np.linalg.norm(crystal.lattice, axis=1), 90.0, 90.0, 90.0]])  # of one with right angles
    offsets = np.array([0, len(lines.two_theta)])
    return augmented(lines.two_theta, lines.intensity, offsets, draw(effects, 1, seed), lines.hkl, cell)[0][0]


def matches_of(crystal, pattern):
    library = library_of([crystal])[0]
    tried = exchanges(library, *stoichiometry(crystal.atomic_numbers, crystal.occupancies))
    return search.search(library, Observed.of(pattern), tried)


@pytest.mark.parametrize("look", [calculated.gaussian(0.1), np.array([1.2, 0.3, 0.05, 0.1, 0.4, 0.3, 0.3, 0.0])])
def test_slopes_are_those_of_the_pattern(crystal, look):
    """By coordinates and look; of the cell only those that move lines, in a cell that is a little larger."""
    library = library_of([crystal])[0]
    group = search._group(int(library.space_groups[0]) - 1)
    free = free_parameters()[library.space_groups[0]]
    basis = free[free.any(-1)].astype(float)
    start = basis @ library.metrics[0] / (basis**2).sum(-1)
    unit = (
        library.frac_coords(slice(None)),
        library.atomic_numbers.astype(np.int64),
        np.ones(len(library.atomic_numbers)),
    )
    hkl, count = families(start @ basis, group[3], group[2], refinement.LOWEST, refinement.HIGHEST)
    forms, atoms = calculated.forms_of(hkl, basis), calculated.atoms_of(group, unit, True)
    axes, r = calculated.equal_directions(np.array([0.0, 1.0, 1.0]), group[3]), len(atoms[5])
    assert r
    slopes = np.empty((len(hkl), r + 2))

    def pattern(parameters):
        given = (basis, forms, hkl, count, group, unit[0], atoms, axes, search.scattering_table(), slopes)
        lines = calculated.lines(parameters, *given)
        return calculated.profile(lines[0], lines[2], parameters[-len(LOOK) :]), lines

    parameters = np.concatenate([start, 0.001 * np.random.default_rng(0).normal(size=r), look])
    own, (angle, bend, intensity) = pattern(parameters)
    columns = calculated.slopes_of(angle, bend, intensity, slopes.copy(), forms, look, own)
    for p in range(len(parameters) - 1):
        if look[KA2] == 0 and p >= len(parameters) - 3:  # Lorentzian share and K-alpha2, where there is none of them
            continue
        step = np.zeros(len(parameters))
        step[p] = 1e-5 if p < len(start) else 1e-3
        change = (pattern(parameters + step)[0] - pattern(parameters - step)[0]) / (2 * step[p])
        assert np.abs(change - columns[:, p]).max() < 0.08 * np.abs(change).max(), p


def test_a_scan_is_explained_in_its_own_look():
    """A crystal under the effects of a diffractometer is found nearly whole, and what was done to it is said."""
    salt = rock_salt(5.64, 11, 17, "NaCl")
    effects = Effects(
        thermal=(2.0, 2.0), zero_shift=(0.06, 0.06), instrument=(0.1, 0.1), size=(40.0, 40.0), strain=(0.1, 0.1),
        ka2=1.0, background=(10.0, 10.0), counts=(1e5, 1e5),
    )  # fmt: skip
    matches = matches_of(salt, under(effects, salt))
    look = matches.looks[0]
    assert matches.scores[0] > 0.99
    assert look[SHIFT] == pytest.approx(0.06, abs=0.01) and look[THERMAL] == pytest.approx(2.0, abs=0.4)
    assert look[KA2] == pytest.approx(1 / 3, abs=0.05) and matches.metrics[0, 0] ** -0.5 == pytest.approx(
        5.64, rel=2e-4
    )


def test_a_texture_is_found():
    """One that has no slope where there is none, as in any cubic crystal."""
    salt = rock_salt(5.64, 11, 17, "NaCl")
    effects = Effects(texture=(0.5, 0.5), background=(10.0, 10.0), counts=(1e5, 1e5), instrument=(0.1, 0.1))
    for seed in (1, 4):  # along 111, along 100
        matches = matches_of(salt, under(effects, salt, seed))
        assert matches.scores[0] > 0.97 and matches.looks[0, TEXTURE] == pytest.approx(np.log(0.5), abs=0.1)


def test_an_ideal_pattern_has_no_look():
    salt = rock_salt(5.64, 11, 17, "NaCl")
    matches = matches_of(salt, under(Effects(), salt))
    others = [place for place, name in enumerate(LOOK) if name not in ("shift", "width", "scale")]
    assert (matches.looks[0, others] == 0).all() and abs(matches.looks[0, SHIFT]) < 1e-3
    assert set(EFFECTS) >= {"laboratory"}
