"""Whether arms differ: what another test sample and other seeds leave open of a difference, and what may be said."""
