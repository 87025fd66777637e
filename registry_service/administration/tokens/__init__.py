"""API tokens: who a person or script is, and what they may do."""
