"""From a unit store to training rows."""
