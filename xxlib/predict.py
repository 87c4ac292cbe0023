"""Checkpoint + formula + pattern -> answer with its uncertainty: xxlib predict --formula LaMnO3 scan.xrdml

A folder of scans, and a list of their formulas:  xxlib predict scans --formulas list.csv --out answers.csv answers.html
In a notebook:  model = Predictor.load("mp36k-wide");  model("LaMnO3", "scan.xrdml")
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from xxlib.answering.answer import SampleAnswer, in_terms_of, reason, table_of
from xxlib.answering.predictor import DEFAULT, Predictor
from xxlib.answering.questions import sample_of
from xxlib.datasets.writing import write_atomically
from xxlib.scans.folder import samples_of, series_of

OPTIONS = {"scan": "--number", "anode": "--anode", "sha256": "--sha256"}  # what Python's arguments are called here
TABLES, PICTURES = (".csv", ".html"), (".png", ".pdf", ".svg")
AXIS = {"2theta": "two_theta", "q": "q", "d": "d"}


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else list(map(str, arguments))
    parser = _parser()
    if "--json" in arguments:
        parser.error = lambda message: _refuse(message, json_too=True, status=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    one = len(options.scans) < 2 and not (options.scans and options.scans[0].is_dir()) and not options.formulas
    try:
        if one and not options.out and not options.series:
            _one(options)
        else:
            _several(options)
    except Exception as error:  # whatever it is, who reads JSON gets JSON
        _refuse(in_terms_of(reason(error), OPTIONS), options.json)


def _parser():
    description = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="xxlib predict", description=description, allow_abbrev=False)
    add = parser.add_argument
    scans = "file of a diffractometer, several, or a folder of them; without it the formula answers"
    add("scans", type=Path, nargs="*", metavar="SCAN", help=scans)
    add("--formula", help="of all scans, such as LaMnO3; without it the pattern answers")
    formulas = ".csv with columns file and formula; anode and scan (which one of a file) where needed"
    add("--formulas", type=Path, metavar="LIST", help=formulas)
    add("--anode", help="Cu, Mo, Co, ... or angstrom, where the file does not state the wavelength")
    add("--number", type=int, help="which scan, from 0, of a file with several")
    out = "answers.csv: a row a scan; answers.html: a report with pictures"
    add("--out", type=Path, nargs="+", default=[], metavar="FILE", help=out)
    series = "lines and answers over a series: .png, .pdf or .svg (in the report in any case)"
    add("--series", type=Path, metavar="FIGURE", help=series)
    changes = "of LIST, what changes in a series; else the number in which the names of the files differ"
    add("--along", metavar="COLUMN", help=changes)
    add("--axis", choices=AXIS, default="2theta", help="of the figures")
    add("--xy", type=Path, metavar="FOLDER", help="write each conditioned scan there as .xy")
    add("--model", default=DEFAULT, help=f"name, folder or URL of a checkpoint (default: {DEFAULT})")
    add("--sha256", help="of the checkpoint at a URL")
    add("--json", action="store_true", help="a JSON object a scan, one a line, and nothing else")
    return parser


def _one(options):
    """The answer for one sample, in lines to read or as JSON."""
    scan = options.scans[0] if options.scans else None
    sample = sample_of(options.formula, scan, _anode(options.anode), options.number)
    answer = _in_our_terms(Predictor.load(options.model, options.sha256).answer([sample])[0])
    _export([answer], options.xy)
    if options.json:
        print(_json(answer))
    else:
        _show(str(answer), sys.stdout)


def _several(options):
    """Answers for the samples of a folder, a list, or of several files: a row each, a refusal in its place."""
    figures = [options.series] if options.series else []
    for path in [*options.out, *figures]:
        suffixes = PICTURES if path in figures else TABLES
        if path.suffix not in suffixes:
            raise ValueError(f"{path}: write it as {' or '.join(suffixes)}")
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent}")
    if options.formula and options.formulas:
        raise ValueError("--formula is of all scans, --formulas of each: give one of them")
    place = options.scans
    if len(place) == 1 and place[0].is_dir():
        place = place[0]
    elif any(path.is_dir() for path in place):
        raise ValueError("give one folder, or files")
    samples = samples_of(place, options.formulas, without=[*options.out, *figures])
    series = series_of(samples, options.along)
    if options.series and series is None:
        raise ValueError("what changes in this series? Name a column of the list with --along")
    model, answers = Predictor.load(options.model, options.sha256), []
    of_all = {"formula": options.formula, "pattern": None, "anode": _anode(options.anode), "scan": options.number}
    asked = [[every if own is None else own for own, every in zip(sample, of_all.values())]
             for sample in zip(*(samples[name] for name in of_all))]  # fmt: skip
    for answer in tqdm(model.answers(asked), total=len(asked), unit="scan", disable=None):
        answers.append(_in_our_terms(answer))
        if options.json:
            print(_json(answers[-1]), flush=True)
    _export(answers, options.xy)
    axis = AXIS[options.axis]
    for path in options.out:
        if path.suffix == ".csv":
            write_atomically(path, _csv(samples, answers).encode())
        else:
            from xxlib import report

            write_atomically(path, report.page(model, answers, series, axis).encode())
    if options.series:
        from xxlib import report

        report.series_figure(answers, series, axis).savefig(options.series, dpi=300)
    n_refused = sum(bool(answer.refused) for answer in answers)
    if not options.json and not options.out:
        for answer in answers:
            _show(f"{answer.title}: {answer.refused}" if answer.refused else answer.line(), sys.stdout)
    _show(f"predict: {len(answers)} samples, {n_refused} refused (each says why)", sys.stderr)
    if n_refused == len(answers):
        sys.exit(1)


def _csv(samples, answers):
    """The table of answers as text: sentences joined, units in a column, then whatever the list has besides."""
    table = table_of(answers)
    units = "; ".join(f"{name} {unit}" for name, unit in table.attrs["units"].items())
    table["warnings"] = [" ".join(warnings) for warnings in table["warnings"]]
    others = samples.drop(columns=["pattern", "formula", "anode", "scan"]).add_prefix("list_")
    return table.assign(units=units).join(others).to_csv(index=False)


def _json(answer):
    return json.dumps(answer.json(), allow_nan=False)


def _in_our_terms(answer: SampleAnswer):
    """The same answer, its advice in terms of the options of this command."""
    warnings = tuple(in_terms_of(warning, OPTIONS) for warning in answer.warnings)
    return replace(answer, warnings=warnings, refused=in_terms_of(answer.refused, OPTIONS))


def _export(answers, folder):
    """Write the conditioned scan of each answer to a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for answer in answers:
        if answer.sample.conditioned is not None:
            stem, k = Path(answer.sample.name).stem, 1
            while (name := stem + (f"-{k}" if k > 1 else "")) in written:
                k += 1
            written.add(name)
            answer.sample.conditioned.save_xy(folder / f"{name}.xy")


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
