"""`python -m ponder_cli` is `ponder`."""

from ponder_cli.app import main

if __name__ == "__main__":
    main()
