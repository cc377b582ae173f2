"""What evaluation and gap share: models' answers, kept."""
