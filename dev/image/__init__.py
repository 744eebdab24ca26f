"""`make containers`: the image built and checked, and docker-compose.yml run, with a real engine."""
