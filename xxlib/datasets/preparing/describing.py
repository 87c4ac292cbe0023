"""Crystals -> what robocrystallographer writes of them: the work that worker processes do."""

import signal
import warnings


def written(time_limit, crystals):
    """(id, description, why there is none) of each Crystal.

    One that takes longer than the limit (s) ends this process by SIGALRM: only for processes that may die (workers.py).
    """
    return [(crystal.id, *_attempt(time_limit, crystal)) for crystal in crystals]


def _attempt(time_limit, crystal):
    signal.setitimer(signal.ITIMER_REAL, time_limit)
    try:
        return description(crystal), ""
    except ImportError:  # nothing is wrong with the crystal
        raise
    except Exception as error:  # at one crystal of thousands: said, not fatal
        return "", " ".join(f"{type(error).__name__}: {error}".split())[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def description(crystal):
    """A Crystal in the words of robocrystallographer, without the oxidation states that it guesses.

    Raises whatever it raises, and ValueError where a site has several elements.
    """
    from pymatgen.core import Structure
    from robocrys import StructureCondenser, StructureDescriber

    if (crystal.occupancies < 1).any():
        raise ValueError("a site of several elements: a description needs one element a site")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure(crystal.lattice, crystal.atomic_numbers, crystal.frac_coords)
        condensed = StructureCondenser().condense_structure(structure)
        return StructureDescriber(describe_oxidation_states=False).describe(condensed)
