"""Sessions of people at the console, and the codes with which they sign in once."""
