"""A page that answers a question: a comparison of finished runs with its tables, pictures and origins."""
