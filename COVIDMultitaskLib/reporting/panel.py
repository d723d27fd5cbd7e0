"""The strip of findings beside the pictures of the overview."""

from __future__ import annotations

from collections.abc import Callable

from COVIDMultitaskLib.findings import (
    COVID_ALONE,
    Findings,
    LesionComponent,
    LesionFindings,
    LobeFindings,
    PictureFindings,
    QualityFlag,
)
from COVIDMultitaskLib.labels import CONSOLIDATION, DIAGNOSES, DIAGNOSIS_NAMES, GROUND_GLASS, LESIONS, LOBES
from COVIDMultitaskLib.reporting.canvas import ACCENT, FAINT, INK, PANEL, QUIET, TRACK, WARNING, Canvas, css

_COLORS = {label.value: css(label.color) for label in LESIONS}
_ROW = 30
_MAX_WARNING_LINES = 12
_MAX_NOTICE_LINES = 8
_MAX_LESION_ROWS = 5


def draw_panel(canvas: Canvas, findings: Findings, left: float, top: float, width: float, bottom: float) -> None:
    """Draw the findings from ``top`` to ``bottom``, in pixels; every answer may be missing."""
    y = _heading(canvas, findings, left, top, width)
    y = _figures(canvas, findings, left, y, width)
    y = _lobes(canvas, findings.lobes, left, y, width)
    y = _severity(canvas, findings, left, y, width)
    y = _diagnosis(canvas, findings, left, y, width)
    y = _lesions(canvas, findings.lesions, left, y, width)
    floor = _notice(canvas, findings.notice, left, width, bottom)
    _quality(canvas, findings.remarks, left, y, width, floor)


def draw_picture_panel(
    canvas: Canvas, findings: Findings, left: float, top: float, width: float, bottom: float
) -> None:
    """As :func:`draw_panel`, of what can be told of a picture."""
    y = _heading(canvas, findings, left, top, width) + 18
    y = _diagnosis(canvas, findings, left, y, width)
    y = _picture_lesions(canvas, findings.picture, left, y)
    floor = _notice(canvas, findings.notice, left, width, bottom)
    _quality(canvas, findings.remarks, left, y, width, floor)


def percent(value: float | None) -> str:
    """A percentage as it is shown: a decimal below ten, never 0 for what is there."""
    if value is None:
        return "–"
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def _heading(canvas: Canvas, findings: Findings, left: float, top: float, width: float) -> float:
    title = "Chest CT findings" if findings.picture is None else "Findings of a picture"
    canvas.text(left, top + 26, title, 28, weight="bold")
    engine = findings.engine
    canvas.text(left, top + 52, f"{engine.engine} engine · {engine.bundle} {engine.version}", 14, QUIET)
    canvas.text(left, top + 72, _scan(findings), 14, QUIET)
    return top + 96


def _scan(findings: Findings) -> str:
    z, y, x = findings.input.shape_zyx
    if findings.input.spacing_zyx_mm is None:
        return f"{findings.input.format} · {x} × {y} pixels · unknown pixel size"
    dz, dy, dx = findings.input.spacing_zyx_mm
    return f"{findings.input.format} · {x} × {y} × {z} voxels · {dx:.2f} × {dy:.2f} × {dz:.2f} mm"


def _figures(canvas: Canvas, findings: Findings, left: float, top: float, width: float) -> float:
    total = findings.total.lesion_percent if findings.total else None
    volume = findings.total.volume_ml if findings.total else None
    tiles = (
        ("Lungs", "–" if volume is None else f"{volume / 1000:.2f} l"),
        ("Affected", percent(total)),
        ("Worst lung", percent(findings.worst_lung_percent)),
        ("CT score", "–" if findings.ct_severity_score is None else f"{findings.ct_severity_score} / 25"),
        ("CT grade", "–" if findings.ct_grade is None else f"CT-{findings.ct_grade}"),
    )
    gap = 8
    each = (width - gap * (len(tiles) - 1)) / len(tiles)
    for place, (name, value) in enumerate(tiles):
        x = left + place * (each + gap)
        canvas.bar(x, top, each, 66, PANEL, radius=6)
        canvas.text(x + each / 2, top + 22, name, 12.5, QUIET, ha="center")
        canvas.text(x + each / 2, top + 51, value, 22, INK if value != "–" else FAINT, ha="center", weight="bold")
    return top + 66 + 38


def _title(canvas: Canvas, left: float, y: float, words: str) -> float:
    canvas.text(left, y, words, 16, ACCENT, weight="bold")
    return y + 14


def _lobes(canvas: Canvas, lobes: tuple[LobeFindings, ...] | None, left: float, y: float, width: float) -> float:
    _lesion_legend(canvas, left + width, y)
    y = _title(canvas, left, y, "Affected share of each lobe")
    if lobes is None:
        return _missing(canvas, left, y, "Lobes are not assessed by this engine.")
    longest = max([10.0, *(lobe.lesion_percent or 0 for lobe in lobes)])
    full = next(limit for limit in (10, 25, 50, 100) if longest <= limit)
    bar_left, bar_width = left + 190, width - 190 - 138
    for lobe, label in zip(lobes, LOBES, strict=True):
        _lobe_row(canvas, lobe, css(label.color), left, y, bar_left, bar_width, full)
        y += _ROW
    _scale(canvas, bar_left, bar_width, y, full)
    return y + 48


def _lobe_row(
    canvas: Canvas,
    lobe: LobeFindings,
    color: tuple[float, float, float],
    left: float,
    y: float,
    bar_left: float,
    bar_width: float,
    full: float,
) -> None:
    canvas.bar(left, y + 8, 13, 13, color, radius=3)
    canvas.text(left + 22, y + 20, lobe.name, 15)
    canvas.bar(bar_left, y + 6, bar_width, 17, TRACK, radius=3)
    solid = bar_width * (lobe.consolidation_percent or 0) / full
    glass = bar_width * (lobe.ground_glass_percent or 0) / full
    canvas.bar(bar_left, y + 6, solid, 17, _COLORS[CONSOLIDATION])
    canvas.bar(bar_left + solid, y + 6, glass, 17, _COLORS[GROUND_GLASS])
    right = bar_left + bar_width
    value = percent(lobe.lesion_percent) if lobe.volume_ml else "absent"
    canvas.text(right + 74, y + 20, value, 15, INK if lobe.lesion_percent is not None else FAINT, ha="right")
    if lobe.score is not None:
        canvas.text(right + 138, y + 20, f"score {lobe.score}", 13.5, QUIET, ha="right")


def _scale(canvas: Canvas, left: float, width: float, y: float, full: int) -> None:
    canvas.text(left, y + 13, "0", 11.5, FAINT)
    canvas.text(left + width, y + 13, f"{full} %", 11.5, FAINT, ha="right")


def _lesion_legend(canvas: Canvas, right: float, y: float) -> None:
    x = right
    for label in reversed(LESIONS):
        name = "Ground glass" if label.value == GROUND_GLASS else label.name
        x -= canvas.width(name, 13)
        canvas.text(x, y, name, 13, QUIET)
        canvas.bar(x - 18, y - 11, 12, 12, _COLORS[label.value], radius=3)
        x -= 36


def _severity(canvas: Canvas, findings: Findings, left: float, y: float, width: float) -> float:
    y = _title(canvas, left, y, "Severity")
    if findings.severity is None:
        return _missing(canvas, left, y, "Not assessed by this engine.")
    return _probability(canvas, "Severe", findings.severity["severe"], left, y, width) + 34


def _diagnosis(canvas: Canvas, findings: Findings, left: float, y: float, width: float) -> float:
    y = _title(canvas, left, y, "Diagnosis")
    if findings.covid_probability is not None:
        y = _probability(canvas, DIAGNOSIS_NAMES["covid_19"], findings.covid_probability, left, y, width)
        return _missing(canvas, left, y, COVID_ALONE)
    if findings.diagnosis is None:
        return _missing(canvas, left, y, "Not assessed by this engine.")
    for key in reversed(DIAGNOSES):
        y = _probability(canvas, DIAGNOSIS_NAMES[key], findings.diagnosis[key], left, y, width)
    return y + 34


def _probability(canvas: Canvas, name: str, value: float, left: float, y: float, width: float) -> float:
    bar_left, bar_width = left + 190, width - 190 - 138
    canvas.text(left + 22, y + 20, name, 15)
    canvas.bar(bar_left, y + 6, bar_width, 17, TRACK, radius=3)
    canvas.bar(bar_left, y + 6, bar_width * value, 17, ACCENT, radius=3)
    canvas.text(bar_left + bar_width + 74, y + 20, f"{100 * value:.0f} %", 15, ha="right")
    return y + _ROW


def _lesions(canvas: Canvas, lesions: LesionFindings | None, left: float, y: float, width: float) -> float:
    y = _title(canvas, left, y, "Lesions")
    if lesions is None:
        return _missing(canvas, left, y, "Not assessed by this engine.")
    for line in _lesion_lines(lesions):
        y += 23
        canvas.text(left + 22, y, line, 15)
    y += 8
    for component in lesions.components[:_MAX_LESION_ROWS]:
        y += 23
        _lesion_row(canvas, component, left, y, width)
    return y + 40


def _picture_lesions(canvas: Canvas, picture: PictureFindings | None, left: float, y: float) -> float:
    y = _title(canvas, left, y, "Lesions")
    if picture is None or picture.lesion_count is None:
        return _missing(canvas, left, y, "Not assessed by this engine.")
    noun = "piece" if picture.lesion_count == 1 else "pieces"
    lines = [f"{picture.lesion_count} {noun}, {percent(picture.lesion_percent_of_picture)} of the picture"]
    if picture.lesion_percent_of_lungs is not None:
        lines.append(f"{percent(picture.lesion_percent_of_lungs)} of the lungs in it")
    for line in lines:
        y += 23
        canvas.text(left + 22, y, line, 15)
    return y + 40


def _lesion_row(canvas: Canvas, component: LesionComponent, left: float, y: float, width: float) -> None:
    """One of the largest lesions: volume, class, where most of it is, density."""
    value = CONSOLIDATION if component.lesion_class == "consolidation" else GROUND_GLASS
    canvas.bar(left + 22, y - 11, 12, 12, _COLORS[value], radius=3)
    canvas.text(left + 128, y, f"{component.volume_ml:.1f} ml", 14, QUIET, ha="right")
    shares = component.lobe_percent or {}
    where = [label.name for label in LOBES if shares.get(label.key, 0) == max(shares.values(), default=-1)]
    canvas.text(left + 190, y, where[0] if where else "", 14, QUIET)
    if component.mean_hu is not None:
        canvas.text(left + width, y, f"{component.mean_hu:.0f} HU".replace("-", "−"), 14, QUIET, ha="right")


def _lesion_lines(lesions: LesionFindings) -> list[str]:
    if not lesions.count:
        return ["None above 50 mm³"]
    sides = "" if lesions.bilateral is None else ", both lungs" if lesions.bilateral else ", one lung"
    noun = "lesion" if lesions.count == 1 else "lesions"
    lines = [f"{lesions.count} {noun}{sides}; largest {lesions.largest_volume_ml:.1f} ml"]
    thirds = (lesions.upper_third_percent, lesions.middle_third_percent, lesions.lower_third_percent)
    if lesions.dorsal_percent is not None:
        lines.append(f"peripheral {percent(lesions.peripheral_percent)} · dorsal {percent(lesions.dorsal_percent)}")
        lines.append("upper / middle / lower third " + " / ".join(f"{third or 0:.0f}" for third in thirds) + " %")
    return lines


def _missing(canvas: Canvas, left: float, y: float, words: str) -> float:
    canvas.text(left + 22, y + 20, words, 15, FAINT)
    return y + _ROW + 34


def _notice(canvas: Canvas, notice: str, left: float, width: float, bottom: float) -> float:
    """Draw the notice at the foot; returns where it begins."""
    lines = canvas.wrapped(notice, width, 12.5)[:_MAX_NOTICE_LINES]
    top = bottom - 17 * len(lines)
    for place, line in enumerate(lines):
        canvas.text(left, top + 17 * (place + 1) - 4, line, 12.5, QUIET)
    return top


def _quality(canvas: Canvas, flags: tuple[QualityFlag, ...], left: float, y: float, width: float, floor: float) -> None:
    """As many remarks as fit above ``floor``, warnings first, and how many more there are."""
    if not flags:
        return
    y = _title(canvas, left, y, "Remarks")
    room = min(int((floor - 20 - y) / 19) - 1, _MAX_WARNING_LINES)
    for place, flag in enumerate(flags):
        lines = canvas.wrapped(flag.message, width - 24, 13.5)
        if len(lines) > room:
            canvas.text(left + 22, y + 19, f"{len(flags) - place} more in findings.json", 13.5, FAINT)
            return
        room -= len(lines)
        color = WARNING if flag.level == "warning" else FAINT
        canvas.bar(left + 3, y + 10, 8, 8, color, radius=4)
        y = _each_line(lines, y, lambda line, at: canvas.text(left + 22, at, line, 13.5, QUIET))


def _each_line(lines: list[str], y: float, draw: Callable[[str, float], None]) -> float:
    for line in lines:
        y += 19
        draw(line, y)
    return y
