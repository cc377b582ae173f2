"""`python -m gapbridge COMMAND …`, and `accelerate launch … -m gapbridge COMMAND …`."""

from .cli import main


if __name__ == "__main__":
    main()
