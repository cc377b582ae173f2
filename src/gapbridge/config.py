"""What all methods share on top of TRL's `SFTConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import SFTConfig

from .errors import ConfigError


@dataclass
class ExampleConfig(SFTConfig):
    """`SFTConfig` with the treatment of bad rows and an inline chat template.

    Args:
        on_bad_rows (`str`, *optional*, defaults to `"raise"`):
            What to do with rows that cannot be used: `"raise"` stops with a list of them, `"skip"` leaves them out and
            lists them.
        truncate_long_rows (`bool`, *optional*, defaults to `False`):
            Cut answers that do not fit into `max_length`, as TRL does (they lose their EOS), instead of counting them
            as bad rows.
        chat_template (`str`, *optional*):
            A chat template in Jinja, set on the tokenizer. For a file use `chat_template_path`.
    """

    on_bad_rows: str = field(
        default="raise", metadata={"help": "Rows that cannot be used: raise or skip.", "choices": ["raise", "skip"]}
    )
    truncate_long_rows: bool = field(
        default=False, metadata={"help": "Cut answers that do not fit into max_length instead of refusing the row."}
    )
    chat_template: str | None = field(
        default=None, metadata={"help": "Chat template (Jinja) to set on the tokenizer."}
    )

    def faults(self) -> list[str]:
        """Everything wrong with the values, one sentence each."""
        faults = []
        if self.on_bad_rows not in ("raise", "skip"):
            faults.append(f"on_bad_rows is {self.on_bad_rows!r}: choose raise or skip")
        if self.chat_template is not None and self.chat_template_path is not None:
            faults.append("both chat_template and chat_template_path are given: keep one")
        if self.max_length is not None and self.max_length < 2:
            faults.append(f"max_length is {self.max_length}: a row needs at least 2 tokens")
        if self.packing and self.packing_strategy == "wrapped":
            faults.append(
                "packing_strategy: wrapped lets documents attend to each other and cuts them anywhere; use bfd"
            )
        return faults

    def check(self) -> None:
        """Raise one ConfigError that lists all faults."""
        faults = self.faults()
        if faults:
            raise ConfigError(faults)
