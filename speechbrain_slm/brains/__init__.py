"""SpeechBrain Brains for long, exact, token-counted training."""
