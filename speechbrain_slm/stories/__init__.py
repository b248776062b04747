"""From texts to a table of stories, sentence by sentence."""
