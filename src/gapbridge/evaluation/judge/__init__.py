"""Win rates by a judge."""
