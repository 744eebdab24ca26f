"""The services: intake, recorder, scheduler. Each orchestrates edges and leaves decisions to the core."""
