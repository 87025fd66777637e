"""Pure rules that two services apply alike. Imports nothing of ours."""
