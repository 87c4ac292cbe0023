"""What readers share: header against data, numbers, limits, and one bad scan among several."""

import io
import warnings

import numpy as np

from xxlib.scans.scan import DAMAGED, MAX_POINTS, ScanError


def even_steps(start, step, n):
    """Angles (n,) of a scan in even steps."""
    if not 0 < n <= MAX_POINTS:
        raise ScanError(f"the header promises {n} points. {DAMAGED}")
    if not (np.isfinite(start) and np.isfinite(step) and 1e-6 < abs(step) < 180):
        raise ScanError(f"the header says start {start:g}, step {step:g} degree. {DAMAGED}")
    return start + step * np.arange(n)


def agreed_steps(n, start, step, stop):
    """Angles (n,) of n intensities, and warnings; start, step and stop (degree, None = unknown) must agree with n."""
    if start is None or (step is None and stop is None):
        raise ScanError(f"the header does not state where the scan starts and what its step is. {DAMAGED}")
    if n > MAX_POINTS:
        raise ScanError(f"the file holds {n} points, more than a scan has (limit {MAX_POINTS}). Export one scan only")
    if stop is None:
        return even_steps(start, step, n), ()
    if n < 2:
        raise ScanError(f"the header promises a scan from {start:g} to {stop:g} degree, the file holds {n} point(s)")
    even = (stop - start) / (n - 1)
    if step is None:
        return even_steps(start, even, n), ()
    step = abs(step) if stop >= start else -abs(step)
    angle = even_steps(start, step, n)
    off = abs(even / step - 1) * (n - 1)  # steps between the two ends
    if off <= 0.5:
        return angle, ()
    if off <= 1.5:
        return angle, (f"The last point is at {angle[-1]:.6g} degree, the header says {stop:g}: one step is in doubt.",)
    points = (stop - start) / step + 1
    if round(step, 3) == step and abs(even - step) < 5e-4 and abs(points - round(points)) > 0.02:
        return start + even * np.arange(n), (
            f"The header's step of {abs(step):g} degree is rounded: from {start:g} to {stop:g} degree the {n} points "
            f"are {abs(even):.5g} degree apart.",
        )
    raise ScanError(
        f"the header promises {points:.6g} points (from {start:g} to {stop:g} degree in "
        f"steps of {abs(step):g}), the file holds {n}. {DAMAGED}"
    )


def header_warnings(angle, start=None, step=None, stop=None):
    """Warnings where the header states another start, step or stop (degree) than the angles (n,) of the file."""
    if len(angle) < 2:
        return ()
    apart = float(np.median(np.abs(np.diff(angle))))
    facts = (("start", start, angle[0]), ("stop", stop, angle[-1]))
    wrong = [
        f"{name} {value:g}" for name, value, ours in facts if value is not None and abs(value - ours) > 1.5 * apart
    ]
    if step is not None and abs(abs(step) - apart) > max(0.03 * apart, 5e-4):
        wrong.append(f"step {step:g}")
    if not wrong:
        return ()
    return (
        f"The header states {', '.join(wrong)} degree, the points run from {angle[0]:.6g} to {angle[-1]:.6g} in steps "
        f"of {apart:.4g}: the points were taken. Was the scan ended early?",
    )


def check_count(n, promised):
    """Raise ScanError where a file holds another number of intensities than its header promises (None = nothing)."""
    if promised is not None and n != promised:
        raise ScanError(f"the header promises {promised:.0f} points, the file holds {n}. {DAMAGED}")


def numbers(words, what="where a number should be"):
    """Numbers (n,) of words (a list, or a text of words); of 119(17) the 119.  Raises ScanError, also for too many."""
    limit = MAX_POINTS if isinstance(words, str) else 4 * MAX_POINTS  # a list may hold a few columns
    words = words.split(None, limit) if isinstance(words, str) else words
    if len(words) > limit:
        raise ScanError(f"there are more than {MAX_POINTS} points, more than a scan has. Export one scan only")
    if any("(" in word for word in words):
        words = [word.partition("(")[0] for word in words]
    try:
        if any("_" in word for word in words):
            raise ValueError(repr(next(word for word in words if "_" in word)))
        return np.array(words, np.float64)
    except ValueError as error:
        raise ScanError(f"{what} there is something else ({error}). {DAMAGED}") from None


def lines_of(text):
    """Lines of a text one after the other, whatever ends them; together they would take many times its memory."""
    return io.StringIO(text, newline=None)


def understood(read, *args):
    """What a reader returns, or a ScanError for whatever a damaged file makes it stumble over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return read(*args)
    except ScanError:
        raise
    except MemoryError:
        raise ScanError(f"the file takes more memory than there is. {DAMAGED}") from None
    except Exception as error:  # struct, zip, bz2, LZMA, XML, arithmetic: whatever the bytes lead to
        reason = " ".join(str(error).split())[:200] or "for no reason given"
        raise ScanError(f"the file begins well but cannot be read to its end ({reason}). {DAMAGED}") from None


def attempt(read, *args):
    """The scans that a reader returns, in a list, or [ScanError] where these alone among others cannot be read."""
    try:
        scans = understood(read, *args)
        return scans if isinstance(scans, list) else [scans]
    except ScanError as error:
        return [ScanError(str(error))]  # without the frames that hold the data
