"""How fast the room answers and what it costs at rest. Figures for people, and no test: nothing here fails."""
