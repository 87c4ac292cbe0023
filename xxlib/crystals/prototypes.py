"""Generated crystals: known structure types, decorated anew, partly substituted, distorted.

A crystal is drawn in five steps:
1. one of the AFLOW prototypes that pymatgen carries (Mehl et al., Comput. Mater. Sci. 136, S1 (2017));
2. new elements for its sublattices, as substitutions.py has them: ions, neutral in sum, where the prototype is ionic,
   elements of similar radius and electronegativity where not;
3. partial substitution: part of one sublattice, often of a doubled cell, goes to one more element, ordered;
4. symmetry breaking: strain and displacements averaged over the group that one or two of the crystal's own symmetry
   operations generate, so that exactly this subgroup is left;
5. the conventional cell of what spglib sees within 0.1 angstrom, at the volume of pymatgen's DLSVolumePredictor
   (Chu et al., Comput. Mater. Sci. 146, 184 (2018)).  Nothing is relaxed.

Crystal i of a seed depends on (seed, i) alone, so that any part of a set can be made again, anywhere.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xxlib.crystals import substitutions
from xxlib.crystals.crystal import SYMPREC, Crystal, RejectedCrystal, cell_from_lattice, check, lattice_from_cell

SHARE_OF_ELEMENTS = {1: 0.02, 2: 0.33, 3: 0.38, 4: 0.27}  # how often a crystal of so many elements is tried
MAX_SPLITS = 2  # partial substitutions of one crystal
MAX_PRIMITIVE_ATOMS = 20  # of a prototype, and of what is doubled without need
MAX_CELL_ATOMS = 40  # of the conventional cell
MAX_VOLUME = 500.0  # cubic angstrom, of the conventional cell
MIN_VOLUME_PER_ATOM = 5.0  # cubic angstrom; diamond has 5.7

DISTORTED = 0.4  # share of the crystals whose symmetry is broken
STRAIN = (0.01, 0.06)  # standard deviation of the components of the strain, drawn between these
DISPLACEMENT = (0.05, 0.25)  # angstrom, of the components of the displacements before they are averaged

EXACT = 0.01  # angstrom, tolerance for the symmetry of what has not been distorted


@dataclass(frozen=True, eq=False)
class Prototype:
    """A structure type: a primitive cell and which of its sites are alike."""

    name: str  # AFLOW label, such as "AB_cF8_225_a_b"
    lattice: np.ndarray  # (3, 3) angstrom
    frac: np.ndarray  # (n, 3)
    kinds: np.ndarray  # (n,) int, the sublattice of each site
    elements: tuple[int, ...]  # atomic number of each sublattice in the crystal that gave the type its name
    ions: tuple[int, ...] | None  # row of each sublattice in substitutions.ions(); None where not ionic


def generate(seed, start=0) -> Iterator[Crystal]:
    """Crystals number start, start + 1, ... of a seed, without end; duplicates occur."""
    return (generated(seed, i) for i in itertools.count(start))


def generated(seed, i):
    """Crystal number i of a seed: cell rounded to 1e-4 angstrom and 1e-4 degree, coordinates to 1e-6."""
    rng = np.random.default_rng((seed, i))
    while True:
        try:
            return _draw(rng, f"gen-{seed}-{i}")
        except RejectedCrystal:
            continue


def _draw(rng, id):
    n_elements = rng.choice(list(SHARE_OF_ELEMENTS), p=list(SHARE_OF_ELEMENTS.values()))
    candidates = [p for p in prototypes() if 0 <= n_elements - len(p.elements) <= MAX_SPLITS]
    prototype = candidates[rng.integers(len(candidates))]
    lattice, frac, kinds = prototype.lattice, prototype.frac, prototype.kinds
    if prototype.ions:
        species, another = substitutions.new_ions(rng, prototype.ions, np.bincount(kinds)), substitutions.another_ion
    else:
        species, another = substitutions.new_elements(rng, prototype.elements), substitutions.another_element
    while len(species) < n_elements:
        lattice, frac, kinds, split = _split(rng, lattice, frac, kinds)
        species.append(another(rng, species, split))
    numbers = (substitutions.ions()[0][species] if prototype.ions else np.array(species))[kinds]
    if len(np.unique(numbers)) < n_elements:
        raise RejectedCrystal("an element occurs on two sublattices")

    lattice = lattice * dls_scale(lattice, frac, numbers)
    if rng.random() < DISTORTED:
        lattice, frac = _distort(rng, lattice, frac, numbers)
        lattice = lattice * dls_scale(lattice, frac, numbers)
    return _conventional(id, lattice, frac, numbers)


# Structure types


@lru_cache(maxsize=1)
def prototypes():
    """The AFLOW prototypes that pymatgen carries whose primitive cell has at most MAX_PRIMITIVE_ATOMS."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    types = []
    for record in AFLOW_PROTOTYPE_LIBRARY:
        structure = record["snl"].structure
        numbers = np.array([site.specie.Z for site in structure])
        cell = structure.lattice.matrix, structure.frac_coords, numbers
        lattice, frac, numbers = _standard(*cell, EXACT, primitive=True)
        if len(numbers) > MAX_PRIMITIVE_ATOMS:
            continue
        elements, kinds = np.unique(numbers, return_inverse=True)
        elements = tuple(int(z) for z in elements)
        ions = substitutions.ions_of(elements, np.bincount(kinds))
        if ions or set(elements) <= set(substitutions.ELEMENTS):
            types.append(Prototype(record["tags"]["aflow"], lattice, frac, kinds, elements, ions))
    return tuple(types)


# Partial substitution and distortion


def _split(rng, lattice, frac, kinds):
    """Give part of one sublattice a kind of its own: (lattice, frac, kinds, the kind that was split).

    The cell is doubled where the sublattice has one site, and else half of the time where there is room; the part is
    then a layer, otherwise any sites.
    """
    kind = int(rng.integers(kinds.max() + 1))
    if (kinds == kind).sum() == 1 or (2 * len(kinds) <= MAX_PRIMITIVE_ATOMS and rng.random() < 0.5):
        axis = int(rng.integers(3))
        image = np.eye(3)[axis]
        stretch = 1 + image
        lattice = lattice * stretch[:, None]
        frac, kinds = np.concatenate([frac, frac + image]) / stretch, np.concatenate([kinds, kinds])
        sites = np.flatnonzero(kinds == kind)
        sites = sites[np.argsort(frac[sites, axis].round(4), kind="stable")]
    else:
        sites = rng.permutation(np.flatnonzero(kinds == kind))
    kinds = kinds.copy()
    kinds[sites[: rng.integers(1, len(sites))]] = kinds.max() + 1
    return lattice, frac, kinds, kind


def _distort(rng, lattice, frac, numbers):
    """Strain and displace at random, averaged over a subgroup of the symmetry: (lattice, frac)."""
    import spglib

    symmetry = spglib.get_symmetry((lattice, frac, numbers), symprec=EXACT)
    if symmetry is None:
        raise RejectedCrystal("spglib finds no symmetry")
    picked = rng.integers(len(symmetry["rotations"]), size=rng.integers(1, 3))
    rotations, permutations = _generated_group(
        [
            (rotation, _permutation(lattice, frac, numbers, rotation, translation))
            for rotation, translation in zip(symmetry["rotations"][picked], symmetry["translations"][picked])
        ]
    )
    strain = rng.uniform(*STRAIN) * rng.standard_normal((3, 3))
    strained = lattice @ (np.eye(3) + (strain + strain.T) / 2)
    metric = np.einsum("gji,jk,gkl->il", rotations, strained @ strained.T, rotations) / len(rotations)
    moves = rng.uniform(*DISPLACEMENT) * rng.standard_normal((len(frac), 3)) @ np.linalg.inv(lattice)
    averaged = np.zeros_like(frac)
    np.add.at(averaged, permutations, np.einsum("gij,nj->gni", rotations, moves) / len(rotations))
    return np.linalg.cholesky(metric), frac + averaged


def _permutation(lattice, frac, numbers, rotation, translation):
    """Which atom each atom lands on under a symmetry operation: (n,)."""
    offsets = (frac @ rotation.T + translation)[:, None] - frac
    distances = np.linalg.norm((offsets - np.round(offsets)) @ lattice, axis=-1)
    distances[numbers[:, None] != numbers] = np.inf
    return distances.argmin(1)


def _generated_group(operations):
    """Rotations (g, 3, 3) and permutations (g, n) of the group that operations (rotation, permutation) generate."""
    identity = (np.eye(3, dtype=operations[0][0].dtype), np.arange(len(operations[0][1])))
    group, new = {}, [identity]
    while new:
        rotation, permutation = new.pop()
        # Integers, so that a product is recognised exactly.
        key = rotation.tobytes(), permutation.tobytes()
        if key not in group:
            group[key] = rotation, permutation
            new += [(r @ rotation, p[permutation]) for r, p in operations]
    rotations, permutations = zip(*group.values())
    return np.array(rotations), np.array(permutations)


# Cells


@lru_cache(maxsize=1)
def _bonds():
    """Electronegativity, DLS radius (angstrom) and its slope by atomic number: (3, 95), NaN where unknown."""
    from pymatgen.core import Element
    from pymatgen.core.structure_prediction.volume_predictor import bond_params

    table = np.full((3, substitutions.LAST_ELEMENT + 1), np.nan)
    for z in substitutions.ELEMENTS:
        element = Element.from_Z(z)
        table[:, z] = element.X, float(bond_params[element.symbol]["r"]), float(bond_params[element.symbol]["k"])
    return table


def dls_scale(lattice, frac, numbers):
    """Factor on the cell lengths that gives the volume of pymatgen's DLSVolumePredictor without its bounds.

    lattice: (3, 3) angstrom; frac: (n, 3); numbers: (n,).  Bonds are r_i + r_j + (k_i + k_j) std(electronegativity)
    long, and the shortest contact, relative to its bond, has that length.  The nearest images are looked for one cell
    around, which is enough in reduced and conventional cells.
    """
    electronegativity, radius, slope = _bonds()
    reach = radius[numbers] + slope[numbers] * np.std(electronegativity[numbers])
    delta = frac[:, None] - frac
    delta = (delta - np.round(delta)) @ lattice
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ lattice
    distance = np.linalg.norm(delta[:, :, None] + shifts, axis=-1)
    distance[distance < 1e-8] = np.inf  # an atom and itself
    return 1 / (distance.min(-1) / (reach[:, None] + reach)).min()


def rounded_cell(lattice):
    """a, b, c (angstrom) and alpha, beta, gamma (degree) of cell vectors (3, 3), rounded to 1e-4: (6,)."""
    return cell_from_lattice(lattice).round(4)


def _standard(lattice, frac, numbers, symprec, primitive):
    """Standardised and idealised cell by spglib: (lattice, frac, numbers)."""
    import spglib

    try:
        cell = spglib.standardize_cell((lattice, frac, numbers), to_primitive=primitive, symprec=symprec)
    except spglib.SpglibError as error:
        raise RejectedCrystal(f"spglib finds no symmetry: {error}") from error
    if cell is None:
        raise RejectedCrystal("spglib finds no symmetry")
    return cell


def _conventional(id, lattice, frac, numbers):
    """Crystal in the conventional cell of the symmetry within SYMPREC, where rounding keeps equal lengths equal."""
    lattice, frac, numbers = _standard(lattice, frac, numbers, SYMPREC, primitive=False)
    if len(numbers) > MAX_CELL_ATOMS:
        raise RejectedCrystal("a large cell")
    lattice = lattice * dls_scale(lattice, frac, numbers)
    order = np.argsort(numbers, kind="stable")
    crystal = Crystal(
        id=id,
        lattice=lattice_from_cell(*rounded_cell(lattice)),
        atomic_numbers=numbers[order].astype(np.int64),
        frac_coords=(frac[order] % 1.0).round(6) % 1.0,
        occupancies=np.ones(len(numbers)),
    )
    if crystal.volume > MAX_VOLUME:
        raise RejectedCrystal("a large cell")
    if crystal.volume < MIN_VOLUME_PER_ATOM * len(numbers):
        raise RejectedCrystal("denser than diamond")
    return check(crystal)
