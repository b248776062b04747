"""Is the right ending of a story likelier than a wrong one?"""
