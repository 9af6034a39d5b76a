"""What lies in the models directory: walked (tree), grouped (units), read (examine), set in relation (relate)."""
