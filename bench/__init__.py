"""What we claim about speed, measured beside what we compare with."""
