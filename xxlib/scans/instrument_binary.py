"""Binary files: Bruker and Siemens RAW of versions 1 to 4, Philips RD.

Layouts as described by xylib (bruker_raw, philips_raw: from the manufacturers' manuals); each byte offset was checked
against a real file, except version 3, for which there was none.
"""

import struct

import numpy as np

from xxlib.scans.checks import agreed_steps, attempt, even_steps
from xxlib.scans.scan import DAMAGED, MAX_SCANS, Scan, ScanError, source


def read_bruker_1(data):
    """Scans of a file that begins with "RAW "."""
    scans, at, more = [], 4, 1
    while more and _begins(scans, data, at + 152):
        if scans and data[at : at + 4] == b"RAW ":
            at += 4
        n, time, step, _mode, _, start = struct.unpack_from("<IffIIf", data, at)
        sample, ka1, ka2 = struct.unpack_from("<32s2f", data, at + 36)
        (more,) = struct.unpack_from("<I", data, at + 148)
        at += 152
        tube = source(None, _positive(ka1), _positive(ka2))
        start, step, sample = _decimal(start), _decimal(step), _text(sample)
        scans += attempt(_scan, data, at, n, start, step, "Bruker RAW 1", 4, tube | {"sample": sample}, time)
        at += 4 * n
    return _complete(scans, data, at)


def read_bruker_2(data):
    """Scans of a file that begins with "RAW2"."""
    (n_scans,) = struct.unpack_from("<H", data, 4)
    anode, ka1, ka2, ratio = struct.unpack_from("<2s3f", data, 188)
    tube = source(_text(anode), _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    tube["sample"] = _text(data[8:40])
    scans, at = [], 256
    while len(scans) < n_scans and _begins(scans, data, at + 20):
        header, n, _, time, step, start = struct.unpack_from("<HHI3f", data, at)
        at += header
        scans += attempt(_scan, data, at, n, _decimal(start), _decimal(step), "Bruker RAW 2", 4, tube, time)
        at += 4 * n
    return _complete(scans, data, at)


def read_bruker_3(data):
    """Scans of a file that begins with "RAW1.01"."""
    (n_scans,) = struct.unpack_from("<I", data, 12)
    ka1, ka2, _beta, ratio = struct.unpack_from("<4d", data, 624)
    tube = source(_text(data[608:612]), _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    tube["sample"] = _text(data[326:386])
    scans, at = [], 712
    while len(scans) < n_scans and _begins(scans, data, at + 260):
        header, n, _theta, start = struct.unpack_from("<IIdd", data, at)
        (step,) = struct.unpack_from("<d", data, at + 176)
        (time,) = struct.unpack_from("<f", data, at + 192)
        (_varying, width, extra) = struct.unpack_from("<3I", data, at + 248)
        at += header + extra
        scans += attempt(_scan, data, at, n, start, step, "Bruker RAW 3", width or 4, tube, time)
        at += (width or 4) * n
    return _complete(scans, data, at)


def read_bruker_4(data):
    """Scans of a file that begins with "RAW4.00": segments (kind, length), and scans between them."""
    scans, tube, at = [], {"sample": ""}, 61
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind in (0, 160):
            if not _begins(scans, data, at + 160):
                break
            n, width, extra = (struct.unpack_from("<I", data, at + place)[0] for place in (88, 136, 140))
            scans += attempt(_range_4, data, at, n, width, at + 160 + extra, tube)
            at += 160 + extra + width * n
            continue
        if length < 8:
            raise ScanError(f"a part of the header has the impossible length {length}. {DAMAGED}")
        if kind == 10 and _text(data[at + 12 : at + 36]) == "SAMPLEID":
            tube = tube | {"sample": _text(data[at + 36 : at + length])}
        if kind == 30:
            ka1, ka2, _beta, ratio = struct.unpack_from("<4d", data, at + 80)
            anode = _text(data[at + 116 : at + 120])
            ratio = ratio if 0 <= ratio <= 1 else None
            tube = tube | source(anode, _positive(ka1), _positive(ka2), ratio)
        at += length
    return _complete(scans, data, at)


def _range_4(data, at, n, width, end, tube):
    """The Scan of n records of `width` bytes behind a header from byte `at` to `end`."""
    start, step = struct.unpack_from("<dd", data, at + 72)
    place = at + 160
    if end > len(data) or width % 4 or not width:
        raise ScanError(f"the header of a scan is longer than the file. {DAMAGED}")
    axis = _text(data[at + 32 : at + 56])
    while place + 8 <= end:
        kind, length = struct.unpack_from("<II", data, place)
        if length < 8:
            raise ScanError(f"a part of the header has the impossible length {length}. {DAMAGED}")
        # Of the drives that move, 2Theta gives the angle; a scan of another drive starts where that drive stands.
        if kind == 50 and _text(data[place + 12 : place + 36]) == "2Theta":
            (position,) = struct.unpack_from("<d", data, place + 56)
            if abs(position - start) > 1e-3:
                raise ScanError(
                    f"the scan ({axis}) starts at {start:g} degree, the detector stands at {position:g}: this is no "
                    "θ-2θ powder scan. Export the θ-2θ scan"
                )
        place += length
    # The counting time is left out: with a line detector it is not that of one point.
    return _scan(data, end, n, start, step, "Bruker RAW 4", width, tube | {"scan_axis": axis})


def read_philips_rd(data):
    """The scan of a file that begins with "V3RD" or "V5RD": square roots of the counts."""
    (anode,) = struct.unpack_from("<b", data, 85)
    ka1, ka2, ratio = struct.unpack_from("<3d", data, 94)
    step, start, stop = struct.unpack_from("<3d", data, 214)
    at = 250 if data[:2] == b"V3" else 810
    if not step > 1e-6 or not 0 <= stop - start <= 360:
        raise ScanError(f"the header says {start:g} to {stop:g} degree in steps of {step:g}. {DAMAGED}")
    promised = round((stop - start) / step) + 1
    roots = np.frombuffer(data[at : at + 2 * ((len(data) - at) // 2)], "<u2").astype(np.float64)
    if not roots[promised:].any():  # zeros may fill the file up
        roots = roots[:promised]
    angle, warnings = agreed_steps(len(roots), start, step, stop)
    anode = ("Cu", "Mo", "Fe", "Cr")[anode] if 0 <= anode < 4 else None
    tube = source(anode, _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    return [
        Scan(
            two_theta=angle,
            intensity=np.rint(roots**2 / 100),  # as Philips' own .udf export writes them
            format="Philips RD",
            sample=_text(data[146:166]),
            warnings=warnings,
            **tube,
        )
    ]


def _scan(data, at, n, start, step, format, width, fields, time=None):
    """A Scan of n records of `width` bytes from byte `at` on, each beginning with the intensity as a float32."""
    two_theta = even_steps(start, step, n)
    if (len(data) - at) // width < n:
        raise ScanError(f"the header promises {n} points, the file holds {(len(data) - at) // width}. {DAMAGED}")
    intensity = np.frombuffer(data, np.uint8, n * width, at).reshape(n, width)[:, :4].copy().view("<f4")[:, 0]
    with np.errstate(invalid="ignore"):  # signalling NaN: refused by its place later
        intensity = intensity.astype(np.float64)
    return Scan(
        two_theta=two_theta,
        intensity=intensity,
        format=format,
        time_per_step=_positive(time),
        **fields,
    )


def _begins(scans, data, end):
    """Whether the header of a further scan, which ends at byte `end`, is in the file; else its place is marked."""
    if len(scans) > MAX_SCANS:
        raise ScanError(f"the file holds more than {MAX_SCANS} scans. {DAMAGED}")
    if end > len(data):
        scans.append(ScanError(f"the file ends in the header of scan {len(scans)}. {DAMAGED}"))
    return end <= len(data)


def _complete(scans, data, at):
    """The scans, where nothing but zeros follows the last one; at: the byte where it ends."""
    if not (scans and isinstance(scans[-1], ScanError)) and (at > len(data) or data[at:].strip(b"\0")):
        raise ScanError(f"the headers account for {at} bytes, the file holds {len(data)}. {DAMAGED}")
    return scans


def _decimal(value):
    """0.02 of the float32 that is nearest to it: over thousands of steps the difference adds up."""
    return float(str(np.float32(value)))


def _positive(value):
    return float(value) if value is not None and np.isfinite(value) and value > 0 else None


def _text(field):
    return field.split(b"\0")[0].decode("latin-1").strip()
