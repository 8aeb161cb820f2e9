"""`python -m mailtui` is the command `mailtui`."""

from mailtui.cli import main

if __name__ == "__main__":
    main()
