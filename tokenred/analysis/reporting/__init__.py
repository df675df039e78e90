"""Reports: results as one HTML page that needs nothing else."""

from __future__ import annotations

from tokenred.analysis.reporting.writing import make_page, report

__all__ = ["make_page", "report"]
