"""From files to a volume in Hounsfield units, or to one sentence that says why not."""

from __future__ import annotations

from COVIDMultitaskLib.reading.checks import check_chest_ct
from COVIDMultitaskLib.reading.intensities import to_hounsfield
from COVIDMultitaskLib.reading.scan import read_label_map, read_volume

__all__ = ["check_chest_ct", "read_label_map", "read_volume", "to_hounsfield"]
