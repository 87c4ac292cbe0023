"""What is predicted: names, units, classes, and the scale on which a regression trains."""

from dataclasses import dataclass

import numpy as np

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS


@dataclass(frozen=True)
class Target:
    """One property.  A regression has a unit, a classification has classes (index = position)."""

    name: str
    kind: str  # "regression" or "classification"
    unit: str = ""
    classes: tuple[str, ...] = ()
    least: float = float("-inf")  # a regression is never below

    @property
    def width(self):
        """Number of outputs its head has."""
        return len(self.classes) or 1


TARGETS = {
    target.name: target
    for target in (
        Target("e_form", "regression", unit="eV/atom"),
        Target("band_gap", "regression", unit="eV", least=0.0),
        Target("crystal_system", "classification", classes=CRYSTAL_SYSTEMS),
        Target("space_group", "classification", classes=tuple(str(number) for number in range(1, 231))),
    )
}


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation of a regression target over the training crystals, in its unit."""

    mean: float
    std: float

    @classmethod
    def fit(cls, values):
        """Of the finite values of one target; raises ValueError where they do not vary."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        if len(values) < 2 or values.std() == 0:
            raise ValueError(f"{len(values)} labelled training crystals with no spread: nothing to learn from")
        return cls(float(values.mean()), float(values.std()))

    def normalise(self, values):
        return (values - self.mean) / self.std

    def restore(self, values):
        return values * self.std + self.mean
