"""What the tests stand on: real servers, real processes, and waiting for a condition with a deadline."""
