"""What is wrong with a table before a model hides it."""
