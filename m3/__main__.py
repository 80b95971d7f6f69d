"""``python -m m3`` is the ``m3`` command."""

from m3.cli import main

main()
