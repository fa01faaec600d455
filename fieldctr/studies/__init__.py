"""Studies: many runs from one question. Spaces, searches, the order of jobs, and the engines that run them."""
