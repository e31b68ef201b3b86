"""`python -m runyard`: the command line without an installed script."""

from runyard.cli.main import main

if __name__ == "__main__":
    main()
