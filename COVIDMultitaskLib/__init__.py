"""Five lung lobes, COVID-19 lesions, severity and diagnosis from one chest CT.

The library core: it knows nothing of Slicer or Qt, and imports nothing heavy
(torch, monai, SimpleITK) until a function needs it.
"""

__version__ = "0.1.0"
