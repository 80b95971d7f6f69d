"""Who does what. A service never imports another; they meet on the bus and in the table."""
