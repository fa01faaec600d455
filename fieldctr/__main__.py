"""`python -m fieldctr` is the console script."""

from fieldctr.cli import main

if __name__ == "__main__":
    main()
