"""Sources behind a server, against one on this machine: Alexandria's listing, OPTIMADE, the Materials Project."""

import bz2
import json
import pickle
import re
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.datasets.sources import alexandria, materials_project
from xxlib.datasets.sources.optimade import optimade

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@contextmanager
def serving(answer):
    """URL of a server; answer: (path, query) -> (status, text or bytes)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            status, body = answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
            body = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- Alexandria's listing

LISTING = """<html>
<head><title>Index of /data/pbe/</title></head>
<body>
<h1>Index of /data/pbe/</h1><hr><pre><a href="../">../</a>
<a href="benchmarks/">benchmarks/</a>                                     12-Mar-2025 09:12       -
<a href="alexandria_001.json.bz2">alexandria_001.json.bz2</a>             12-Mar-2025 09:12    112M
<a href="alexandria_000.json.bz2">alexandria_000.json.bz2</a>             12-Mar-2025 09:12    110M
<a href="/data/pbe/alexandria_044.json.bz2?C=M">sorted</a> <a href="alexandria_044.json.bz2">alexandria_0..&gt;</a>
<a href="alexandria_ps_000.json.bz2">alexandria_ps_000.json.bz2</a>       12-Mar-2025 09:12    110M
<a href="convex_hull_pbe.json.bz2">convex_hull_pbe.json.bz2</a>           12-Mar-2025 09:12     12M
<a name="no link">alexandria_099.json.bz2</a></pre><hr></body>
</html>"""


def test_the_listing_of_alexandria_is_read_from_the_server():
    with serving(lambda path, query: (200, LISTING)) as url:
        found = alexandria.listing(url + "/data/pbe/")
    assert found == [f"{url}/data/pbe/alexandria_{i}.json.bz2" for i in ("000", "001", "044")]


def test_a_page_without_files_and_a_server_without_page_are_errors():
    with (
        serving(lambda path, query: (200, "<html>moved</html>") if path == "/a/" else (404, "")) as url,
        pytest.raises(ValueError, match="links to no file alexandria_NNN"),
    ):
        alexandria.listing(url + "/a/")
    with serving(lambda path, query: (404, "")) as url, pytest.raises(OSError, match="404"):
        alexandria.listing(url)


def test_alexandria_downloads_a_file_when_its_turn_comes(tmp_path, monkeypatch):
    pytest.importorskip("xxlib.datasets.downloads")
    monkeypatch.setenv("XXLIB_CACHE", str(tmp_path))
    asked = []

    def answer(path, query):
        asked.append(path.rsplit("/", 1)[-1])
        entry = {"data": {"mat_id": f"agm-{asked[-1][:14]}"}, "structure": SALT.as_dict()}
        return 200, bz2.compress(json.dumps({"entries": [entry]}).encode()) if asked[-1] else LISTING

    with serving(answer) as url:
        source = alexandria.alexandria(url + "/data/pbe/")
        assert asked == [""]
        first = next(records := source.records())
        assert first.crystal().id == "agm-alexandria_000" and asked == ["", "alexandria_000.json.bz2"]
        assert [record.id for record in records] == ["agm-alexandria_001", "agm-alexandria_044"]


# ---------------------------------------------------------------- OPTIMADE


def optimade_entry(id="a/1", **changes):
    attributes = {
        "lattice_vectors": SALT.lattice.matrix.tolist(),
        "cartesian_site_positions": SALT.cart_coords.tolist(),
        "species_at_sites": ["Na1"] * 4 + ["Cl"] * 4,
        "species": [
            {"name": "Na1", "chemical_symbols": ["Na", "K", "vacancy"], "concentration": [0.5, 0.25, 0.25]},
            {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0], "mass": [35.45], "attached": None},
        ],
        "dimension_types": [1, 1, 1],
        "structure_features": ["disorder"],
        "_exmpl_formation_energy": -1.5,
        "_exmpl_gap": None,
    }
    return {"id": id, "type": "structures", "attributes": attributes | changes}


def provider(entries, next_of=lambda url, offset: url):
    """A server of OPTIMADE, two entries a page."""
    asked = []

    def answer(path, query):
        asked.append((path, query))
        offset = int(query.get("page_offset", 0))
        more = f"http://{answer.host}{path}?page_offset={offset + 2}" if offset + 2 < len(entries) else None
        body = {
            "data": entries[offset : offset + 2],
            "links": {"next": next_of(more, offset)},
            "meta": {"api_version": "1.1.0", "data_returned": len(entries), "provider": {"name": "Example"}},
        }
        return 200, json.dumps(body)

    answer.asked = asked
    return answer


LABELS = {"e_form": "_exmpl_formation_energy", "band_gap": "_exmpl_gap"}


def test_optimade_follows_the_pages():
    answer = provider(
        [optimade_entry(f"a/{i}") for i in range(5)], lambda url, offset: url if offset else {"href": url}
    )
    with serving(answer) as url:
        answer.host = urlsplit(url).netloc
        source = optimade(url + "/v1/", LABELS, 'elements HAS "Na"')
        records = pickle.loads(pickle.dumps(list(source.records())))
        assert [record.id for record in records] == [f"a/{i}" for i in range(5)] == [r.id for r in source.records()]
    path, query = answer.asked[0]
    assert path == "/v1/structures" and query["filter"] == 'elements HAS "Na"'
    assert "_exmpl_gap" in query["response_fields"] and "species_at_sites" in query["response_fields"]
    assert source.n_records == 5 and source.metadata["name"] == "Example"
    assert records[4].columns == {"e_form": -1.5}
    crystal = records[4].crystal()
    assert crystal.atomic_numbers.tolist() == [11, 19] * 4 + [17] * 4
    assert crystal.occupancies.tolist() == [0.5, 0.25] * 4 + [1.0] * 4
    assert np.allclose(crystal.frac_coords[[0, 2, 4, 6, 8, 9, 10, 11]], SALT.frac_coords)


BAD_ENTRIES = {
    "no id": (optimade_entry(None), "its id is None"),
    "no attributes": ({"id": "a"}, "'attributes' is missing"),
    "attributes null": ({"id": "a", "attributes": None}, "no entry"),
    "no species": (optimade_entry(species=None), "'species' is missing"),
    "unknown species": (optimade_entry(species_at_sites=["Na1"] * 4 + ["Br"] * 4), "'Br' is missing"),
    "one position less": (optimade_entry(cartesian_site_positions=[[0, 0, 0]] * 7), "8 sites but coordinates"),
    "a layer": (optimade_entry(dimension_types=[1, 1, 0]), "not periodic"),
    "no third vector": (optimade_entry(lattice_vectors=[[4, 0, 0], [0, 4, 0], [None] * 3]), "span no volume"),
    "implicit atoms": (optimade_entry(structure_features=["implicit_atoms"]), "not all atoms are listed (implicit_"),
    "assemblies": (optimade_entry(structure_features=["assemblies", "disorder"]), "(assemblies)"),
    "unknown element": (
        optimade_entry(species=[{"name": n, "chemical_symbols": ["X"], "concentration": [1]} for n in ("Na1", "Cl")]),
        "'X' is no element",
    ),
    "attached": (
        optimade_entry(
            species=[
                {"name": n, "chemical_symbols": ["O"], "concentration": [1], "attached": ["H"], "nattached": [2]}
                for n in ("Na1", "Cl")
            ]
        ),
        "attached to Na1",
    ),
    "concentrations": (
        optimade_entry(species=[{"name": n, "chemical_symbols": ["O"], "concentration": []} for n in ("Na1", "Cl")]),
        "1 elements but 0 concentrations",
    ),
    "label text": (optimade_entry(_exmpl_gap="wide"), "band_gap is 'wide'"),
}


def test_broken_entries_of_optimade_are_refused_and_the_others_go_on():
    entries = [entry for bad, _ in BAD_ENTRIES.values() for entry in (bad, optimade_entry("good"))]
    answer = provider(entries)
    with serving(answer) as url:
        answer.host = urlsplit(url).netloc
        records = list(optimade(url, LABELS).records())
    for (name, (_, reason)), bad, good in zip(BAD_ENTRIES.items(), records[::2], records[1::2], strict=True):
        assert good.crystal().id == "good"
        with pytest.raises(RejectedCrystal, match=re.escape(reason)):
            bad.crystal()
            pytest.fail(name)


@pytest.mark.parametrize(
    ("status", "text", "error", "words"),
    [
        (200, "<html>welcome</html>", ValueError, "does not answer as OPTIMADE specifies"),
        (200, '{"meta": {}}', ValueError, "does not answer as OPTIMADE specifies"),
        (200, '{"data": {"id": "1"}}', ValueError, "does not answer as OPTIMADE specifies"),
        (200, '{"data": [{"id"', ValueError, "does not answer as OPTIMADE specifies"),
        (404, "not here", ValueError, r"\(HTTP 404\) does not answer"),
        (403, '{"errors": [{"detail": "page_limit is too large"}]}', OSError, "HTTP 403: page_limit is too large"),
    ],
)
def test_an_answer_that_is_not_of_optimade_is_one_clear_line(status, text, error, words):
    with serving(lambda path, query: (status, text)) as url, pytest.raises(error, match=words) as caught:
        optimade(url)
    assert url in str(caught.value) and "\n" not in str(caught.value)


def test_pages_in_a_circle_end():
    answer = provider(
        [optimade_entry(f"a/{i}") for i in range(5)], lambda more, offset: f"http://{answer.host}/v1/x?a=1"
    )
    with serving(answer) as url:
        answer.host = urlsplit(url).netloc
        with pytest.raises(ValueError, match="next page of itself"):
            list(optimade(url).records())


def test_labels_of_another_name_are_refused():
    with pytest.raises(ValueError, match="no label energy: there are e_form"):
        optimade("http://127.0.0.1:9", {"energy": "_x_energy"})


# ---------------------------------------------------------------- Materials Project


def document(material_id="mp-1", **changes):
    """A document of the summary endpoint, reduced to the fields that are asked for."""
    symmetry = {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225, "point_group": "m-3m", "symprec": 0.1}
    known = {"formation_energy_per_atom": -2.1, "band_gap": 5.0, "symmetry": symmetry | {"version": "2.5.0"}}
    return {"material_id": material_id, "structure": json.loads(SALT.to_json()), **known} | changes


def test_a_document_of_the_materials_project():
    record = pickle.loads(pickle.dumps(materials_project.record_of_document(document(), "here")))
    assert record.id == "mp-1" and record.columns == {"e_form": -2.1, "band_gap": 5.0, "space_group": 225}
    assert np.array_equal(record.crystal().lattice, SALT.lattice.matrix)
    assert record.crystal().atomic_numbers.tolist() == [11] * 4 + [17] * 4
    decoded = materials_project.record_of_document(document(structure=SALT), "here")  # as mp-api hands it over
    assert np.array_equal(decoded.crystal().frac_coords, record.crystal().frac_coords)
    empty = dict.fromkeys(("formation_energy_per_atom", "band_gap", "symmetry"))
    unlabelled = materials_project.record_of_document(document(**empty), "here")
    assert unlabelled.columns == {} and unlabelled.crystal().id == "mp-1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structure": None}, "no structure of pymatgen"),
        ({"structure": {"sites": []}}, "'lattice' is missing"),
        ({"band_gap": "wide"}, "band_gap is 'wide'"),
        ({"symmetry": "Cubic"}, "no document"),
    ],
)
def test_a_broken_document_is_refused(changes, reason):
    with pytest.raises(RejectedCrystal, match=reason):
        materials_project.record_of_document(document(**changes), "here").crystal()


def test_without_key_or_client_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"MP_API_KEY is not set: .*https://"):
        materials_project.materials_project()
    monkeypatch.setenv("MP_API_KEY", "0" * 32)
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(ValueError, match="pip install mp-api"):
        materials_project.materials_project()


def test_the_client_of_the_materials_project_pages_through_the_summary(monkeypatch):
    pytest.importorskip("mp_api.client", reason="the optional client: pip install mp-api")
    monkeypatch.setenv("MP_API_KEY", "0" * 32)
    monkeypatch.setattr(materials_project, "PAGE", 2)
    documents = [document(f"mp-{i}") for i in range(1, 6)]
    asked = []

    def answer(path, query):
        asked.append((path, query))
        if path == "/heartbeat":
            state = {"status": "OK", "db_version": "2025.09.25", "version": "0.87.0"}
            return 200, json.dumps(state | {"access_controlled_batch_ids": ["gnome_r2scan_statics"]})
        page, size = int(query["_page"]), int(query["_limit"])
        data = documents[(page - 1) * size : page * size]
        return 200, json.dumps({"data": data, "meta": {"total_doc": len(documents)}})

    with serving(answer) as url:
        source = materials_project.materials_project(url + "/", elements=["Na"])
        records = list(source.records())
    assert [record.id for record in records] == [f"mp-{i}" for i in range(1, 6)]
    assert records[4].crystal().atomic_numbers.tolist() == [11] * 4 + [17] * 4
    assert source.metadata["version"] == "2025.09.25"
    path, query = asked[-1]
    assert path.rstrip("/") == "/materials/summary" and query["_sort_fields"] == "material_id"
    assert query["elements"] == "Na" and "structure" in query["_fields"]
