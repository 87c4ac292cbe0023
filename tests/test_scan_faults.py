"""What scientists give besides a plain scan: other units and axes, blocks, peaks, several scans, spreadsheets."""

import re

import numpy as np
import pytest
from test_scans import ANGLES, COUNTS, read, rows, xrdml, zipped

from xxlib.scans.conditioning import condition
from xxlib.scans.scan import Scan, ScanError, checked

TABLE = rows()

# ---------------------------------------------------------------- the wavelength that a header states

WAVELENGTHS = {
    "# wavelength = 1.652021e-11 m": 0.1652021,
    "# Wavelength: 4.066e-11": 0.4066,
    "# Wavelength = 4.133E-11 meters": 0.4133,
    "# wavelength (m) 4.133e-11": 0.4133,
    "# wavelength 0.154184 nm": 1.54184,
    "# Wavelength (nm): 0.0413": 0.413,
    "wavelength_nm = 0.0413": 0.413,
    "K-Alpha1 wavelength [nm],0.15406": 1.5406,
    "# lambda = 41.33 pm": 0.4133,
    "# λ=0.7093Å": 0.7093,
    "Wavelength [Å] = 1.5406": 1.5406,
    "# wavelength: 1": 1.0,
    "# Wavelength\t0.45336": 0.45336,
    "# Wavelength: Cu Ka1 1.54060 A": 1.5406,
    "Lambda1 = 1.54056\nLambda2 = 1.54439": (1.54056 + 0.5 * 1.54439) / 1.5,
    "# Cu-Kα radiation": 1.54184,
    "# == pyFAI ==\n# Distance: 0.2 m\n# Wavelength: 4.066e-11 m\n# 2th_deg\t I": 0.4066,
}


@pytest.mark.parametrize("line", WAVELENGTHS)
def test_units_and_exponents_of_a_wavelength_count(tmp_path, line):
    scan = read(tmp_path, line + "\n" + TABLE)
    assert scan.wavelength == pytest.approx(WAVELENGTHS[line], rel=1e-5) and not scan.warnings


DOUBTFUL = {
    "# wavelength: 0.15406": (1.54184, "was taken as Cu Kα in nm"),
    "# wavelength: 550 nm": (None, "5500 angstrom, none of powder diffraction"),
    "# energy = 30.5 keV": (0.40651, "follows from the energy"),
    "# X-ray energy [eV]: 30500": (0.40651, "follows from the energy"),
    "# wavelength = 0.4 A\n# energy = 12 keV": (0.4, "an energy of 1.0332"),
    "# anode Co, wavelength 1.5406": (1.5406, "names a Co anode"),
}


@pytest.mark.parametrize("line", DOUBTFUL)
def test_what_is_doubtful_about_a_wavelength_is_said(tmp_path, line):
    scan, (wavelength, words) = read(tmp_path, line + "\n" + TABLE), DOUBTFUL[line]
    assert scan.wavelength == (wavelength and pytest.approx(wavelength, rel=1e-4))
    assert len(scan.warnings) == 1 and words in scan.warnings[0]


PATTERN = "loop_\n_pd_proc_2theta_corrected\n_pd_proc_intensity_net\n" + TABLE
CIFS = {  # name -> CIF, wavelength, number of warnings
    "of the processing": ("data_a\n_pd_proc_wavelength 1.79026\n" + PATTERN, 1.79026, 0),
    "by its type": ("data_a\n_diffrn_radiation_type 'Co K\\a'\n" + PATTERN, (1.78896 + 0.5 * 1.79285) / 1.5, 0),
    "in another block": ("data_a\n_diffrn_radiation_wavelength 0.7(1)\ndata_b\n" + PATTERN, 0.7, 0),
    "in a text field": ("data_a\n_x\n;\ndata_c\n_diffrn_radiation_wavelength 0.7\n;\n" + PATTERN, None, 0),
    "of two stages": ("data_a\n_pd_proc_wavelength 0.7\n_diffrn_radiation_wavelength 0.8\n" + PATTERN, 0.7, 1),
    "several elsewhere": (
        "data_a\n_pd_proc_wavelength 0.7\ndata_c\n_pd_proc_wavelength 0.8\ndata_b\n" + PATTERN,
        None,
        1,
    ),
    "a doublet": (
        "data_a\nloop_\n_diffrn_radiation_wavelength\n_diffrn_radiation_wavelength_wt\n1.5444 .5\n1.5406 1\n" + PATTERN,
        (1.5406 + 0.5 * 1.5444) / 1.5,
        0,
    ),
    "DDLm": ("data_a\n_diffrn_radiation_wavelength.value 1.5\n" + PATTERN.replace("_pd_proc_", "_pd_proc."), 1.5, 0),
    "mixed case": ("DATA_a\n_Diffrn_Radiation_Wavelength 1.5\n" + PATTERN.replace("_pd_", "_PD_"), 1.5, 0),
    "another stage": (
        "data_a\n_pd_proc_wavelength 1.5\n" + PATTERN.replace("proc_2theta_corrected", "meas_2theta_scan"),
        1.5,
        0,
    ),
}


@pytest.mark.parametrize("name", CIFS)
def test_the_wavelength_of_a_powder_cif(tmp_path, name):
    text, wavelength, n_warnings = CIFS[name]
    scan = read(tmp_path, text, "p.cif")
    assert np.array_equal(scan.two_theta, ANGLES) and np.array_equal(scan.intensity, COUNTS)
    assert scan.wavelength == (wavelength and pytest.approx(wavelength)) and len(scan.warnings) == n_warnings


# ---------------------------------------------------------------- what the axis is

NO_2THETA = {
    "# log(q) I": "scattering vector Q",
    "# unit = q_A^-1\n# x intensity": "does not reach the scattering vector Q of 20 to 26 1/angstrom",
    "# x axis: Q": "up to 26, without a unit",
    "Inverse Angstrom\nCounts": "scattering vector Q of 20",
    "# Q, Intensity\n# wavelength = 1.5406 A": "scattering vector Q",
    "[x]\nwavelength = 0.1839\n#### start data\n#S 1\n#L r(Å)  G(Å$^{-2}$)": "pair distribution",
    "# chi_deg I": "azimuth",
    "Energy [eV]\tCounts": "an energy",
    "Raman shift (cm-1) I": "wavenumber",
    "Theta (deg) Counts": "θ, not 2θ",
    '\'Id: "" Anode: "Cu" Scantype: "Rocking Curve" TimePerStep: "1"': "rocking curve",
    'Scantype: "Rocking curve (Omega)"': "rocking curve",
    "Scan type,Phi": "scan of Phi",
}


@pytest.mark.parametrize("head", NO_2THETA)
def test_an_axis_that_is_not_2theta_is_refused_wherever_it_is_named(tmp_path, head):
    with pytest.raises(ScanError, match=NO_2THETA[head]):
        read(tmp_path, head + "\n" + TABLE)


@pytest.mark.parametrize(
    "head",
    ["image.tif: Q\nQ (Inverse Nanometres)\nIntensity\n       301", "# q (nm^-1), I (a.u.)\n# exported by program v2",
     "# xunits = q_nm^-1\n# a comment", "q_nm^-1 intensity", "# Q, Intensity\n# unit = 1/nm\n# xunits = q_nm^-1"],
)  # fmt: skip
def test_an_axis_of_q_is_read_wherever_it_is_named(tmp_path, head):
    scan = read(tmp_path, head + "\n" + TABLE)
    assert scan.axis == "q" and any("along the scattering vector Q" in warning for warning in scan.warnings)
    sines = np.sin(np.radians(scan.two_theta / 2))
    assert np.allclose(4 * np.pi * sines / scan.wavelength, ANGLES / 10), "1/nm are tenths of 1/angstrom"


@pytest.mark.parametrize(
    "head",
    [
        "# Quartz sample",
        "# Q7 sample",
        "Temperature,25.00",
        "Temperature,room",
        "Time,10:30",
        "Operator,me",
        "# q range 1-5",
        "# Theta offset 0.1",
        "Energy window 0.5",
        "Channel 2 detector",
        "# r = 5",
        "D8 Advance",
        "Omega,10.0",
        "# converted from q\n# 2theta I",
        "2-Theta Angle (Degrees)\nIntensity\n       301",
        "# unit = 2th_deg\n# x intensity",
        "Scan type: continuous",
        "# scan type: θ-2θ",
        'Scantype: "Coupled TwoTheta/Theta"',
    ],
)
def test_what_a_header_tells_besides_is_no_axis(tmp_path, head):
    scan = read(tmp_path, head + "\n" + TABLE)
    assert np.array_equal(scan.two_theta, ANGLES) and not scan.warnings


# ---------------------------------------------------------------- not a table of angle and intensity


def lines_of_eight(counts):
    words = [f"{y:7.0f}" for y in counts]
    return "".join("".join(words[k : k + 8]) + "\n" for k in range(0, len(words), 8))


BLOCKS = {
    "FullProf": "NaCl  20.000 0.020 26.000 cps\n" + lines_of_eight(COUNTS),
    "DBWS, start stop step": "  20.00  26.00  0.02\n" + lines_of_eight(COUNTS),
    "Jade": "11/27/24 DIF NaCl\n   20.000 0.020 1.0 CO 1.78896    26.000 301\n" + lines_of_eight(COUNTS),
    "one a line": "NaCl 20 0.02 26\n" + "".join(f"{y:.0f}\n" for y in COUNTS),
    "one a line, no title": "20 0.02 26\n" + "".join(f"{y:.0f}\n" for y in COUNTS),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_intensities_are_refused_as_what_they_are(tmp_path, name):
    with pytest.raises(ScanError, match="the angles are missing"):
        read(tmp_path, BLOCKS[name])


def test_jcamp_is_refused_as_what_it_is(tmp_path):
    text = "##TITLE=x\n##JCAMP-DX=4.24\n##DELTAX=0.02\n##XYDATA=(X++(Y..Y))\n" + rows(tail=" 7 8 9")
    with pytest.raises(ScanError, match="JCAMP-DX file, in which only some points have an angle"):
        read(tmp_path, text + "##END=\n", "x.jdx")


def test_a_list_of_peaks_is_no_scan(tmp_path):
    places = np.cumsum(np.random.default_rng(0).exponential(0.5, 120)) + 10
    table = "".join(f"{i},{x:.4f},{100 * x:.1f},0.09,{4 - x / 40:.4f}\n" for i, x in enumerate(places))
    head = "No.,Pos. [°2Th.],Height [cts],FWHM [°2Th.],d-spacing [Å]\n"
    for text in (head + table, rows(" ", places, 100 * places)):
        with pytest.raises(ScanError, match="a list of peaks"):
            read(tmp_path, text)
    with pytest.raises(ScanError, match="a list of peaks"):
        read(tmp_path, "27.4 8\n31.7 100\n45.4 60\n53.9 2\n56.5 17\n66.2 7\n")


@pytest.mark.parametrize("step", [0.0131, 0.0262, 0.015])
def test_rounded_angles_and_joined_ranges_are_scans(step):
    angle = np.round(np.append(np.arange(10, 40, step), np.arange(40, 80, 3 * step)), 2)
    angle = np.unique(angle)
    assert len(checked(Scan(two_theta=angle, intensity=np.sin(angle) + 2)).two_theta) == len(angle)


def test_tables_of_a_spreadsheet(tmp_path):
    left = ",2Theta,Intensity\n" + "".join(f",{line}\n" for line in rows(",").splitlines())
    beside = rows(",").splitlines()
    short = "2theta,A,2theta,B\n" + "".join(f"{line},{line if k < 200 else ','}\n" for k, line in enumerate(beside))
    long = "2theta,A,2theta,B\n" + "".join(f"{line if k < 200 else ','},{line}\n" for k, line in enumerate(beside))
    assert np.array_equal(read(tmp_path, left).intensity, COUNTS)
    for text, n in ((short, 301), (long, 200), (short.replace(",", ";"), 301), (short.replace(",", "\t"), 301)):
        scan = read(tmp_path, text)
        assert np.array_equal(scan.two_theta, ANGLES[:n]) and np.array_equal(scan.intensity, COUNTS[:n])
        assert len(scan.warnings) == 1 and "number 1 was taken as 2θ, 2 as the intensity" in scan.warnings[0]
    with pytest.raises(ScanError, match="line 7 has an angle without intensity"):
        read(tmp_path, short.replace("\n20.10,40,", "\n20.10,,"))
    scan = read(tmp_path, "2theta,A,B\n" + rows(",", tail=",7"))
    assert "3 columns" in scan.warnings[0]


# ---------------------------------------------------------------- several scans


def brml(*members, routes=1):
    """An archive with a scan in each member, by the factor on its counts (0 = none, -1 = 2theta stands still)."""
    texts = {}
    for k, factor in enumerate(members):
        points = "".join(
            f"<Datum>1,{x if factor > 0 else 20},{abs(factor) * y}</Datum>" for x, y in zip(ANGLES, COUNTS)
        )
        route = (
            f'<DataRoute RouteFlag="Measured"><ScanInformation VisibleName="Coupled TwoTheta/Theta"><ScanAxes>'
            '<ScanAxisInfo AxisId="TwoTheta"><Start>20</Start><Stop>26</Stop><Increment>0.02</Increment></ScanAxisInfo>'
            f"</ScanAxes><MeasurementPoints>301</MeasurementPoints></ScanInformation>{points}"
            '<RawDataView Start="1" Length="1"><FieldDefinitions FieldName="TwoTheta"/></RawDataView>'
            '<RawDataView Start="2" Length="1"><Recording/></RawDataView></DataRoute>'
        )
        texts[f"Experiment0__RawData{k}_xml"] = (
            f"<RawData><DataRoutes>{route * routes * bool(factor)}</DataRoutes></RawData>"
        )
    return zipped(**texts)


def test_members_are_in_the_order_of_their_numbers(tmp_path):
    archive = brml(*range(1, 13))
    rasx = zipped(**{f"Data{k}__Profile0_txt": rows(counts=(k + 1) * COUNTS) for k in range(12)})
    for content in (archive, rasx):
        for k in (0, 2, 9, 11):
            assert np.array_equal(read(tmp_path, content, scan=k).intensity, (k + 1) * COUNTS)


def test_a_second_route_is_a_scan(tmp_path):
    scan = read(tmp_path, brml(3, routes=2), scan=1)
    assert np.array_equal(scan.intensity, 3 * COUNTS)


EMPTY = "<scan scanAxis='Gonio' status='Aborted'><dataPoints><counts></counts></dataPoints></scan>"
ROCKING = xrdml("<commonPosition>20</commonPosition>", "Omega")
RAS = '*RAS_HEADER_START\n*MEAS_SCAN_AXIS_X "{}"\n*RAS_HEADER_END\n*RAS_INT_START\n{}*RAS_INT_END\n'
UXD = "_DRIVE='{}'\n_STEPSIZE=0.02\n_START=20\n_COUNTS\n{}\n"
WORDS = " ".join(f"{y:.0f}" for y in COUNTS)
ONE_BAD = {  # two scans, of which the one with this number cannot be used
    "brml empty": (brml(0, 1), 0),
    "brml rocking": (brml(-1, 1), 0),
    "brml second empty": (brml(1, 0), 1),
    "xrdml empty": (xrdml().replace("</scan>", "</scan>" + EMPTY), 1),
    "xrdml empty first": (xrdml().replace("<scan ", EMPTY + "<scan "), 0),
    "xrdml rocking first": (xrdml().replace("<scan ", re.search("<scan.*</scan>", ROCKING)[0] + "<scan ", 1), 0),
    "ras rocking first": (
        "*RAS_DATA_START\n" + RAS.format("Omega", rows(tail=" 1")) + RAS.format("TwoThetaTheta", TABLE),
        0,
    ),
    "ras empty second": ("*RAS_DATA_START\n" + RAS.format("TwoThetaTheta", TABLE) + RAS.format("TwoThetaTheta", ""), 1),
    "uxd rocking first": (UXD.format("THETA", WORDS) + UXD.format("COUPLED", WORDS), 0),
    "uxd letters second": (UXD.format("COUPLED", WORDS) + UXD.format("COUPLED", "5 x 7"), 1),
    "rasx cut second": (zipped(Data0__Profile0_txt=TABLE, Data1__Profile0_txt="1 x\n"), 1),
    "cif without angles first": ("data_a\nloop_\n_pd_meas_counts_total\n1\n2\n3\ndata_b\n" + PATTERN, 0),
}


@pytest.mark.parametrize("name", ONE_BAD)
def test_a_bad_scan_costs_only_itself(tmp_path, name):
    content, bad = ONE_BAD[name]
    scan = read(tmp_path, content)
    assert np.allclose(scan.two_theta, ANGLES) and np.array_equal(scan.intensity, COUNTS)
    assert "2 scans" in scan.warnings[0] and "choose another with scan=" in scan.warnings[0]
    assert sum(f"Scan {bad} cannot be used: " in warning for warning in scan.warnings) == 1
    assert np.array_equal(read(tmp_path, content, scan=1 - bad).intensity, COUNTS)
    with pytest.raises(ScanError):
        read(tmp_path, content, scan=bad)


def test_where_no_scan_can_be_used_the_first_reason_is_told(tmp_path):
    with pytest.raises(ScanError, match=r"none of the 2 scans can be used; the first: .*holds no measured points"):
        read(tmp_path, brml(0, -1))


def test_a_rounded_step_and_one_step_at_the_end_are_said(tmp_path):
    udf = "DataAngleRange, {}, {},/\nScanStepSize, {},/\nRawScan\n" + ", ".join(f"{y:.0f}" for y in COUNTS) + "/\n"
    assert np.array_equal(read(tmp_path, udf.format(20, 26, 0.02)).two_theta, 20 + 0.02 * np.arange(301))
    scan = read(tmp_path, udf.format(20, 26.02, 0.02))
    assert "one step is in doubt" in scan.warnings[0] and scan.two_theta[-1] == pytest.approx(26)
    scan = read(tmp_path, udf.format(20, 20 + 300 * 0.01671, 0.017))
    assert "rounded" in scan.warnings[0] and scan.two_theta[-1] == pytest.approx(20 + 300 * 0.01671)
    with pytest.raises(
        ScanError, match=r"promises 401 points \(from 18 to 26 degree in steps of 0.02\), the file holds 301"
    ):
        read(tmp_path, udf.format(18, 26, 0.02))


def test_scans_of_xrdml_that_may_end_early(tmp_path):
    whole = xrdml("<startPosition>20</startPosition><endPosition>26</endPosition>")
    assert read(tmp_path, whole).warnings == ()
    assert (
        "if the end position in the file is the planned one"
        in read(tmp_path, whole.replace("Completed", "Aborted")).warnings[0]
    )
    short = read(tmp_path, whole.replace("counts'>", "counts'>").replace(" 40 40 40 40</counts>", "</counts>"))
    assert "no round step" in short.warnings[0]


def test_counts_per_second_are_not_divided_again(tmp_path):
    times = "<countingTimes>" + " ".join(["1"] * 150 + ["4"] * 151) + "</countingTimes>"
    text = (
        xrdml(extra=times)
        .replace("<counts unit='counts'>", "<intensities unit='cps'>")
        .replace("</counts>", "</intensities>")
    )
    scan = read(tmp_path, text)
    assert scan.unit == "counts per second" and np.array_equal(condition(scan).intensity, COUNTS)


def test_small_reasons_that_were_not_true(tmp_path):
    uxd = read(tmp_path, "_DRIVE='COUPLED'\n_STEPSIZE=0.05\n_START=0.000\n_2THETA=0.000\n_COUNTS\n" + WORDS + "\n")
    assert uxd.two_theta[[0, -1]].tolist() == [0, 15] and not uxd.warnings
    words = [f"{y:6.0f}" for y in COUNTS[:300]]
    gsas = "x\nBANK 1 300 30 CONST 2000 2 0 0\n"
    gsas += "".join("".join(f" 1{w}" for w in words[k : k + 10]) + "\n" for k in range(0, 300, 10))
    scan = read(tmp_path, gsas, "p.gsas")
    assert np.allclose(scan.two_theta, ANGLES[:300]) and np.array_equal(scan.intensity, COUNTS[:300])
    tof = (
        "data_t\n_diffrn_radiation_probe neutron\nloop_\n_pd_meas_time_of_flight\n_pd_meas_intensity_total\n5 1\n6 2\n"
    )
    with pytest.raises(ScanError, match="a time of flight: a neutron pattern"):
        read(tmp_path, tof, "p.cif")
    with pytest.raises(ScanError, match="a calculated pattern"):
        read(tmp_path, "data_t\n_cell_length_a 4\nloop_\n_pd_calc_intensity_total\n5\n6\n", "p.cif")
    with pytest.raises(ScanError, match="COUNT is 'inf', no number"):
        read(tmp_path, "*BEGIN\n*START = 5\n*STEP=0.02\n*COUNT = inf\n1,2,3\n*END\n", "p.dat")
