"""`make pictures`: some minutes of a real installation, and what its dashboards showed, drawn."""
