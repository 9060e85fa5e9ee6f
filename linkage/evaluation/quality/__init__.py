"""`quality`: how well labelled records link when encoded, and how well plain Splink links the same rows in clear."""

from linkage.evaluation.quality.cli import command
from linkage.evaluation.quality.encoded import encode
from linkage.evaluation.quality.labelled import Labelled, read
from linkage.evaluation.quality.measure import Measured, evaluate, measure, report

__all__ = ["Labelled", "Measured", "command", "encode", "evaluate", "measure", "read", "report"]
