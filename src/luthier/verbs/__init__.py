"""Rank 6: one function per verb: wires rooms together, writes the run directory, returns the result."""

from luthier.ground.result import Result
from luthier.reports.notebook import to_html

Result.html = to_html  # how a notebook shows results; the ground itself draws nothing
