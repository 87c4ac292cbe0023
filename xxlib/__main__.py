"""One command for the verbs of the package: xxlib predict, prepare, train, launch, describe, release, library, serve.

`xxlib predict ...` and `python -m xxlib.predict ...` are the same.
"""

import sys
from importlib import import_module

from xxlib import __version__

VERBS = {
    "predict": "an answer for a scan, a formula, or a folder of scans",
    "prepare": "crystals -> a dataset on disk",
    "describe": "a dataset of crystals -> what robocrystallographer writes of each",
    "train": "run.json -> a trained model and its metrics",
    "launch": "trainings in processes of their own: started, listed, followed, stopped",
    "release": "runs -> a checkpoint that answers",
    "library": "known crystals -> a library that explains scans",
    "serve": "a page on which visitors look at their scans",
}
USAGE = "\n".join(
    ["usage: xxlib VERB ...     (xxlib VERB --help says how, xxlib --version which)", ""]
    + [f"  {verb:8} {what}" for verb, what in VERBS.items()]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the verb that the arguments begin with; exits with status 2 where there is no such verb."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--version", "-V"):
        print(f"xxlib {__version__}")
    elif verb in ("--help", "-h"):
        print(USAGE)
    elif verb in VERBS:
        import_module(f"xxlib.{verb}").main(rest)
    else:
        sys.exit(f"xxlib: there is no {verb!r}: choose among {', '.join(VERBS)}")


if __name__ == "__main__":
    main()
