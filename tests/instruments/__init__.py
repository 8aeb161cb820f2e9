"""The instruments are right: what bench/ counts and proves with."""
