"""Checkpoint + formula + pattern -> answer with its uncertainty: python -m xxlib.predict --formula LaMnO3 scan.xrdml

In a notebook:  model = Predictor.load("mp36k-small");  model("LaMnO3", "scan.xrdml")
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from xxlib.answering.answer import in_terms_of, reason
from xxlib.answering.predictor import DEFAULT, Predictor, sample_of

OPTIONS = {"scan": "--number", "anode": "--anode", "sha256": "--sha256"}  # what Python's arguments are called here


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else list(map(str, arguments))
    description = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="xxlib predict", description=description, allow_abbrev=False)
    parser.add_argument("scan", type=Path, nargs="?", help="file of a diffractometer; without it the formula answers")
    parser.add_argument("--formula", help="such as LaMnO3; without it the pattern answers")
    parser.add_argument("--anode", help="Cu, Mo, Co, ... or angstrom, where the file does not state the wavelength")
    parser.add_argument("--number", type=int, help="which scan, from 0, of a file with several")
    parser.add_argument("--model", default=DEFAULT, help=f"name, folder or URL of a checkpoint (default: {DEFAULT})")
    parser.add_argument("--sha256", help="of the checkpoint at a URL")
    parser.add_argument("--json", action="store_true", help="the last line is the answer as one JSON object")
    if "--json" in arguments:
        parser.error = lambda message: _refuse(message, json_too=True, status=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        sample = sample_of(options.formula, options.scan, _anode(options.anode), options.number)
        answer = Predictor.load(options.model, options.sha256).answer([sample])[0]
        lines = in_terms_of(str(answer), OPTIONS)
        content = answer.json()
        content["warnings"] = [in_terms_of(warning, OPTIONS) for warning in content["warnings"]]
        last = json.dumps(content, allow_nan=False)
    except Exception as error:  # whatever it is, who reads JSON gets JSON
        _refuse(in_terms_of(reason(error), OPTIONS), options.json)
    _show(lines, sys.stdout)
    if options.json:
        print(last)


def _refuse(why, json_too, status=1):
    """Say in one line, and as the JSON that was asked for, why there is no answer."""
    if json_too:
        print(json.dumps({"refused": why}))
    _show(f"predict: {why}", sys.stderr)
    sys.exit(status)


def _show(text, stream):
    """Print a text; what the stream has no letters for (θ, a name of another encoding) as its code."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _anode(text):
    """An anode's name or a wavelength in angstrom."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


if __name__ == "__main__":
    main()
