"""Questions that hang, crash and eat memory; a module of its own because worker processes import it."""

import ctypes
import signal

from xxlib import looks, serve
from xxlib.answering.questions import sample_of

LOOK = serve._look


DEEDS = {
    "hangs": lambda: (signal.alarm(2), ctypes.CDLL(None).sleep(600)),  # two seconds instead of those of the page
    "crashes": lambda: ctypes.string_at(0),
    "eats": lambda: bytearray(2 * serve.ANSWER_MEMORY),
    "stumbles": lambda: {}["missing"],
}


def hostile_sample(formula, *rest):
    """What its formula says, or the sample."""
    return DEEDS[formula]() if formula in DEEDS else sample_of(formula, *rest)


def look(question):
    looks.sample_of = hostile_sample
    return LOOK(question)
