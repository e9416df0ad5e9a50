"""``python -m align.pipeline.cli``."""

from align.pipeline.cli.main import main

main()
