"""Reading and changing devices, for administrators."""
