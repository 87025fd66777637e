"""Pure rules that two services must apply alike. Imports no other package of Mooring."""
