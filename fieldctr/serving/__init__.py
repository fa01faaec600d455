"""A model that leaves the house: its graph, its transforms as data, and a scorer that does not import fieldctr."""
