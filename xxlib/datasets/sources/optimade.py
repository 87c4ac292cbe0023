"""Crystals of any provider of OPTIMADE (optimade.org), the common interface of materials databases, version 1."""

import json
from functools import partial
from urllib.parse import urlencode, urljoin

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.crystals.structures import crystal_from_optimade, refusing
from xxlib.datasets.sources import Record, Source, read_labels, refused

STRUCTURE = [
    "lattice_vectors",
    "cartesian_site_positions",
    "species_at_sites",
    "species",
    "dimension_types",
    "structure_features",
]
LABELS = ("e_form", "band_gap", "space_group")
PAGE = 100  # structures in one answer, as far as the server agrees
MAX_BYTES = 100_000_000  # of one answer
TIMEOUT = 120  # seconds without a byte


def optimade(url, labels=None, filter=None):
    """Source of the structures of a provider, in the order in which it lists them.

    url: base URL, such as "https://alexandria.icams.rub.de/pbe".  labels: which property of the provider is which
    label, such as {"e_form": "_alexandria_formation_energy_per_atom"}; they must be in eV/atom and eV, which nobody
    checks.  filter: in OPTIMADE's language, such as 'elements HAS ALL "Li","O"'.
    Raises ValueError for an answer that is not OPTIMADE's, OSError for none.
    """
    labels = labels or {}
    unknown = sorted(set(labels) - set(LABELS))
    if unknown:
        raise ValueError(f"no label {', '.join(unknown)}: there are {', '.join(LABELS)}")
    url = url.rstrip("/").removesuffix("/structures").removesuffix("/v1") + "/v1/structures"
    query = {"response_fields": ",".join([*STRUCTURE, *labels.values()]), "page_limit": PAGE}
    first = f"{url}?{urlencode(query | ({'filter': filter} if filter else {}))}"
    meta = _page(first).get("meta") or {}
    provider = meta.get("provider") or {}
    metadata = {
        "kind": "optimade",
        "name": provider.get("name", url),
        "version": f"OPTIMADE {meta.get('api_version', '1')}, data as served at {meta.get('time_stamp', 'no time')}",
        "licence": "the provider's",
        "url": first,
        "functional": "the provider's",
        "labels": {name: f"{property} of the provider" for name, property in labels.items()},
    }
    n_records = meta.get("data_returned")
    return Source(metadata, partial(_records, first, labels), n_records if isinstance(n_records, int) else None)


def _records(url, labels):
    visited = set()
    number = 0
    while url:
        if url in visited:
            raise ValueError(f"{url} is the next page of itself")
        visited.add(url)
        page = _page(url)
        for entry in page["data"]:
            number += 1
            yield record_of_entry(entry, labels, f"{url.split('/v1/')[0]} entry {number}")
        following = (page.get("links") or {}).get("next")
        if isinstance(following, dict):
            following = following.get("href")
        url = following and urljoin(url, following)


def record_of_entry(entry, labels, place):
    """Record of an entry (a dict) of the structures endpoint."""
    try:
        with refusing("entry"):
            id, attributes = entry["id"], entry["attributes"]
            columns = read_labels(**{name: attributes.get(property) for name, property in labels.items()})
            content = {name: attributes[name] for name in STRUCTURE if attributes.get(name) is not None}
            if not (isinstance(id, str) and id):
                raise RejectedCrystal(f"its id is {id!r}"[:200])
    except RejectedCrystal as error:
        return refused(place, place, str(error))
    return Record(id, place, content, _read, columns)


def _read(id, attributes):
    return crystal_from_optimade(attributes, id)


def _page(url):
    """The decoded answer to a GET; tried again where the server is busy."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(total=5, backoff_factor=1, status_forcelist=[429, 500, 502, 503, 504], raise_on_status=False)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        with session.get(url, timeout=TIMEOUT, stream=True) as response:
            text = response.raw.read(MAX_BYTES + 1, decode_content=True)
            status = response.status_code
    if len(text) > MAX_BYTES:
        raise ValueError(f"{url} answers with more than {MAX_BYTES / 1e6:g} MB")
    try:
        page = json.loads(text)
        if status != 200:
            details = [str(error.get("detail") or error.get("title")) for error in page.get("errors") or []]
            raise OSError(f"{url}: HTTP {status}: {'; '.join(details)[:300]}")
        if not isinstance(page["data"], list):
            raise TypeError("`data` is no list")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{url} (HTTP {status}) does not answer as OPTIMADE specifies: {text[:60]!r}") from error
    return page
