"""report.html: one page that stands alone and shows what a run learnt, and why one can believe it."""

from convscope.report.page import Report, write_report

__all__ = ["Report", "write_report"]
