"""Binary files: Bruker and Siemens RAW of versions 1 to 4, Philips RD.

Layouts as described by xylib (bruker_raw, philips_raw: from the manufacturers' manuals); each byte offset was checked
against a real file, except version 3, for which there was none.
"""

import struct

import numpy as np

from xxlib.scans.scan import DAMAGED, Scan, ScanError, check_count, even_steps, source


def read_bruker_1(data):
    """Scans of a file that begins with "RAW "."""
    scans, at, more = [], 4, 1
    while more:
        if scans and data[at : at + 4] == b"RAW ":
            at += 4
        n, time, step, _mode, _, start = struct.unpack_from("<IffIIf", data, at)
        sample, ka1, ka2 = struct.unpack_from("<32s2f", data, at + 36)
        (more,) = struct.unpack_from("<I", data, at + 148)
        at += 152
        tube = source(None, _positive(ka1), _positive(ka2))
        start, step = _decimal(start), _decimal(step)
        scans.append(_scan(data, at, n, start, step, "Bruker RAW 1", time=time, sample=_text(sample), **tube))
        at += 4 * n
    return scans


def read_bruker_2(data):
    """Scans of a file that begins with "RAW2"."""
    (n_scans,) = struct.unpack_from("<H", data, 4)
    anode, ka1, ka2, ratio = struct.unpack_from("<2s3f", data, 188)
    tube = source(_text(anode), _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    scans, at = [], 256
    for _ in range(n_scans):
        header, n, _, time, step, start = struct.unpack_from("<HHI3f", data, at)
        at += header
        sample, start, step = _text(data[8:40]), _decimal(start), _decimal(step)
        scans.append(_scan(data, at, n, start, step, "Bruker RAW 2", time=time, sample=sample, **tube))
        at += 4 * n
    return scans


def read_bruker_3(data):
    """Scans of a file that begins with "RAW1.01"."""
    (n_scans,) = struct.unpack_from("<I", data, 12)
    anode = _text(data[608:612])
    ka1, ka2, _beta, ratio = struct.unpack_from("<4d", data, 624)
    tube = source(anode, _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    scans, at = [], 712
    for _ in range(n_scans):
        header, n, _theta, start = struct.unpack_from("<IIdd", data, at)
        (step,) = struct.unpack_from("<d", data, at + 176)
        (time,) = struct.unpack_from("<f", data, at + 192)
        (_varying, width, extra) = struct.unpack_from("<3I", data, at + 248)
        at += header + extra
        sample = _text(data[326:386])
        scans.append(_scan(data, at, n, start, step, "Bruker RAW 3", width or 4, time=time, sample=sample, **tube))
        at += (width or 4) * n
    return scans


def read_bruker_4(data):
    """Scans of a file that begins with "RAW4.00": segments (kind, length), and scans between them."""
    scans, tube, sample, at = [], {}, "", 61
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind in (0, 160):
            scan, at = _range_4(data, at, sample, tube)
            scans.append(scan)
            continue
        if length < 8:
            raise ScanError(f"a part of the header has the impossible length {length}. {DAMAGED}")
        if kind == 10 and _text(data[at + 12 : at + 36]) == "SAMPLEID":
            sample = _text(data[at + 36 : at + length])
        if kind == 30:
            ka1, ka2, _beta, ratio = struct.unpack_from("<4d", data, at + 80)
            anode = _text(data[at + 116 : at + 120])
            tube = source(anode, _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
        at += length
    return scans


def _range_4(data, at, sample, tube):
    """One Scan, and where it ends."""
    start, step, n = struct.unpack_from("<ddI", data, at + 72)
    width, extra = struct.unpack_from("<II", data, at + 136)
    place, end = at + 160, at + 160 + extra
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
    return _scan(
        data, end, n, start, step, "Bruker RAW 4", width, scan_axis=axis, sample=sample, **tube
    ), end + width * n


def read_philips_rd(data):
    """The scan of a file that begins with "V3RD" or "V5RD": square roots of the counts."""
    (anode,) = struct.unpack_from("<b", data, 85)
    ka1, ka2, ratio = struct.unpack_from("<3d", data, 94)
    step, start, stop = struct.unpack_from("<3d", data, 214)
    at = 250 if data[:2] == b"V3" else 810
    if not step > 0 or not 0 <= stop - start <= 360:
        raise ScanError(f"the header says {start:g} to {stop:g} degree in steps of {step:g}. {DAMAGED}")
    n = round((stop - start) / step) + 1
    check_count((len(data) - at) // 2, n)
    roots = np.frombuffer(data, "<u2", n, at).astype(np.float64)
    anode = ("Cu", "Mo", "Fe", "Cr")[anode] if 0 <= anode < 4 else None
    tube = source(anode, _positive(ka1), _positive(ka2), ratio if 0 <= ratio <= 1 else None)
    return [
        Scan(
            two_theta=even_steps(start, step, n),
            intensity=np.rint(roots**2 / 100),  # as Philips' own .udf export writes them
            format="Philips RD",
            sample=_text(data[146:166]),
            **tube,
        )
    ]


def _scan(data, at, n, start, step, format, width=4, time=None, **fields):
    """A Scan of n records of `width` bytes from byte `at` on, each beginning with the intensity as a float32."""
    two_theta = even_steps(start, step, n)
    check_count((len(data) - at) // width, n)
    intensity = np.frombuffer(data, np.uint8, n * width, at).reshape(n, width)[:, :4].copy().view("<f4")[:, 0]
    return Scan(
        two_theta=two_theta,
        intensity=intensity.astype(np.float64),
        format=format,
        time_per_step=_positive(time),
        **fields,
    )


def _decimal(value):
    """0.02 of the float32 that is nearest to it: over thousands of steps the difference adds up."""
    return float(str(np.float32(value)))


def _positive(value):
    return float(value) if value is not None and np.isfinite(value) and value > 0 else None


def _text(field):
    return field.split(b"\0")[0].decode("latin-1").strip()
