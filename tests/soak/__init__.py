"""An hour of load with a full broker behind it: the memory of every process stays flat (`make soak`)."""
