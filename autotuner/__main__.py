"""``python -m autotuner`` is ``autotuner``."""

from autotuner.cli import main

main()
