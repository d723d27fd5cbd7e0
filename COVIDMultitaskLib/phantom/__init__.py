"""A chest CT made of formulas: known lobes and lesions, no patient, no data files."""

from COVIDMultitaskLib.phantom.chest import Phantom, PhantomParameters, make_phantom

__all__ = ["Phantom", "PhantomParameters", "make_phantom"]
