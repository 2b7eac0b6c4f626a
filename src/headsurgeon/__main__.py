"""`python -m headsurgeon`: the command line, also where its script is not on the path."""

from headsurgeon.cli.main import main

if __name__ == "__main__":
    main()
