"""SFT, supervised fine-tuning on the references: start and control of the other methods."""

DISPLAY_NAME = "SFT"
EXPORTS: dict[str, str] = {}
