"""The pages of results: what the templates render today is what is committed, and no number in them is typed."""

import re

import jinja2
import pytest
from study import pages

TEMPLATES = sorted(path.name for path in pages.TEMPLATES.iterdir())
# Digits that measure nothing: names, settings, the paper's table of contents.
NAMES = re.compile(
    r"(?m)^\d+\. |\b(Table|Figure|NOMAD) \d+|\bat (5|15|25) %|\b(95|90|70|0\.5) %|\bat 5, 15, 25 %|\bR-3m\b|2θ"
    r"|\]\([^)]*\)|`[^`]*`"
)
NUMBER = re.compile(r"(?<![A-Za-z\d_])\d[\d.,]*")


def typed_numbers(source):
    """The numbers of a template that nothing looks up: digits of its text, numbers that its expressions bring along."""
    tree = jinja2.Environment().parse(source)
    found = []
    for output in tree.find_all(jinja2.nodes.Output):
        for node in output.nodes:
            if isinstance(node, jinja2.nodes.TemplateData):
                found += NUMBER.findall(NAMES.sub(" ", node.data))
            elif isinstance(node, jinja2.nodes.Const):
                found += [str(node.value)]
    return found + [str(node.value) for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, float)]


def test_results_are_what_the_runs_say():
    assert pages.RESULTS.read_text() == pages.render("results.md"), "run: make results"


def test_the_readme_is_what_the_runs_say():
    readme = pages.README.read_text()
    assert readme == pages.with_parts(readme), "run: make results"
    assert [found[1] for found in pages.PART.findall(readme)] == ["limits", "known", "findings"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_number_is_typed(template):
    assert typed_numbers((pages.TEMPLATES / template).read_text()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("E_f is at 69.5 meV/atom", ["69.5"]),
        ("over 72 crystals", ["72"]),
        ("gains {{ 18.3 }}", ["18.3", "18.3"]),
        ("gains {{ '18' }}", ["18"]),
        ("{% set gain = 18.3 %}{{ gain }}", ["18.3"]),
        ("the 95 % interval of [Table 1](table_1.csv) on mp36k, `val at 25%`, by {{ gain('a-s0', size[2]) }}", []),
    ],
)
def test_a_typed_number_is_seen(text, found):
    assert typed_numbers(text) == found


SCRATCH, PRETRAINED, LONGER = "bimodal-multi-s0", "bimodal-multi-from-both-s0", "bimodal-multi-steps16000-s0"


def test_a_page_says_ahead_only_of_what_is():
    assert pages.ahead(PRETRAINED, SCRATCH, "e_form").value > 0
    for run, other in ((SCRATCH, PRETRAINED), (PRETRAINED, LONGER)):
        with pytest.raises(ValueError, match="is not ahead"):
            pages.ahead(run, other, "e_form")


def test_a_page_says_level_only_of_what_is():
    assert pages.level(PRETRAINED, LONGER, "e_form").value >= 0
    with pytest.raises(ValueError, match="not level"):
        pages.level(PRETRAINED, SCRATCH, "e_form")


def test_a_difference_is_of_the_same_crystals():
    errors = [pages.archive.errors(run, "e_form") for run in (SCRATCH, PRETRAINED)]
    assert list(errors[0].index) == list(errors[1].index)
    gain = pages.gain(PRETRAINED, SCRATCH, "e_form")
    assert gain.value == pytest.approx((errors[0] - errors[1]).mean(), rel=1e-6)
    assert gain.half == pytest.approx(1.96 * (errors[0] - errors[1]).sem(), rel=1e-3)
