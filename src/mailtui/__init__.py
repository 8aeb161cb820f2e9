"""mailtui: an SMTP relay you can see."""

__version__ = "0.1.0"
