"""The report: one self-contained page of a scale's verdicts, numbers, tables, figures and provenance.

It only presents what other steps have written; no number or verdict is computed or typed here.
"""

from reproduction.report.inputs import ReportError
from reproduction.report.write import write_report

__all__ = ["ReportError", "write_report"]
