"""A long JSON list in a file, one item at a time: memory is that of one item.

The items are found by their braces and not decoded: a broken item spoils no other, and another process can decode it.
(ijson would take 0.7 of the time of this and json.loads, but refuses the NaN that these files hold.)
"""

import json
import re
import zipfile
import zlib

from xxlib.crystals.crystal import RejectedCrystal
from xxlib.crystals.structures import refusing
from xxlib.datasets.sources import Record, refused

CHUNK = 1 << 20  # bytes
MAX_ITEM = 10_000_000  # bytes; a structure of 1,000 atoms takes 300,000
# Up to the next brace outside a string, or to a quote: of a string that has escapes or goes on in the next chunk, or of
# the 257th.  (The bound keeps the memory small; a possessive group would, too, but Python before 3.11.5 errs in it.)
TO_BRACE = re.compile(rb'[^"{}]*+(?:"[^"\\]*+"[^"{}]*+){0,256}')
IN_STRING = re.compile(rb'\\.|"', re.DOTALL)


def records_of_list(read, opening, name, describe, read_crystal):
    """A Record of each item of a list in the file `name`, refused ones included; `read` and `opening` as of items().

    describe: decoded item -> (id, columns).  read_crystal: (id, text of the item) -> Crystal.
    """
    number = 0
    try:
        for number, text in enumerate(items(read, opening), start=1):
            place = f"{name} entry {number}"
            try:
                with refusing("entry"):
                    if text is None:
                        raise RejectedCrystal(f"more than {MAX_ITEM / 1e6:g} MB for one entry")
                    id, columns = describe(json.loads(text))
                    if not (isinstance(id, str) and id):
                        raise RejectedCrystal(f"its id is {id!r}"[:200])
            except RejectedCrystal as error:
                yield refused(place, place, str(error))
            else:
                yield Record(id, place, text, read_crystal, columns)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        place = f"{name} entry {number + 1}"
        yield refused(place, place, f"the rest of the file cannot be read: {error}")


def items(read, opening):
    """The text (bytes) of each {...} of a list; None for one of more than MAX_ITEM bytes.

    read: n -> up to n bytes of the file, b"" at its end.  opening: pattern of all before the first item, "[" included.
    What stands between two items besides a comma is an item too, a broken one.  Raises ValueError, after the items
    before, where the list is cut off.
    """
    buffer = read(CHUNK)
    match = opening.match(buffer)
    if not match:
        raise ValueError(f"no such list: it begins with {buffer[:40]!r}" if buffer else "an empty file")
    begin = position = match.end()  # of the item, or of what stands between two; of what is not looked at yet
    depth, in_string, too_large = 0, False, False
    while True:
        if in_string:
            match = IN_STRING.search(buffer, position)
            if match:
                position, in_string = match.end(), match[0] != b'"'
                continue
            position = max(position, len(buffer) - buffer.endswith(b"\\"))  # half an escape waits for its other half
        else:
            position = TO_BRACE.match(buffer, position).end()
            sign = buffer[position : position + 1]
            if depth == 0:
                between = buffer[begin:position].strip(b", \t\r\n")
                if between.startswith(b"]"):
                    return
                if sign and (between or sign != b"{"):
                    yield between or sign
                if sign:
                    begin = position + (sign != b"{")
            position += len(sign)
            in_string = sign == b'"'
            if sign == b"{":
                depth += 1
            elif sign == b"}" and depth:
                depth -= 1
                if depth == 0:
                    yield None if too_large else buffer[begin:position]
                    begin, too_large = position, False
            if sign:
                continue
        if position - begin > MAX_ITEM:
            if depth == 0:
                raise ValueError(f"no {{...}} among {MAX_ITEM / 1e6:g} MB of the list")
            begin, too_large = position, True
        chunk = read(CHUNK)
        if not chunk:
            raise ValueError("cut off, or no list of {...}: it does not end with ]")
        buffer, position, begin = buffer[begin:] + chunk, position - begin, 0
