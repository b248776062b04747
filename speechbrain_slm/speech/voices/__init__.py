"""Does a speaker sound the same in every language?"""
