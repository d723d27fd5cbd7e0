"""The panel without a mouse: every control is reached by Tab from top to bottom, the main ones by Alt and a letter."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as xml
from collections import Counter

import pytest

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 is not installed")

from PySide6 import QtCore, QtGui, QtWidgets
from qt_host.application import Application
from slicer_host.chest import ijkToRas, toyChest

OF_SLICERS_MENUS = set("FEVHA")
"""File, Edit, View, Help; and Apply has its letter from the code."""


@pytest.fixture
def texts(repository) -> dict[str, str]:
    """Of every widget of the .ui file that has one."""
    tree = xml.parse(repository / "COVIDMultitask" / "Resources" / "UI" / "COVIDMultitask.ui")
    found = {widget.get("name"): widget.findtext("property[@name='text']/string") for widget in tree.iter("widget")}
    return {name: text for name, text in found.items() if text}


@pytest.fixture
def app(host, tmp_path, monkeypatch):
    from COVIDMultitaskModule import compat

    monkeypatch.setattr(compat, "missingPackages", list)
    monkeypatch.setattr(compat, "userDataFolder", lambda: tmp_path / "data")
    application = Application(host, tmp_path)
    yield application
    application.close()
    application.check()


@pytest.fixture
def widget(app, moduleFile, host):
    host.addVolume(toyChest().ct, ijkToRas(), "CT")
    return app.openModule(moduleFile)


def test_no_letter_is_used_twice_or_taken_from_slicers_menus(texts):
    letters = Counter(letter.upper() for text in texts.values() for letter in re.findall("&(.)", text))
    assert max(letters.values()) == 1, letters.most_common(3)
    assert not OF_SLICERS_MENUS & set(letters)
    assert len(letters) > 15


def test_a_letter_on_a_label_leads_to_a_control(widget, texts):
    for name, text in texts.items():
        child = getattr(widget.ui, name)._target
        if "&" in text and isinstance(child, QtWidgets.QLabel):
            assert child.buddy() is not None, name


def test_every_control_has_words_for_those_who_cannot_see_it(widget):
    labels = widget.parent.frame.findChildren(QtWidgets.QLabel)
    buddies = {label.buddy().objectName() for label in labels if label.buddy() is not None}
    for child in widget.parent.frame.findChildren(QtWidgets.QWidget):
        name = child.objectName()
        isControl = child.focusPolicy() & QtCore.Qt.FocusPolicy.TabFocus and not isinstance(child, QtWidgets.QLabel)
        if isControl and name and not name.startswith("qt_"):
            text = child.text() if hasattr(child, "text") else ""
            assert name in buddies or text or child.accessibleName() or child.toolTip(), name


def test_tab_goes_from_top_to_bottom(app, widget, tmp_path):
    app.picture(widget, tmp_path / "panel.png")
    frame, tops, child = widget.parent.frame, [], widget.parent.frame.nextInFocusChain()
    while child is not frame:
        isReached = child.focusPolicy() & QtCore.Qt.FocusPolicy.TabFocus and child.isVisible() and child.isEnabled()
        if isReached and frame.isAncestorOf(child):
            tops.append(child.mapTo(frame, QtCore.QPoint(0, child.height() // 2)).y())
        child = child.nextInFocusChain()
    assert len(tops) > 12
    assert all(after >= before - 12 for before, after in itertools.pairwise(tops)), tops


def test_apply_and_cancel_have_the_same_keys(app, widget, worker):
    worker("hang")
    keys = QtGui.QKeySequence("Alt+A")
    assert widget.ui.applyButton._target.shortcut() == keys
    app.click(widget.ui.applyButton)
    assert widget.ui.applyButton.text == "Cancel" and widget.ui.applyButton._target.shortcut() == keys
    app.click(widget.ui.applyButton)
    app.wait(lambda: not widget.logic.client.isBusy)
