"""Graph -> Graph passes, and the buffer plan. Knows ops by trait and no backend."""
