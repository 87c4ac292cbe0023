"""What is predicted: names, units, classes, and the scale on which a regression trains."""

from dataclasses import dataclass

import numpy as np

from xxlib.crystals.crystal import CRYSTAL_SYSTEMS


@dataclass(frozen=True)
class Target:
    """One property.  A regression has a unit, a classification has classes (index = position)."""

    name: str
    kind: str  # "regression" or "classification"
    title: str  # how a person calls it
    symbol: str = ""  # short, where there is one: in tables and on axes
    unit: str = ""
    error_unit: str = ""  # of its errors in tables and figures
    error_scale: float = 1.0  # what an error in `unit` is multiplied by for that
    classes: tuple[str, ...] = ()
    least: float = float("-inf")  # a regression is never below

    @property
    def width(self):
        """Number of outputs its head has."""
        return len(self.classes) or 1

    @property
    def short(self):
        """Symbol, or title where there is none."""
        return self.symbol or self.title

    def shown(self, metric):
        """How a metric of this target, such as "mae", is shown: name with unit, and the factor to that unit."""
        if metric in ("mae", "rmse"):
            unit, scale = self.error_unit, self.error_scale
        else:
            unit, scale = {"r2": ("", 1.0), "log_loss": ("nat", 1.0)}.get(metric, ("%", 100.0))
        return f"{self.name} {metric}" + (f" ({unit})" if unit else ""), scale


TARGETS = {
    target.name: target
    for target in (
        Target("e_form", "regression", "formation energy", "E_f", "eV/atom", "meV/atom", 1000.0),
        Target("band_gap", "regression", "band gap", unit="eV", error_unit="eV", least=0.0),
        Target("oqmd_e_form", "regression", "OQMD's formation energy", "", "eV/atom", "meV/atom", 1000.0),
        Target("oqmd_band_gap", "regression", "band gap of OQMD", unit="eV", error_unit="eV", least=0.0),
        Target("least_e_form", "regression", "formula's lowest formation energy", "", "eV/atom", "meV/atom", 1000.0),
        Target("crystal_system", "classification", "crystal system", classes=CRYSTAL_SYSTEMS),
        Target("space_group", "classification", "space group", classes=tuple(str(n) for n in range(1, 231))),
        Target("log_volume", "regression", "logarithm of the volume", "ln V", "ln A^3/atom", "%", 100.0),
        Target("log_bulk_modulus", "regression", "logarithm of the bulk modulus", "log K", "log10 GPa", "log10 GPa"),
        Target("log_shear_modulus", "regression", "logarithm of the shear modulus", "log G", "log10 GPa", "log10 GPa"),
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
