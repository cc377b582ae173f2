"""SFT, supervised fine-tuning on the references: start and control of the other methods."""

EXPORTS: dict[str, str] = {}
