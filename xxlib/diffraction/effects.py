"""What a laboratory does to patterns, as ranges that are drawn from for each crystal: for training and noise studies.

What is drawn is a function of a seed and of the crystal's place among those drawn for (draw), whatever part of them is
rendered together; simulation.py renders it.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from xxlib.diffraction import patterns
from xxlib.diffraction.patterns import TWO_THETA

RADIUS = 200.0  # mm, of the goniometer: the displacement over it is what counts
FWHM = np.sqrt(8 * np.log(2))  # of a Gaussian, in standard deviations


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Ranges (low, high) that effects are drawn from, uniformly; where marked, uniformly in the logarithm.

    None: the effect is absent.  A range of no width, as in Effects(counts=(500, 500)), gives every crystal the same.
    """

    lattice: tuple[float, float] | None = None  # %, change of every d
    thermal: tuple[float, float] | None = None  # angstrom^2, B of all atoms: factors exp(-2 B sin^2 / lambda^2)
    texture: tuple[float, float] | None = None  # March's coefficient (log), where h, k, l are known; 1 = none
    line_scatter: tuple[float, float] | None = None  # where they are not: log-normal factors, their standard deviation
    zero_shift: tuple[float, float] | None = None  # degree
    displacement: tuple[float, float] | None = None  # mm below the axis, at RADIUS
    instrument: tuple[float, float] | None = None  # degree, full width at half maximum, Gaussian; else 2.3548 SIGMA
    size: tuple[float, float] | None = None  # nm (log), of crystallites: Lorentzian, Scherrer's equation
    strain: tuple[float, float] | None = None  # %, microstrain: Lorentzian
    impurity: tuple[float, float] | None = None  # of 100, the strongest of the lines that do not belong there
    ka2: float = 0.0  # probability that K-alpha2 is in the beam
    overlap: tuple[float, float] | None = None  # of the floor under overlapping peaks, the share that goes too
    residue: tuple[float, float] | None = None  # of 100, what else is left of the background, standard deviation
    background: tuple[float, float] | None = None  # of 100 (log), what was subtracted: it leaves its noise
    counts: tuple[float, float] | None = None  # (log) in the strongest point
    start: tuple[float, float] | None = None  # degree, where the measured range begins
    end: tuple[float, float] | None = None  # degree, and where it ends
    cut: float = 1.0  # probability that the range is not all of 5-90
    cell: tuple[float, float] | None = None  # %, standard deviation of a strain that keeps the symmetry, with h, k, l
    ideal: float = 0.0  # probability that a crystal has none of these but `cell`
    ideal_width: tuple[float, float] | None = None  # degree (log), of such a crystal, in place of `instrument`


LOGARITHMIC = ("texture", "size", "background", "counts")
LATER = ("cell", "ideal", "ideal_width")  # drawn last, so that the others stay as they were
ABSENT = {"texture": 1.0, "instrument": FWHM * patterns.SIGMA, "size": np.inf, "counts": np.inf,
          "start": TWO_THETA[0], "end": TWO_THETA[-1]}  # fmt: skip

EFFECTS = {
    # Bragg-Brentano instruments and powders as prepared every day.  Cells: PBE, which made the crystals, is too large
    # by 1.3 % on average and by up to 3.5 % (Haas, Tran, Blaha, Phys. Rev. B 79, 085104, 2009).
    "laboratory": Effects(
        lattice=(-3.0, 1.0),
        thermal=(0.0, 2.5),
        texture=(0.5, 2.0),
        line_scatter=(0.0, 0.5),
        zero_shift=(-0.1, 0.1),
        displacement=(-0.2, 0.2),
        instrument=(0.05, 0.2),
        size=(15.0, 500.0),
        strain=(0.0, 0.3),
        impurity=(0.0, 10.0),
        ka2=0.7,
        overlap=(0.5, 1.5),
        residue=(0.0, 0.5),
        background=(0.2, 30.0),
        counts=(500.0, 100_000.0),
        start=(5.0, 20.0),
        end=(50.0, 90.0),
        cut=0.5,
    ),
    # To train under: of every crystal a new cell each time; what a worse instrument and a worse powder add.
    "strained": Effects(cell=(0.0, 5.0)),
}
# What reads ideal patterns and measured ones: half of each; and ideal ones of any diffractometer.
EFFECTS["mixed"] = dataclasses.replace(EFFECTS["laboratory"], cell=(0.0, 5.0), ideal=0.5)
EFFECTS["widths"] = dataclasses.replace(EFFECTS["mixed"], ideal_width=(0.03, 0.4))
EFFECTS["wide"] = dataclasses.replace(
    EFFECTS["laboratory"], thermal=(0.0, 3.0), texture=(0.4, 2.5), zero_shift=(-0.2, 0.2), displacement=(-0.3, 0.3),
    instrument=(0.05, 0.25), size=(10.0, 1000.0), strain=(0.0, 0.5), impurity=(0.0, 15.0), overlap=(0.0, 1.5),
    residue=(0.0, 1.0), background=(0.2, 60.0), counts=(200.0, 100_000.0), cell=(0.0, 5.0),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Drawn:
    """Effects as they were drawn for n crystals."""

    values: dict[str, np.ndarray]  # field of Effects -> (n,) float64 in its unit
    keys: np.ndarray  # (n,) uint64: from it comes what differs between the lines and points of a crystal

    def __getitem__(self, part):
        return Drawn({name: values[part] for name, values in self.values.items()}, self.keys[part])


def draw(effects, n, seed):
    """Effects drawn for n crystals; seed: an int or several, as numpy.random.default_rng takes them.

    The numbers behind an effect do not depend on which others there are.
    """
    random = np.random.default_rng(seed)
    names = [field.name for field in dataclasses.fields(Effects) if field.name not in LATER]
    values = {}
    shares, keys = random.random((len(names), n)), random.integers(2**64, size=n, dtype=np.uint64)
    for name, share in zip([*names, "cell"], [*shares, random.random(n)]):
        chosen = getattr(effects, name)
        if name in ("ka2", "cut"):
            values[name] = np.where(share < chosen, 1.0, 0.0)
        elif chosen is None:
            values[name] = np.full(n, ABSENT.get(name, 0.0))
        elif name in LOGARITHMIC:
            values[name] = _logarithmic(chosen, share)
        else:
            values[name] = chosen[0] + (chosen[1] - chosen[0]) * share
    if effects.ideal:
        ideal = random.random(n) < effects.ideal
        values |= {name: np.where(ideal, ABSENT.get(name, 0.0), values[name]) for name in names}
        if effects.ideal_width:
            width = _logarithmic(effects.ideal_width, random.random(n))
            values["instrument"] = np.where(ideal, width, values["instrument"])
    return Drawn(values, keys)


def _logarithmic(limits, share):
    low, high = limits
    return low * (high / low) ** share
