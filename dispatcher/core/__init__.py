"""The pure core: values in, decisions out. No socket, no clock, no chance; time and randomness are arguments."""
