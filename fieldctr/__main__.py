"""`python -m fieldctr` is the console script."""

from fieldctr.cli import main

main()
