"""``python -m COVIDMultitaskLib`` is ``covid-multitask``."""

from COVIDMultitaskLib.cli import main

if __name__ == "__main__":
    main()
