"""Development servers and commands of this repository. Not part of the installed package."""
