"""Checkpoint + formula + pattern -> answer with its uncertainty: python -m xxlib.predict --formula LaMnO3 scan.xrdml

In a notebook:  model = Predictor.load("mp36k-small");  model("LaMnO3", "scan.xrdml")
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from xxlib.answering.predictor import DEFAULT, Predictor
from xxlib.datasets.downloads import DownloadError
from xxlib.datasets.store import DatasetError
from xxlib.scans.samples import read_sample
from xxlib.training.runs import CheckpointError


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xxlib.predict", description=__doc__.split("\n")[0])
    parser.add_argument("scan", type=Path, nargs="?", help="file of a diffractometer; without it the formula answers")
    parser.add_argument("--formula", help="such as LaMnO3; without it the pattern answers")
    parser.add_argument("--anode", help="Cu, Mo, Co, ... or angstrom, where the file does not state the wavelength")
    parser.add_argument("--number", type=int, help="which scan, from 0, of a file with several")
    parser.add_argument("--model", default=DEFAULT, help=f"name, folder or URL of a checkpoint (default: {DEFAULT})")
    parser.add_argument("--sha256", help="of the checkpoint at a URL")
    parser.add_argument("--json", action="store_true", help="the last line is the answer as one JSON object")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        sample = read_sample(options.formula, options.scan, anode=_anode(options.anode), scan=options.number)
        answer = Predictor.load(options.model, options.sha256).answer([sample])[0]
    except (CheckpointError, DatasetError, DownloadError, ValueError) as error:
        if options.json:
            print(json.dumps({"refused": str(error)}))
        sys.exit(f"predict: {error}")
    print(answer)
    if options.json:
        print(json.dumps(answer.json()))


def _anode(text):
    """An anode's name or a wavelength in angstrom."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


if __name__ == "__main__":
    main()
