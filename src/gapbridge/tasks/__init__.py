"""How each data set becomes examples."""
