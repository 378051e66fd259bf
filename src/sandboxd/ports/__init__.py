"""Every seam of the house, one file a seam."""
