"""From label maps to volumes, percentages, scores, lesions and quality flags."""

from COVIDMultitaskLib.measuring.measure import MaskMeasures, MaskMeter, measure, measure_masks

__all__ = ["MaskMeasures", "MaskMeter", "measure", "measure_masks"]
