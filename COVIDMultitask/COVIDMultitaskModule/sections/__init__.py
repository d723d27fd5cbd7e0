"""The panel's sections, each the behaviour of one collapsible box of the ``.ui`` file.

A section gets the widgets and what it works with as arguments, and knows no other section.
"""
