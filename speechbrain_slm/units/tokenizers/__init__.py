"""What makes units of speech, a module each."""
