"""Who asks, and whether they may: principals, their credentials, and the rules."""
