"""How each kind of field becomes ids and values: one module per kind, all with the signature in `encoder`."""
