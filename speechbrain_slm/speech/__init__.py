"""From stories to speech."""
