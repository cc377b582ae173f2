"""What every method's trainer shares."""
