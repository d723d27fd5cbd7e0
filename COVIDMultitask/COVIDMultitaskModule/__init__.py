"""What the Slicer module ``COVIDMultitask`` is made of, in the order of the data.

==================  ==========================================================================
``parameter``       what the user chose, and whether it can be analysed (with the reason if not)
``exchange``        the temporary folder through which Slicer and the child process pass volumes
``protocol``        the JSON lines the child process prints, and their place on one progress bar
``worker``          the child process: started, listened to, killed with all its children
``analysis``        one run: a volume goes out, results come back or a sentence says why not
``findings``        the findings as a radiologist reads them (pure Python)
``terminology``     the coded terms of the segments
``scene_writer``    results as segmentations, table and label maps in the scene
``correction``      corrected masks: noticed, measured, taken back
``panel``           what the user sees; its boxes are in ``sections``
``self_test``       what the module checks inside Slicer
``compat``          differences between Slicer versions, all of them
==================  ==========================================================================

Nothing here computes on voxels of a scan: that is ``COVIDMultitaskLib``'s work, in the child
process, so that Slicer stays alive. ``protocol``, ``worker`` and ``findings`` import neither
Slicer nor Qt.
"""
