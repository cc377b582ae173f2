"""A recipe before its launch: tried at tiny scale on stand-ins, and counted: memory, steps, time."""
