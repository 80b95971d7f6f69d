"""What all services of the M3 room agree on."""

__version__ = "0.1.0"
