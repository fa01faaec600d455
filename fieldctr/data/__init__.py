"""Raw click logs to id matrices."""
