"""Looks at what a room stands on, and says what is wrong and what to do about it."""

from services.doctor.examination import Report, examine
from services.doctor.model import Questions

__all__ = ["Questions", "Report", "examine"]
