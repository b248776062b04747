"""What makes speech of units, a module each."""
