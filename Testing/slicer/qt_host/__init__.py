"""An offscreen Qt host for the module's whole widget; README.md says what differs from PythonQt.

================  =====================================================================
``python_qt``     the modules ``qt`` and ``ctk``: PySide6 with PythonQt's manners
``widgets``       small ctk and qMRML widgets that the panel's ``.ui`` file names
``application``   ``slicer.app``, the parts of ``slicer.util`` that need Qt, the module's widget
================  =====================================================================
"""
