"""Writing files so that a final name means whole bytes."""
