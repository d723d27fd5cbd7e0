"""A host for the module outside Slicer's application: real scene, real rendering, small stand-ins.

==============  ===========================================================================
``scene``       slicer-core's real MRML scene and logics, wired as the application does
``slice_view``  slice views rendered offscreen by the real displayable managers
``stand_ins``   ``slicer.ScriptedLoadableModule`` and other Python parts the wheel lacks
``chest``       a toy chest with known lobes and lesions on any grid, and findings for it
``fake_child``  a child process that speaks the protocol, and misbehaves on request
==============  ===========================================================================

What differs from the application: the subject hierarchy's Qt plugins are missing, so items of
volumes are made by hand (``SlicerHost.addStudy``); there is no ``slicer.app``.
"""
