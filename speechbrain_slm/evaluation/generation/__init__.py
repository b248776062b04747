"""What a speech LM says when it goes on: measures on units, audio and text."""
