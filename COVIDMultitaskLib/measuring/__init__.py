"""From label maps to volumes, percentages, scores, lesions and quality flags."""

from COVIDMultitaskLib.measuring.measure import MaskMeasures, measure, measure_masks

__all__ = ["MaskMeasures", "measure", "measure_masks"]
