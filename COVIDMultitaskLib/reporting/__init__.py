"""Results for people: a table for the terminal and an overview picture."""

from COVIDMultitaskLib.reporting.overview import draw_overview
from COVIDMultitaskLib.reporting.picture import draw_picture_overview
from COVIDMultitaskLib.reporting.table import print_findings

__all__ = ["draw_overview", "draw_picture_overview", "print_findings"]
