"""DICOM: which files form which series, which series is the chest CT, and its regular grid."""
