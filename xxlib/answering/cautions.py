"""What the network and its training crystals make one doubt in an answer: warnings."""

import numpy as np

from xxlib.answering.inference import batch_of
from xxlib.answering.novelty import ALARM, signs_of_disagreement
from xxlib.answering.phases import EXPLAINED
from xxlib.crystals.compositions import reduced_formula
from xxlib.diffraction.scattering import Sticks
from xxlib.scans.conditioning import better_anode

RARE = 10  # training crystals: an element in fewer is warned of
GOOD_FIT = 0.6  # correlation of a scan with the lines of a training crystal


def cautions(model, sample, output, explanation):
    """Plain sentences of a Predictor on a Sample, its network's output, and its Explanation or None."""
    for z, symbol in zip(sample.element_ids, sample.elements):
        if model.elements[z] < RARE:
            yield f"Only {model.elements[z]} of the training crystals contain {symbol}."
    n_unmeasured = int(sample.hidden.sum())
    if "xrd" in sample.modalities and n_unmeasured and not model.ensemble.config.partial:
        yield f"{5 * n_unmeasured} of the 85 degree were not measured, and this model knows whole patterns only."
    trust = model.trust[sample.modalities]
    distance = trust.distance(output)
    if distance[0] > trust.farthest:
        yield (
            f"This sample is unlike the training crystals (farther from them than {ALARM:.0%} of ordinary ones): "
            "the interval and the probabilities may not hold."
        )
    explained = explanation is not None and explanation.none < EXPLAINED
    if model.contradiction and len(sample.modalities) == 2 and not explained:
        batch = batch_of(sample)
        alone = [model.ensemble(batch.only((modality,))) for modality in sample.modalities]
        (score,) = model.contradiction.score(signs_of_disagreement(*alone, output, distance))
        if score > model.contradiction.threshold:
            yield (
                f"Composition and pattern seem to contradict each other (only {1 - ALARM:.0%} of right pairs look "
                "like this): check the formula, the wavelength, and whether the sample is one phase."
            )
    by_angle = sample.conditioned is not None and sample.conditioned.axis == "two_theta"
    if by_angle and len(sample.element_ids):
        yield from _of_wavelength(model, sample)


def _of_wavelength(model, sample):
    """Where a training crystal has the formula: do its lines fit another wavelength better?"""
    formula = reduced_formula(sample.element_ids, sample.fractions)
    anodes = set()  # that one phase of this formula fits well, and the wavelength taken does not fit
    for row in np.flatnonzero(model.training.column("formula") == formula):
        two_theta, _ = model.training.take("two_theta", [row])
        intensity, _ = model.training.take("intensity", [row])
        lines = Sticks(two_theta.astype(float), intensity.astype(float), np.zeros((len(two_theta), 3), int))
        anode, fits = better_anode(sample.conditioned, lines)
        if fits["taken"] > GOOD_FIT:
            return
        if anode and fits[anode] > GOOD_FIT:
            anodes.add(anode)
    for anode in sorted(anodes):
        yield (
            f"The known lines of {formula} fit the wavelength of {anode} better than the "
            f"{sample.conditioned.wavelength:.4f} angstrom that was taken: check the anode."
        )
