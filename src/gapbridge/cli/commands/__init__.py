"""One module for each command: its options, its help, and what it runs. Free of torch until a command runs."""
