"""Small true servers that stand in for those that are not at hand."""
