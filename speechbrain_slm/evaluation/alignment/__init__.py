"""Are the hidden states of a sentence alike in two languages?"""
