"""`python -m labrelay` is `labrelay`."""

from labrelay.cli import main

if __name__ == "__main__":
    main(prog_name="labrelay")
