"""The findings as rich text for a ``QLabel``: bars, scores, the lungs, the per-lobe table, warnings.

Pure Python, within what Qt's rich text knows (tables, background colours, images from data). Text
keeps the label's own colour and font, so that it fits every style; only quiet things are greyed.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from COVIDMultitaskLib.findings import NOT_ASSESSED
from COVIDMultitaskLib.labels import LOBES

from .compat import tr as _
from .findings import FindingsView, Row
from .lobe_picture import HEIGHT, WIDTH, affectedColor, lobePicture

_Column = tuple[str, str, int]

_SHOWN: tuple[_Column, ...] = (
    ("volume_ml", "ml", 0),
    ("lesion_percent", "affected", 1),
    ("ground_glass_percent", "GGO", 1),
    ("consolidation_percent", "consol.", 1),
    ("score", "score", 0),
)
"""Columns of the table in the panel: key, heading, decimals. Percentages of the lobe, the score out of 5."""

_ABBREVIATIONS = {"left_upper": "LUL", "left_lower": "LLL", "right_upper": "RUL", "right_middle": "RML",
                  "right_lower": "RLL", "total": "Both"}  # fmt: skip

LOBE_LINK = "lobe:"


@dataclass(frozen=True)
class Shades:
    """The few colours that depend on whether the window is dark."""

    quiet: str
    track: str
    bar: str
    leading: str
    warning: str

    @staticmethod
    def of(isDark: bool) -> Shades:
        """Those for a dark or a light window."""
        if isDark:
            return Shades("#9aa4ad", "#4a5158", "#6d7f8c", "#5aa9e6", "#e5b567")
        return Shades("#66707a", "#dfe4e8", "#9fb0bd", "#2f7fc1", "#8a5a00")


def findingsHtml(view: FindingsView, isDark: bool = False, isNarrow: bool = False) -> str:
    """Everything the panel says about one scan, most important first.

    :param isNarrow: whether there is little room for the font: lobes then have their usual abbreviations.
    """
    shades = Shades.of(isDark)
    parts = (
        _correction(view, shades),
        _probabilities(view, shades),
        _scores(view, shades),
        _lungs(view, shades),
        _lobes(view, shades, isNarrow),
        f"<p>{_escaped(view.pattern)}</p>" if view.pattern else "",
        _differential(view, shades),
        _remarks(view, shades),
    )
    return "".join(parts)


def _escaped(text: str) -> str:
    return html.escape(str(text))


def _quiet(text: str, shades: Shades) -> str:
    return f'<font color="{shades.quiet}">{_escaped(text)}</font>'


def _note(text: str, shades: Shades) -> str:
    """A quiet line of its own; nothing without text."""
    return f"<p>{_quiet(text, shades)}</p>" if text else ""


def _heading(text: str) -> str:
    return f'<p style="margin-top:6px; margin-bottom:2px"><b>{_escaped(text)}</b></p>'


def _correction(view: FindingsView, shades: Shades) -> str:
    made = view.correction
    if made is None:
        return ""
    what = " " + _("and") + " "
    who = _("by {name}").format(name=made.by) if made.by else ""
    when = made.time.replace("T", " ")[:16]
    text = " ".join(filter(None, [_("Corrected:"), what.join(made.kinds), who, when]))
    return f'<p><font color="{shades.leading}"><b>{_escaped(text)}</b></font></p>'


def _probabilities(view: FindingsView, shades: Shades) -> str:
    named = [(bar.name, bar.probability) for bar in view.diagnosis or []]
    diagnosis = _bars(named or None, shades) + _note(view.diagnosisNote, shades)
    severity = _bars(None if view.severe is None else [(_("Severe"), view.severe)], shades)
    return _heading(_("Diagnosis, probability")) + diagnosis + _heading(_("Severity, probability")) + severity


def _bars(values: Sequence[tuple[str, float]] | None, shades: Shades) -> str:
    if values is None:
        return _note(_(NOT_ASSESSED), shades)
    rows = []
    for place, (name, probability) in enumerate(values):
        color = shades.leading if place == 0 else shades.bar
        filled = round(100 * min(max(probability, 0.0), 1.0))
        rows.append(
            f'<tr><td width="36%">{_escaped(name)}</td>'
            f'<td width="46%" valign="middle">{_bar(filled, color, shades)}</td>'
            f'<td width="18%" align="right">{filled} %</td></tr>'
        )
    return f'<table width="100%" cellspacing="0" cellpadding="1">{"".join(rows)}</table>'


def _bar(percent: int, color: str, shades: Shades) -> str:
    """A bar of two cells; one that would be empty is left out, since Qt gives it some width."""
    cells = ((percent, color), (100 - percent, shades.track))
    shown = "".join(
        f'<td width="{width}%" bgcolor="{shade}"><span style="font-size:5pt">&nbsp;</span></td>'
        for width, shade in cells
        if width
    )
    return f'<table width="100%" cellspacing="0" cellpadding="0"><tr>{shown}</tr></table>'


def _scores(view: FindingsView, shades: Shades) -> str:
    title = _heading(_("Extent") if view.hasLesions else _("Lesions and extent"))
    if all({score.model, score.corrected} <= {_(NOT_ASSESSED), None} for score in view.scores):
        return title + _note(_(NOT_ASSESSED), shades)
    isCorrected = view.correction is not None
    rows = [_headRow(["", _("Model"), _("Corrected")], shades)] if isCorrected else []
    for score in view.scores:
        model = _quiet(score.model, shades) if isCorrected else f"<b>{_escaped(score.model)}</b>"
        corrected = f'<td align="right"><b>{_escaped(score.corrected or "")}</b></td>' if isCorrected else ""
        rows.append(f'<tr><td>{_escaped(score.title)}</td><td align="right">{model}</td>{corrected}</tr>')
    return title + f'<table width="100%" cellspacing="0" cellpadding="1">{"".join(rows)}</table>'


def _headRow(heads: Sequence[str], shades: Shades, isSmall: bool = False) -> str:
    first, *others = heads
    size = ' style="font-size:small"' if isSmall else ""
    cells = "".join(f'<td align="right"{size}>{_quiet(text, shades)}</td>' for text in others)
    return f"<tr><td><b>{_escaped(first)}</b></td>{cells}</tr>"


def _lungs(view: FindingsView, shades: Shades) -> str:
    """The picture between the percentages of the lobes, the patient's right on the left."""
    affected = view.affected
    if all(value is None for value in affected.values()):
        return ""
    picture = base64.b64encode(lobePicture(affected, scale=2)).decode("ascii")
    sides = [
        "<br><br>".join(_share(key, affected[key], shades) for key in affected if key.startswith(side))
        for side in ("right", "left")
    ]
    image = f'<img width="{WIDTH}" height="{HEIGHT}" src="data:image/png;base64,{picture}">'
    cells = (
        f'<td width="30%" valign="middle" align="right">{_quiet(_("Right"), shades)}<br><br>{sides[0]}</td>'
        f'<td width="40%" align="center">{image}</td>'
        f'<td width="30%" valign="middle">{_quiet(_("Left"), shades)}<br><br>{sides[1]}</td>'
    )
    return f'<table width="100%" cellspacing="0" cellpadding="2"><tr>{cells}</tr></table>'


def _share(key: str, percent: float | None, shades: Shades) -> str:
    part = {"upper": _("Upper"), "middle": _("Middle"), "lower": _("Lower")}[key.split("_")[1]]
    text = "–" if percent is None else f"{percent:.0f}&nbsp;%"
    return f"{_quiet(part, shades)} <b>{text}</b>"


def _lobes(view: FindingsView, shades: Shades, isNarrow: bool) -> str:
    missing = "" if view.hasLobes else _note(_("Lobes: ") + _(NOT_ASSESSED), shades)
    columns = _shownColumns([*view.rows, *view.modelRows.values()])
    if not columns:
        return missing
    heads = [_("Lobe") if view.hasLobes else _("Lungs"), *(_(heading) for _key, heading, _decimals in columns)]
    model = view.modelRows if view.correction is not None else {}
    rows = [_lobeRow(row, model.get(row.key), columns, shades, isNarrow) for row in view.rows]
    return (
        f'{missing}<table width="100%" cellspacing="0" cellpadding="{0 if isNarrow else 2}">'
        f"{_headRow(heads, shades, isNarrow)}{''.join(rows)}</table>{_note(_legend(columns, view.hasLobes), shades)}"
    )


def _shownColumns(rows: Sequence[Row]) -> list[_Column]:
    """Those of ``_SHOWN`` that any row has a value for: a column of dashes says nothing."""
    return [column for column in _SHOWN if any(row.value(column[0]) is not None for row in rows)]


def _legend(columns: Sequence[_Column], hasLobes: bool) -> str:
    """What the columns mean; empty where their headings say it."""
    keys = [key for key, _heading, _decimals in columns]
    whole = _("lobe") if hasLobes else _("lungs")
    shares = _("affected, GGO (ground-glass), consolidation: % of the {whole}").format(whole=whole)
    parts = [shares if "lesion_percent" in keys else "", _("score: 0 to 5") if "score" in keys else ""]
    return "; ".join(filter(None, parts))


def _lobeRow(row: Row, model: Row | None, columns: Sequence[_Column], shades: Shades, isNarrow: bool) -> str:
    colors = {lobe.key: "#{:02x}{:02x}{:02x}".format(*lobe.color) for lobe in LOBES}
    name = _escaped(_(_ABBREVIATIONS[row.key]) if isNarrow and row.key in _ABBREVIATIONS else row.name)
    name = name.replace(" lobe", "")
    if row.key in colors:
        swatch = f'<font color="{colors[row.key]}">&#9632;</font>&nbsp;'
        name = f'<a href="{LOBE_LINK}{row.key}" style="text-decoration:none">{swatch}</a>{name}'
    else:
        name = f"<b>{name}</b>"
    cells = "".join(_valueCell(row, model, key, decimals, shades) for key, _heading, decimals in columns)
    return f'<tr><td valign="bottom" style="white-space:nowrap">{name}</td>{cells}</tr>'


def _valueCell(row: Row, model: Row | None, key: str, decimals: int, shades: Shades) -> str:
    """The value; above it, small, the model's own where a correction changed it."""
    text = _number(row.value(key), decimals)
    before = _number(model.value(key), decimals) if model else text
    if before != text:
        text = f'<font color="{shades.quiet}" size="2">{before}</font><br><b>{text}</b>'
    background = ""
    if key == "lesion_percent" and row.value(key):
        background = ' style="border-bottom:2px solid #{:02x}{:02x}{:02x}"'.format(*affectedColor(row.value(key)))
    return f'<td align="right" valign="bottom"{background}>{text}</td>'


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _differential(view: FindingsView, shades: Shades) -> str:
    """The lesions beside the middle 90 % of cases of each diagnosis."""
    rows = view.differential
    if not rows:
        return ""
    known = list(dict.fromkeys(name for row in rows for name in row.ranges))
    lines = [_headRow([_("Lesions"), _("Here"), *known], shades, isSmall=True)]
    for row in rows:
        cells = "".join(f'<td align="right">{_quiet(row.ranges.get(name, "–"), shades)}</td>' for name in known)
        lines.append(
            f'<tr><td>{_escaped(row.title)}</td><td align="right"><b>{_escaped(row.value)}</b></td>{cells}</tr>'
        )
    form = _("under each diagnosis: the middle 90 % of held-out {scans}, their lesions as the engine finds them")
    note = form.format(scans=view.knownScans)
    return f'<table width="100%" cellspacing="0" cellpadding="2">{"".join(lines)}</table>{_note(note, shades)}'


def _remarks(view: FindingsView, shades: Shades) -> str:
    warnings = [f'<font color="{shades.warning}">&#9888; {_escaped(text)}</font>' for text in view.warnings]
    hints = [_quiet(text, shades) for text in filter(None, (view.uncertainty, view.unlikeness, *view.hints))]
    return "".join(f'<p style="margin-top:2px; margin-bottom:2px">{text}</p>' for text in warnings + hints)


def researchHtml(view: FindingsView, isDark: bool = False) -> str:
    """The line under every result: research use, engine and version, what it was trained on."""
    return _quiet(" ".join(filter(None, [view.notice, f"({view.origin})" if view.origin else ""])), Shades.of(isDark))
