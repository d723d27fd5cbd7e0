"""One engine helped by another: lungs to look into, and answers that it does not give itself."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np

from COVIDMultitaskLib.engines.contract import Engine, EngineIdentity, Prediction
from COVIDMultitaskLib.labels import LUNG_LABELS, LUNGS
from COVIDMultitaskLib.progress import Progress
from COVIDMultitaskLib.volume import Volume

MAPS = ("lobes", "lesions")
"""Answers that another engine may supply. Severity and diagnosis are an engine's own or nobody's."""


class Support:
    """The answers of a helping engine, kept for the last scan: it is asked for lungs, lobes and lesions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._scan: weakref.ref[Volume] | None = None
        self._answer: Prediction | None = None

    @property
    def identity(self) -> EngineIdentity:
        """Which weights help."""
        return self.engine.identity

    def answer(self, volume: Volume, progress: Progress) -> Prediction:
        """All that the helping engine says of a scan; part of the preparation of the one that is helped.

        :raises NotChestCTError: when the scan shows no lungs.
        """
        if self._answer is None or self._scan is None or self._scan() is not volume:
            with progress.stage("prepare"):
                self._answer = self.engine.predict(volume, progress.inner())
            self._scan = weakref.ref(volume)
        return self._answer

    def lungs(self, volume: Volume, progress: Progress) -> np.ndarray:
        """Values of ``labels.LUNG_LABELS``, uint8 (z, y, x) on the scan's grid."""
        lobes = self.answer(volume, progress).lobes
        assert lobes is not None, "an engine without lobes cannot tell where the lungs are"
        table = np.zeros(256, np.uint8)
        for lung in LUNG_LABELS:
            table[list(LUNGS[lung.key])] = lung.value
        return table[lobes]


class FilledEngine:
    """An engine whose missing lobes or lesions another one supplies.

    :param support: tells who supplied them in ``Prediction.sources``.
    """

    def __init__(self, engine: Engine, support: Support) -> None:
        self.identity = engine.identity
        self.name = engine.name
        # Nobody else finds lobes in a picture.
        self.takes = "slices" if engine.takes == "picture" else engine.takes
        self.answers = engine.answers | (support.engine.answers & set(MAPS))
        self._engine = engine
        self._support = support

    def predict(self, volume: Volume, progress: Progress) -> Prediction:
        """The engine's answers, completed; see :meth:`Engine.predict`."""
        supplied = self._support.answer(volume, progress)
        found = self._engine.predict(volume, progress)
        added = {name: getattr(supplied, name) for name in MAPS if getattr(found, name) is None}
        added = {name: labels for name, labels in added.items() if labels is not None}
        filled = replace(found, **added, sources={**found.sources, **dict.fromkeys(added, self._support.identity)})
        return _inside_lobes(filled)


def _inside_lobes(found: Prediction) -> Prediction:
    """Two engines need not agree where the lungs end: lesions outside the lobes go."""
    if found.lobes is None or found.lesions is None:
        return found
    return replace(found, lesions=np.where(found.lobes > 0, found.lesions, 0).astype(np.uint8))
