"""What a field is: its spec, how its cells are spelled, and how columns become fields."""
