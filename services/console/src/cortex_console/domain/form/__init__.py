"""What the form of a model decides: which fields there are, what was typed, what differs, what it takes."""
