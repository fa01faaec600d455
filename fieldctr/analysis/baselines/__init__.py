"""What a model must beat and what it cannot reach."""
