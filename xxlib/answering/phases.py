"""What known crystals say of a sample beside the models: warnings."""

import dataclasses

import numpy as np

from xxlib.candidates.explanation import NothingToExplain
from xxlib.candidates.library import formula_key
from xxlib.candidates.stoichiometries import whole_amounts
from xxlib.crystals.compositions import reduced_formula
from xxlib.diffraction.wavelengths import ANODES
from xxlib.scans.conditioning import SAME_WAVELENGTH, condition
from xxlib.scans.scan import Scan, ScanError

UNEXPLAINED = 0.5  # probability of "none of these" from which other wavelengths and formulas are tried
EXPLAINED = 0.3  # at most so much of it for another wavelength, formula or phase to be named
EXPANDED = 0.1  # of ln: a cell whose volume is that far from the known one of its formula and space group is doubted
ALWAYS = (1, 6, 8)  # elements that air and preparation bring: a second phase may have them


def second_phase(known, sample, explanation):
    """(Explanation of the lines that the likeliest crystal leaves, its share of the intensity) of a Sample with a
    formula; (None, 0.0) where little is left, or nothing known explains it."""
    if explanation.none >= UNEXPLAINED:
        return None, 0.0
    rest, share = known.second_phase(explanation, [*sample.element_ids.tolist(), *ALWAYS])
    return (rest, share) if rest is not None and rest.none < EXPLAINED else (None, 0.0)


def warnings(known, sample, explanation, second):
    """Plain sentences on a Sample of a formula and a scan: another anode, another formula, a second phase.

    second: as second_phase() has it.
    """
    if sample.conditioned is None:
        return
    rest, share = second
    if rest is not None:
        crystal = rest.matches.crystals[rest.order[0]]
        name, id = known.library.formula(crystal), known.library.ids[int(crystal)].as_py()
        yield f"Lines that remain are those of {name} ({id}), {share:.0%} of the intensity: is it a second phase?"
    explained, by_angle = explanation.none < UNEXPLAINED, sample.conditioned.axis == "two_theta"
    if explained and not (by_angle and expansion(known, sample, explanation) >= EXPANDED):
        return
    formula = reduced_formula(sample.element_ids, sample.fractions)
    anode = _other_anode(known, sample) if by_angle else None
    if anode:
        yield (
            f"Crystals of {formula} explain the scan if it was measured with {anode}, not with the "
            f"{sample.conditioned.wavelength:.4f} angstrom that was taken: check the anode."
        )
    if anode or explained:
        return
    other = known.explain(without_formula(sample), in_brief=True)
    if len(other) and other.none < EXPLAINED:
        first = other.matches.crystals[other.order[0]]
        name, id = known.library.formula(first), known.library.ids[int(first)].as_py()
        yield (
            f"No known crystal explains the scan as {formula}, and {name} ({id}) does: check the formula, or which "
            "sample was measured."
        )
        return
    yield (
        f"No known crystal explains the scan as {formula}, with its elements exchanged or not: the formula may be "
        "wrong, the sample a mixture, or its structure not known yet."
    )


def expansion(known, sample, explanation):
    """How far, of ln, the volume of the first candidate is from that of a known crystal of the Sample's formula and of
    the same space group; 0.0 where none is known.

    With another wavelength all spacings are larger or smaller by one factor, and so is the cell that explains them.
    """
    first, library = explanation.order[0], known.library
    own = [formula_key(*one[:2]) for one in whole_amounts(sample.element_ids, sample.fractions)]
    alike = np.isin(library.formula_keys, np.array(own, np.uint64))
    alike &= library.space_groups == explanation.matches.space_groups[first]
    volumes = library.volumes[alike] / library.n_atoms[alike]
    return float(np.abs(np.log(explanation.matches.volumes[first] / volumes)).min()) if alike.any() else 0.0


def _other_anode(known, sample):
    """Name of the anode with whose wavelength a crystal of the formula explains the scan, with a cell of the size that
    is known; None where none does."""
    taken, best = sample.conditioned.wavelength, (EXPLAINED, None)
    for name, (_, _, wavelength) in ANODES.items():
        if abs(wavelength / taken - 1) < SAME_WAVELENGTH:
            continue
        try:
            explanation = known.explain(measured_with(sample, wavelength), in_brief=True)
        except (NothingToExplain, ScanError):
            continue
        if len(explanation) and expansion(known, sample, explanation) < EXPANDED:
            best = min(best, (explanation.none, name))
    return best[1]


def measured_with(sample, wavelength):
    """The Sample, had its scan been measured with another wavelength in angstrom; raises ScanError."""
    own = sample.conditioned
    conditioned = condition(Scan(two_theta=own.two_theta, intensity=own.intensity, format="arrays"), wavelength)
    return dataclasses.replace(
        sample, pattern=conditioned.pattern, hidden=conditioned.tokens_outside, conditioned=conditioned
    )


def without_formula(sample):
    """The Sample, of which only the pattern is known."""
    return dataclasses.replace(
        sample, formula="", element_ids=sample.element_ids[:0], fractions=sample.fractions[:0]
    )  # fmt: skip
