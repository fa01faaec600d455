"""Language models: encode texts, tune on field names, keep the vectors of the fields."""
