"""Kalman filters, importance ratios, advantages and losses of KPO (arXiv 2602.10609) and KRPO (arXiv 2505.07527)."""

__version__ = "0.1.0"
